"""What the review's operators have in common."""

from __future__ import annotations

from typing import Any, ClassVar

import fiftyone.operators as foo
from fiftyone.core.media import IMAGE
from fiftyone.operators import types

from . import review
from .forms import CannotRunError, Form, detection_fields, menu
from .operator import BaseOperator


class ReviewOperator(BaseOperator):
    """An operator that starts from the settings of the dataset's review."""

    def last(self, ctx: Any) -> dict[str, Any]:
        return review.settings_of(ctx)

    def ask(self, form: Form) -> None:
        ctx = form.ctx
        if ctx.dataset.media_type != IMAGE:
            raise CannotRunError(
                f"This dataset is of {ctx.dataset.media_type}, and the App reviews datasets of "
                "images; in Python, promerge_fo.dataset.review_queue takes frames and slices with "
                "images too."
            )
        if not detection_fields(ctx.dataset):
            raise CannotRunError("No field holds detections: segment the images first.")

    def run(self, samples: Any, label_field: str, **params: Any) -> Any:
        """Run the operator from Python."""
        from promerge_fo.dataset.review.updates import label_path

        label_path(samples, label_field)  # FiftyOne's own validation does not name the fields
        params = {"label_field": label_field, **params}
        return foo.execute_operator(self.uri, {"view": samples.view()}, params=params)


def ask_scope(form: Form, scopes: dict[str, tuple[str, str]], what: str) -> str | None:
    """Ask which masks; returns what is chosen now.

    What is narrower than the whole view is chosen at first; the whole view has to be chosen.
    """
    first = next((scope for scope in scopes if scope != "view"), None)
    view = menu(types.RadioGroup(), scopes)
    form.inputs.enum("scope", list(scopes), default=first, label=f"What to {what}", view=view)
    if first is not None:
        form.ctx.params.setdefault("scope", first)
    chosen: str | None = form.ctx.params.get("scope")
    if chosen is None:
        form.miss("scope", f"Choose what to {what}.")
    return chosen


class Decision(ReviewOperator):
    """Accepts or rejects what is selected, or everything in the current view.

    Attributes:
        what: "accept" or "reject".
    """

    what: ClassVar[str]
    place = types.Places.SAMPLES_VIEWER_ACTIONS

    def __call__(
        self,
        samples: Any,
        label_field: str,
        ids: list[str] | None = None,
        reviewer: str | None = None,
    ) -> Any:
        """Decide from Python; arguments as those of ``promerge_fo.dataset.accept``."""
        return self.run(samples, label_field, ids=ids, scope="view", reviewer=reviewer)

    def ask(self, form: Form) -> None:
        super().ask(form)
        chosen = review.selected(form.ctx, form.given("label_field"))
        scopes = {"selected": ("What is selected", "")} if chosen is not None else {}
        if form.ctx.current_sample:
            scopes["image"] = ("Every mask of this image", "")
        scopes["view"] = ("Every mask of the current view", "")
        ask_scope(form, scopes, self.what)
        form.choose("label_field", review.fields_of(form.ctx, form.ctx.view), "Field")
        form.text("reviewer", "Reviewer", "your name, kept with the decision")
        form.inputs.list("ids", types.String(), view=types.HiddenView())

    def work(self, ctx: Any) -> dict[str, int]:
        last = review.settings_of(ctx)
        field = ctx.params.get("label_field") or last["label_field"]
        reviewer = ctx.params.get("reviewer", last["reviewer"])
        chosen, scope = review.selected(ctx, field), ctx.params.get("scope", "selected")
        if scope == "view":
            chosen = review.Chosen(ctx.view, field, ctx.params.get("ids"))
        elif scope == "image":
            chosen = review.Chosen(review.select_from(ctx, ctx.current_sample), field, None)
        if chosen is None:
            raise ValueError(
                "nothing is selected: select patches, labels or samples, or take every mask of the "
                'current view (scope "view")'
            )
        count = review.decide(self.what, chosen, reviewer)
        review.keep(ctx, label_field=chosen.label_field, reviewer=reviewer or "")
        review.show_decided(ctx, f"{count:,} {self.what}ed")
        return {"decided": count}
