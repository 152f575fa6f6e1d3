"""The review's panel beside one image: its masks, each with a button to accept and to reject."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from .forms import choose_field, detection_fields
from .look import column
from .review_state import field_of, recall, remember


class SamplePanel(foo.Panel):
    """Lists the masks of the sample that is open, and decides on them."""

    @property
    def config(self) -> foo.PanelConfig:
        return foo.PanelConfig(
            name="promerge_sample",
            label="ProMerge masks",
            icon="fact_check",
            help_markdown="The masks of this image: accept or reject them one by one, those that "
            "are selected in the image, or all.",
            surfaces="modal",
        )

    def on_load(self, ctx: Any) -> None:
        ctx.panel.set_state("label_field", field_of(ctx))
        ctx.panel.set_state("reviewer", recall(ctx)["reviewer"])
        self.list_masks(ctx)

    def on_change_current_sample(self, ctx: Any) -> None:
        """Another image was opened."""
        self.list_masks(ctx)

    def on_change_selected_labels(self, ctx: Any) -> None:
        """Masks were clicked in the image; the App's idea of the list may be that of before."""
        self.list_masks(ctx)

    def list_masks(self, ctx: Any) -> None:
        """Read the masks of the image again."""
        from promerge_fo.dataset.review.decisions import list_labels

        field = ctx.panel.get_state("label_field")
        samples = _sample(ctx)
        known = field in _fields(ctx) and samples is not None
        ctx.panel.set_state("masks", list_labels(samples, field) if known else [])

    def change_settings(self, ctx: Any) -> None:
        remember(ctx, reviewer=ctx.panel.get_state("reviewer"))
        self.list_masks(ctx)

    def decide_one(self, ctx: Any) -> None:
        self._decide(ctx, ctx.params["what"], [ctx.params["label"]])

    def decide_selected(self, ctx: Any) -> None:
        ids = [label["label_id"] for label in ctx.selected_labels]
        if ids:
            self._decide(ctx, ctx.params["what"], ids)
        else:
            ctx.ops.notify("Nothing is selected: click masks in the image", variant="warning")

    def decide_all(self, ctx: Any) -> None:
        self._decide(ctx, ctx.params["what"], None)

    def take_back(self, ctx: Any) -> None:
        """Undo the last decision on this image."""
        from promerge_fo.dataset.review.decisions import undo

        count = undo(_sample(ctx), ctx.panel.get_state("label_field"))
        ctx.ops.notify(f"{count} as before" if count else "There is no decision to take back")
        self._changed(ctx)

    def _decide(self, ctx: Any, what: str, ids: list[str] | None) -> None:
        from promerge_fo.dataset.review import decisions as review

        reviewer = ctx.panel.get_state("reviewer") or None
        getattr(review, what)(_sample(ctx), ctx.panel.get_state("label_field"), ids, reviewer)
        self._changed(ctx)

    def _changed(self, ctx: Any) -> None:
        ctx.ops.clear_selected_labels()
        ctx.ops.reload_samples()
        self.list_masks(ctx)

    def render(self, ctx: Any) -> types.Property:
        panel = types.Object()
        fields = _fields(ctx)
        field, masks = ctx.panel.get_state("label_field"), ctx.panel.get_state("masks") or []
        if not fields:
            panel.md("No field of this dataset holds masks. **Segment instances** makes some.")
            return types.Property(panel, view=column())
        decided = sum(mask["review"] is not None for mask in masks)
        panel.md(f"**{decided} of {len(masks)} masks decided**", name="progress_text")
        choose_field(
            panel, "label_field", fields, label="Field", default=field, on_change=self.list_masks
        )
        panel.str("reviewer", label="Reviewer", on_change=self.change_settings)
        for scope, action in (("selected", self.decide_selected), ("all", self.decide_all)):
            line = panel.h_stack(f"buttons_{scope}", gap=1)
            _buttons(line, scope, action, labels=(f"Accept {scope}", f"Reject {scope}"))
            if scope == "all":
                line.btn("take_back_button", label="Undo", icon="undo", on_click=self.take_back)
        selected = {label["label_id"] for label in ctx.selected_labels}
        for i, mask in enumerate(masks):
            line = panel.h_stack(f"mask_{i}", gap=1, align_y="center")
            line.md(_describe(i, mask, mask["id"] in selected), name=f"text_{i}")
            _buttons(line, str(i), self.decide_one, label=mask["id"])
        return types.Property(panel, view=column(gap=1))


def _buttons(
    line: types.Object,
    name: str,
    action: Any,
    labels: tuple[str, str] = ("Accept", "Reject"),
    **params: Any,
) -> None:
    for what, text, icon in zip(
        ("accept", "reject"), labels, ("thumb_up", "thumb_down"), strict=True
    ):
        params = {**params, "what": what}
        line.btn(
            f"{what}_{name}_button",
            label=text,
            icon=icon,
            on_click=action,
            params=params,
            variant="outlined",
        )


def _describe(i: int, mask: dict[str, Any], selected: bool) -> str:
    score = "no score" if mask["score"] is None else f"score {mask['score']:.2f}"
    text = f"Mask {i + 1}: {score}, {100 * mask['area']:.2g} % of the image"
    if mask["review"] is not None:
        text += f", {mask['review']}" + (f" by {mask['reviewer']}" if mask["reviewer"] else "")
    return f"**{text}**" if selected else text


def _sample(ctx: Any) -> Any:
    """The sample or the patch that is open, as a view."""
    if ctx.current_sample is None:
        return None
    samples = ctx.view if ctx.view._is_patches else ctx.dataset
    return samples.select(ctx.current_sample)


def _fields(ctx: Any) -> list[str]:
    return list(ctx.view._label_fields) if ctx.view._is_patches else detection_fields(ctx.dataset)
