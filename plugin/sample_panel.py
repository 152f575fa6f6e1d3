"""The review's panel beside one image: its masks, each with a button to accept and to reject."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fiftyone.operators import types

from . import review
from .forms import add_menu
from .look import Panel, add_button


class SamplePanel(Panel):
    """Lists the masks of the sample that is open, and decides on them."""

    name = "promerge_sample"
    label = "ProMerge masks"
    icon = "fact_check"
    help = (
        "The masks of this image: accept or reject them one by one, those that are selected in the "
        "image, or all."
    )
    surfaces = "modal"
    gap = 1

    def on_load(self, ctx: Any) -> None:
        last = review.settings_of(ctx)
        for name in ("label_field", "reviewer"):
            ctx.panel.set_state(name, last[name])
        self.list_masks(ctx)

    def list_masks(self, ctx: Any) -> None:
        """Read the masks of the image again."""
        from promerge_fo.dataset.review.decisions import list_labels

        field = ctx.panel.get_state("label_field")
        samples = _sample(ctx)
        known = samples is not None and field in review.fields_of(ctx, ctx.dataset)
        ctx.panel.set_state("masks", list_labels(samples, field) if known else [])

    on_change_current_sample = list_masks  # another image was opened
    on_change_selected_labels = list_masks  # masks were clicked: the App's list may be an old one

    def change_settings(self, ctx: Any) -> None:
        review.keep(ctx, reviewer=ctx.panel.get_state("reviewer"))
        self.list_masks(ctx)

    def decide_one(self, ctx: Any) -> None:
        self._decide(ctx, [ctx.params["label"]])

    def decide_selected(self, ctx: Any) -> None:
        ids = [label["label_id"] for label in ctx.selected_labels]
        if ids:
            self._decide(ctx, ids)
        else:
            ctx.ops.notify("Nothing is selected: click masks in the image", variant="warning")

    def decide_all(self, ctx: Any) -> None:
        self._decide(ctx, None)

    def take_back(self, ctx: Any) -> None:
        """Undo the last decision on this image."""
        count = review.undo_last(ctx, _sample(ctx), ctx.panel.get_state("label_field"))
        if count:
            ctx.ops.notify(f"{count} as before")
        self._changed(ctx)

    def _decide(self, ctx: Any, ids: list[str] | None) -> None:
        chosen = review.Chosen(_sample(ctx), ctx.panel.get_state("label_field"), ids)
        review.decide(ctx.params["what"], chosen, ctx.panel.get_state("reviewer"))
        self._changed(ctx)

    def _changed(self, ctx: Any) -> None:
        ctx.ops.clear_selected_labels()
        ctx.ops.reload_samples()
        self.list_masks(ctx)

    def draw(self, ctx: Any, panel: types.Object) -> None:
        fields = review.fields_of(ctx, ctx.dataset)
        field, masks = ctx.panel.get_state("label_field"), ctx.panel.get_state("masks") or []
        if not fields:
            panel.md(review.NO_MASKS)
            return
        decided = sum(mask["review"] is not None for mask in masks)
        panel.md(f"**{decided} of {len(masks)} masks decided**", name="progress_text")
        add_menu(panel, "label_field", fields, "Field", default=field, on_change=self.list_masks)
        panel.str("reviewer", label="Reviewer", on_change=self.change_settings)
        row = panel.h_stack("buttons_selected", gap=1)
        _add_decisions(row, "selected", self.decide_selected, " selected")
        row = panel.h_stack("buttons_all", gap=1)
        _add_decisions(row, "all", self.decide_all, " all")
        add_button(row, "take_back", "Undo", "undo", self.take_back)
        selected = {label["label_id"] for label in ctx.selected_labels}
        for i, mask in enumerate(masks):
            row = panel.h_stack(f"mask_{i}", gap=1, align_y="center")
            row.md(_describe(i, mask, mask["id"] in selected), name=f"text_{i}")
            _add_decisions(row, str(i), self.decide_one, label=mask["id"])


def _add_decisions(
    row: types.Object, name: str, click: Callable[[Any], None], whose: str = "", **params: Any
) -> None:
    """Buttons that accept and reject."""
    for what, icon in (("accept", "thumb_up"), ("reject", "thumb_down")):
        label = f"{what.title()}{whose}"
        add_button(row, f"{what}_{name}", label, icon, click, {"what": what, **params})


def _describe(i: int, mask: dict[str, Any], selected: bool) -> str:
    score = "no score" if mask["score"] is None else f"score {mask['score']:.2f}"
    text = f"Mask {i + 1}: {score}, {100 * mask['area']:.2g} % of the image"
    if mask["review"] is not None:
        text += f", {mask['review']}" + (f" by {mask['reviewer']}" if mask["reviewer"] else "")
    return f"**{text}**" if selected else text


def _sample(ctx: Any) -> Any:
    """The sample or the patch that is open, as a view."""
    return None if ctx.current_sample is None else review.select_from(ctx, ctx.current_sample)
