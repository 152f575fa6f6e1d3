"""What ``accept`` and ``reject`` have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from .forms import choose_field, detection_fields
from .review_state import field_of, recall, remember, show_decided, why_not


@dataclass(frozen=True)
class Chosen:
    """Labels to decide on.

    Attributes:
        samples: where they are.
        label_field: of them.
        ids: of them; None for all of the samples.
    """

    samples: Any
    label_field: str
    ids: list[str] | None


def selected(ctx: Any, label_field: str | None = None) -> Chosen | None:
    """What is selected in the App: labels, or else patches, or else all labels of samples.

    Args:
        ctx: of an operator or a panel.
        label_field: of the labels of selected samples, and of selected labels if they have
            several; the one under review by default.

    Returns:
        None where nothing is selected.
    """
    field = label_field or field_of(ctx)
    if ctx.selected_labels:
        fields = {label["field"] for label in ctx.selected_labels}
        field = field if field in fields else min(fields)
        labels = [label for label in ctx.selected_labels if label["field"] == field]
        samples = ctx.view if ctx.view._is_patches else ctx.dataset
        samples = samples.select(list({label["sample_id"] for label in labels}))
        return Chosen(samples, field, [label["label_id"] for label in labels])
    if ctx.selected and field is not None:
        return Chosen(ctx.view.select(ctx.selected), field, None)
    return None


class Decision(foo.Operator):
    """Accepts or rejects what is selected, or everything in the current view."""

    name_: str  #: "accept" or "reject"
    done: str  #: "accepted" or "rejected"
    icon: str

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name=self.name_,
            label=f"ProMerge: {self.name_} masks",
            description=f"The selected masks, or those of the current view, are {self.done}",
            icon=self.icon,
            dynamic=True,
        )

    def __call__(
        self,
        samples: Any,
        label_field: str,
        ids: list[str] | None = None,
        reviewer: str | None = None,
    ) -> Any:
        """Decide from Python; arguments as those of ``promerge_fo.dataset``."""
        from promerge_fo.dataset.review.updates import label_path

        label_path(samples, label_field)  # FiftyOne's own validation does not name the fields
        params = {"label_field": label_field, "ids": ids, "scope": "view", "reviewer": reviewer}
        return foo.execute_operator(self.uri, {"view": samples.view()}, params=params)

    def resolve_input(self, ctx: Any) -> types.Property:
        refusal = why_not(ctx)
        if refusal is not None:
            return refusal
        fields = ctx.view._label_fields if ctx.view._is_patches else detection_fields(ctx.view)
        chosen = selected(ctx, ctx.params.get("label_field"))
        inputs = types.Object()
        scopes = types.RadioGroup()
        if chosen is not None:
            scopes.add_choice("selected", label="What is selected")
        scopes.add_choice("view", label="Every mask of the current view")
        inputs.enum(
            "scope",
            scopes.values(),
            required=True,
            default="selected" if chosen is not None else None,
            label=f"What is to be {self.done}",
            view=scopes,
        )
        choose_field(inputs, "label_field", list(fields), label="Field", default=field_of(ctx))
        inputs.str(
            "reviewer",
            default=recall(ctx)["reviewer"],
            label="Reviewer",
            description="your name, kept with the decision",
        )
        inputs.list("ids", types.String(), view=types.HiddenView())
        return types.Property(inputs, view=types.View(label=self.config.label))

    def execute(self, ctx: Any) -> dict[str, Any]:
        from promerge_fo.dataset.review import decisions as review

        field = ctx.params.get("label_field") or field_of(ctx)
        reviewer = ctx.params.get("reviewer", recall(ctx)["reviewer"]) or None
        chosen = selected(ctx, field)
        if ctx.params.get("scope", "selected") == "view":
            chosen = Chosen(ctx.view, field, ctx.params.get("ids"))
        if chosen is None:
            raise ValueError(
                "nothing is selected: select patches, labels or samples, or take every mask of the "
                'current view (scope "view")'
            )
        decide = getattr(review, self.name_)
        count = decide(chosen.samples, chosen.label_field, chosen.ids, reviewer)
        remember(ctx, label_field=chosen.label_field, reviewer=reviewer or "")
        show_decided(ctx, f"{count:,} {self.done}")
        return {"decided": count}

    def resolve_placement(self, ctx: Any) -> types.Placement:
        button = types.Button(label=self.config.label, icon=self.icon, prompt=True)
        return types.Placement(types.Places.SAMPLES_VIEWER_ACTIONS, button)
