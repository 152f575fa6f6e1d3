"""``review_instances``: look at the most doubtful masks first, from the App."""

from __future__ import annotations

from typing import Any

from fiftyone.operators import types

from ..forms import Form, detection_fields
from ..places import open_panel
from ..review import DEFAULTS, add_order, open_page, settings_of
from ..review_operator import ReviewOperator


class ReviewInstances(ReviewOperator):
    """A form and a call of ``promerge_fo.dataset.review_queue``."""

    label = "ProMerge: review instances"
    description = "Look at the most doubtful masks first, and accept or reject them"
    icon = "fact_check"
    place = types.Places.SAMPLES_GRID_SECONDARY_ACTIONS
    place_label = "Review masks"

    def __call__(
        self,
        samples: Any,
        label_field: str,
        order: str = "score",
        other_field: str | None = None,
        limit: int = 48,
        reviewer: str | None = None,
    ) -> Any:
        """Open a review from Python; arguments as those of ``promerge_fo.dataset.review_queue``."""
        params = {"order": order, "other_field": other_field, "limit": limit}
        if reviewer is not None:
            params["reviewer"] = reviewer
        return self.run(samples, label_field, **params)

    def ask(self, form: Form) -> None:
        from promerge_fo.dataset.review.queue import require_groups

        super().ask(form)
        fields = detection_fields(form.ctx.dataset)
        form.choose("label_field", fields, "Field", "the masks to be reviewed")
        settings = {name: form.given(name) for name in DEFAULTS}
        add_order(form.inputs, fields, settings)
        if settings["order"] == "disagreement" and len(fields) == 1:
            form.refuse(
                f"Disagreement is between two fields, and {fields[0]!r} is the only field that "
                "holds detections."
            )
        if settings["order"] == "typicality" and settings["label_field"] in fields:
            form.attempt("order", lambda: require_groups(form.ctx.dataset, settings["label_field"]))
        form.count("limit", "Masks on a page", missing="Say how many masks a page shows.")
        form.text("reviewer", "Reviewer", "your name, kept with each decision")

    def work(self, ctx: Any) -> dict[str, Any]:
        from promerge_fo.dataset.review.decisions import review_progress

        given = {name: ctx.params[name] for name in DEFAULTS if name in ctx.params}
        settings = {**settings_of(ctx), "other_field": None, **given}
        page = open_page(ctx, **settings)
        open_panel(ctx, "promerge_review")
        progress = str(review_progress(ctx.dataset, settings["label_field"]))
        return {"shown": len(page), "progress": progress}
