"""``undo``: take back the last decision of a review, from the App."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from ..forms import choose_field, detection_fields
from ..review_state import field_of, show_decided, undo_scope, why_not


class Undo(foo.Operator):
    """A form and a call of ``promerge_fo.dataset.undo``."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="undo",
            label="ProMerge: undo the last decision",
            description="Masks that were accepted or rejected last are as they were before",
            icon="undo",
            dynamic=True,
        )

    def __call__(self, samples: Any, label_field: str) -> Any:
        """Take back from Python; arguments as those of ``promerge_fo.dataset.undo``."""
        from promerge_fo.dataset.review.updates import label_path

        label_path(samples, label_field)  # FiftyOne's own validation does not name the fields
        params = {"label_field": label_field, "scope": "view"}
        return foo.execute_operator(self.uri, {"view": samples.view()}, params=params)

    def resolve_input(self, ctx: Any) -> types.Property:
        refusal = why_not(ctx)
        if refusal is not None:
            return refusal
        fields = ctx.view._label_fields if ctx.view._is_patches else detection_fields(ctx.view)
        inputs = types.Object()
        choose_field(inputs, "label_field", list(fields), label="Field", default=field_of(ctx))
        return types.Property(inputs, view=types.View(label=self.config.label))

    def execute(self, ctx: Any) -> dict[str, Any]:
        from promerge_fo.dataset.review.decisions import undo

        field = ctx.params.get("label_field") or field_of(ctx)
        in_view = ctx.params.get("scope") == "view"
        count = undo(ctx.view if in_view else undo_scope(ctx, field), field)
        if count:
            show_decided(ctx, f"{count:,} as before")
        else:
            ctx.ops.notify("There is no decision to take back")
        return {"undone": count}
