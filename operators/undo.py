"""``undo``: take back the last decision of a review, from the App."""

from __future__ import annotations

from typing import Any

from ..forms import Form
from ..review import fields_of, settings_of, show_decided, undo_last, whole_of
from ..review_operator import ReviewOperator


class Undo(ReviewOperator):
    """A form and a call of ``promerge_fo.dataset.undo``."""

    label = "ProMerge: undo the last decision"
    description = "Masks that were accepted or rejected last are as they were before"
    icon = "undo"

    def __call__(self, samples: Any, label_field: str) -> Any:
        """Take back from Python; arguments as those of ``promerge_fo.dataset.undo``."""
        return self.run(samples, label_field, scope="view")

    def ask(self, form: Form) -> None:
        super().ask(form)
        form.choose("label_field", fields_of(form.ctx, form.ctx.view), "Field")

    def work(self, ctx: Any) -> dict[str, int]:
        field = ctx.params.get("label_field") or settings_of(ctx)["label_field"]
        in_view = ctx.params.get("scope") == "view"
        count = undo_last(ctx, ctx.view if in_view else whole_of(ctx, field), field)
        if count:
            show_decided(ctx, f"{count:,} as before", is_undone=True)
        return {"undone": count}
