"""``review_instances``: look at the most doubtful masks first, from the App."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from ..forms import choose_field, detection_fields, refused
from ..review_state import field_of, open_page, recall, why_not

ORDERS = {
    "score": ("Lowest score", "what the method itself is least sure of"),
    "disagreement": ("Greatest disagreement", "what another field does not confirm"),
    "size": ("Odd size", "what is much larger or smaller than the others"),
}


class ReviewInstances(foo.Operator):
    """A form and a call of ``promerge_fo.dataset.review_queue``."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="review_instances",
            label="ProMerge: review instances",
            description="Look at the most doubtful masks first, and accept or reject them",
            icon="fact_check",
            dynamic=True,
        )

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
        from promerge_fo.dataset.review.updates import label_path

        label_path(samples, label_field)  # FiftyOne's own validation does not name the fields
        params = {
            "label_field": label_field,
            "order": order,
            "other_field": other_field,
            "limit": limit,
        }
        if reviewer is not None:
            params["reviewer"] = reviewer
        return foo.execute_operator(self.uri, {"view": samples.view()}, params=params)

    def resolve_input(self, ctx: Any) -> types.Property:
        refusal = why_not(ctx)
        if refusal is not None:
            return refusal
        fields = detection_fields(ctx.dataset)
        inputs, last = types.Object(), recall(ctx)
        choose_field(
            inputs,
            "label_field",
            fields,
            label="Field",
            description="the masks to be reviewed",
            default=field_of(ctx),
        )
        choose_order(inputs, last["order"])
        if ctx.params.get("order", last["order"]) == "disagreement":
            if len(fields) == 1:
                reason = f"{fields[0]!r} is the only field that holds detections"
                return refused("Disagreement is between two fields", reason)
            field = ctx.params.get("label_field") or field_of(ctx)
            choose_other(inputs, fields, field, last["other_field"])
        inputs.int("limit", default=last["limit"], min=1, label="Masks on a page", required=True)
        inputs.str(
            "reviewer",
            default=last["reviewer"],
            label="Reviewer",
            description="your name, kept with each decision",
        )
        return types.Property(inputs, view=types.View(label=self.config.label))

    def execute(self, ctx: Any) -> dict[str, Any]:
        from promerge_fo.dataset.review.decisions import review_progress

        last = recall(ctx)
        field = ctx.params.get("label_field") or field_of(ctx)
        settings = {name: ctx.params.get(name, last[name]) for name in ("order", "limit")}
        page = open_page(
            ctx,
            label_field=field,
            other_field=ctx.params.get("other_field"),
            reviewer=ctx.params.get("reviewer", last["reviewer"]) or "",
            **settings,
        )
        ctx.ops.open_panel("promerge_review", layout="horizontal")
        progress = str(review_progress(ctx.dataset, field))
        return {"shown": len(page), "progress": progress}

    def resolve_placement(self, ctx: Any) -> types.Placement:
        button = types.Button(label="Review masks", icon=self.config.icon, prompt=True)
        return types.Placement(types.Places.SAMPLES_GRID_SECONDARY_ACTIONS, button)


def choose_order(inputs: types.Object, default: str, **kwargs: Any) -> None:
    """Let the order of a review be chosen."""
    orders = types.DropdownView()
    for name, (label, meaning) in ORDERS.items():
        orders.add_choice(name, label=label, description=meaning)
    inputs.enum(
        "order", list(ORDERS), default=default, required=True, label="First", view=orders, **kwargs
    )


def choose_other(
    inputs: types.Object,
    fields: list[str],
    label_field: str | None,
    default: str | None,
    **kwargs: Any,
) -> None:
    """Let the field be chosen that another one is compared with."""
    choose_field(
        inputs,
        "other_field",
        [field for field in fields if field != label_field],
        label="Other field",
        description="masks without a counterpart in this one come first",
        default=default,
        **kwargs,
    )
