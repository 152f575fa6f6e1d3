"""The review's panel beside the grid: progress, histograms, and the buttons that decide."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from .decision import selected
from .forms import choose_field, detection_fields
from .look import column, layout
from .operators.review_instances import choose_order, choose_other
from .review_state import field_of, on_page, open_page, recall, remember, show_decided, undo_scope

COLOURS = {
    "undecided": "#9aa0a6",
    "accepted": "#2e9e5b",
    "rejected": "#d64545",
    "images": "#5b8def",
}
TITLES = {"score": "Score", "area": "Area, share of the image", "masks": "Masks of an image"}


class ReviewPanel(foo.Panel):
    """Shows how far a review is, and opens and decides what is clicked."""

    @property
    def config(self) -> foo.PanelConfig:
        return foo.PanelConfig(
            name="promerge_review",
            label="ProMerge review",
            icon="fact_check",
            help_markdown="Accept and reject masks, the most doubtful first. In the grid, a click "
            "marks a mask with a thumb up, Alt and a click with a thumb down.",
            surfaces="grid",
        )

    def on_load(self, ctx: Any) -> None:
        last = recall(ctx)
        for name in ("order", "other_field", "limit", "reviewer"):
            ctx.panel.set_state(name, last[name])
        ctx.panel.set_state("label_field", field_of(ctx))
        self.count(ctx)

    on_change_dataset = on_load

    def on_change_view(self, ctx: Any) -> None:
        """Another page came after a decision, or was opened by the operator, or left."""
        if on_page(ctx):
            self.on_load(ctx)
        elif not ctx.view._is_patches:
            ctx.ops.clear_sample_selection_style()

    def count(self, ctx: Any) -> None:
        """Count labels again, after decisions and for another field."""
        from promerge_fo.dataset.review.histograms import review_histograms

        field = ctx.panel.get_state("label_field")
        if field is None or field not in detection_fields(ctx.dataset):
            ctx.panel.set_state("counted", None)
            return
        histograms = review_histograms(ctx.dataset, field)
        ctx.panel.set_state(
            "counted",
            {
                "progress": str(histograms["area"].progress()),
                "bars": {
                    name: {state: counts.tolist() for state, counts in histogram.counts.items()}
                    for name, histogram in histograms.items()
                },
                "missing": histograms["score"].missing,
                "edges": {name: h.edges.tolist() for name, h in histograms.items()},
                "bounds": {
                    name: [h.bounds(bar) for bar in range(len(h.edges) - 1)]
                    for name, h in histograms.items()
                },
            },
        )

    def change_settings(self, ctx: Any) -> None:
        settings = _settings(ctx)
        remember(ctx, **settings)

    def change_field(self, ctx: Any) -> None:
        self.change_settings(ctx)
        self.count(ctx)

    def open_queue(self, ctx: Any) -> None:
        settings = _settings(ctx)
        if settings["order"] == "disagreement" and not settings["other_field"]:
            ctx.ops.notify("Choose the other field that disagrees", variant="warning")
            return
        open_page(ctx, **settings)
        ctx.ops.open_panel("Samples")  # the grid, where the panel hides it

    def accept_selected(self, ctx: Any) -> None:
        self._decide_selected(ctx, "accept")

    def reject_selected(self, ctx: Any) -> None:
        self._decide_selected(ctx, "reject")

    def decide_marked(self, ctx: Any) -> None:
        """Thumbs up are accepted and thumbs down rejected."""
        from promerge_fo.dataset.review.decisions import decide

        marks: dict[str, list[str]] = {"default": [], "alt": []}
        for mark in ctx.selected_samples:
            marks[mark["type"]].append(mark["id"])
        if not ctx.view._is_patches or not (marks["default"] or marks["alt"]):
            ctx.ops.notify("Nothing is marked: click masks of an open queue", variant="warning")
            return
        field, reviewer = field_of(ctx), _settings(ctx)["reviewer"]
        decide(ctx.view, field, marks["default"], marks["alt"], reviewer or None)
        done = f"{len(marks['default']):,} accepted, {len(marks['alt']):,} rejected"
        self._decided(ctx, done)

    def accept_shown(self, ctx: Any) -> None:
        self._decide_shown(ctx, "accept")

    def reject_shown(self, ctx: Any) -> None:
        self._decide_shown(ctx, "reject")

    def take_back(self, ctx: Any) -> None:
        from promerge_fo.dataset.review.decisions import undo

        field = ctx.panel.get_state("label_field")
        count = undo(undo_scope(ctx, field), field)
        if count:
            self._decided(ctx, f"{count:,} as before")
        else:
            ctx.ops.notify("There is no decision to take back")

    def open_bar(self, ctx: Any) -> None:
        """A bar was clicked: show what it counts."""
        from promerge_fo.dataset.review.histograms import select_between

        name = ctx.params["path"].split(".")[-1].removesuffix("_plot")
        low, high = ctx.panel.get_state("counted")["bounds"][name][int(ctx.params["idx"])]
        field = ctx.panel.get_state("label_field")
        ctx.ops.set_view(select_between(ctx.dataset, field, name, low, high))
        ctx.ops.open_panel("Samples")  # the grid, where the panel hides it

    def _decide_selected(self, ctx: Any, what: str) -> None:
        from promerge_fo.dataset.review import decisions as review

        chosen = selected(ctx, ctx.panel.get_state("label_field"))
        if chosen is None:
            ctx.ops.notify("Nothing is selected: click masks in the grid", variant="warning")
            return
        reviewer = _settings(ctx)["reviewer"] or None
        count = getattr(review, what)(chosen.samples, chosen.label_field, chosen.ids, reviewer)
        self._decided(ctx, f"{count:,} {what}ed")

    def _decide_shown(self, ctx: Any, what: str) -> None:
        from promerge_fo.dataset.review import decisions as review

        field = field_of(ctx) if ctx.view._is_patches else ctx.panel.get_state("label_field")
        reviewer = _settings(ctx)["reviewer"] or None
        count = getattr(review, what)(ctx.view, field, None, reviewer)
        self._decided(ctx, f"{count:,} {what}ed")

    def _decided(self, ctx: Any, what: str) -> None:
        self.change_settings(ctx)
        if not show_decided(ctx, what):
            self.count(ctx)

    def render(self, ctx: Any) -> types.Property:
        panel = types.Object()
        fields = detection_fields(ctx.dataset)
        counted = ctx.panel.get_state("counted")
        if not fields or counted is None:
            panel.md("No field of this dataset holds masks. **Segment instances** makes some.")
            return types.Property(panel, view=column())
        panel.md(f"**{counted['progress']}**", name="progress_text")
        self._buttons(panel)
        self._inputs(ctx, panel, fields)
        for name, title in TITLES.items():
            if name == "score" and counted["missing"]:
                title = f"{title}; {counted['missing']:,} have none"
            self._plot(panel, name, title, counted)
        return types.Property(panel, view=column())

    def _buttons(self, panel: types.Object) -> None:
        rows = (
            (
                ("open_queue", "Open the queue", "fact_check", self.open_queue),
                ("take_back", "Undo", "undo", self.take_back),
                ("count", "Count again", "refresh", self.count),
            ),
            (
                ("decide_marked", "Decide by thumbs", "thumbs_up_down", self.decide_marked),
                ("accept_selected", "Accept selected", "thumb_up", self.accept_selected),
                ("reject_selected", "Reject selected", "thumb_down", self.reject_selected),
            ),
            (
                ("accept_shown", "Accept all shown", "done_all", self.accept_shown),
                ("reject_shown", "Reject all shown", "remove_done", self.reject_shown),
            ),
        )
        for i, row in enumerate(rows):
            line = panel.h_stack(f"buttons_{i}", gap=1)
            for name, label, icon, action in row:
                line.btn(
                    f"{name}_button", label=label, icon=icon, on_click=action, variant="outlined"
                )

    def _inputs(self, ctx: Any, panel: types.Object, fields: list[str]) -> None:
        choose_field(
            panel,
            "label_field",
            fields,
            label="Field",
            default=ctx.panel.get_state("label_field"),
            on_change=self.change_field,
        )
        choose_order(panel, ctx.panel.get_state("order"), on_change=self.change_settings)
        if ctx.panel.get_state("order") == "disagreement":
            own, last = ctx.panel.get_state("label_field"), ctx.panel.get_state("other_field")
            choose_other(panel, fields, own, last, on_change=self.change_settings)
        panel.int("limit", min=1, label="Masks on a page", on_change=self.change_settings)
        panel.str("reviewer", label="Reviewer", on_change=self.change_settings)

    def _plot(self, panel: types.Object, name: str, title: str, counted: dict[str, Any]) -> None:
        edges = counted["edges"][name]
        bars = list(range(len(edges) - 1))
        data = [
            {
                "type": "bar",
                "name": state,
                "x": bars,
                "y": counts,
                "marker": {"color": COLOURS[state]},
                "customdata": [_range_of(name, edges, bar) for bar in bars],
                "hovertemplate": "%{customdata}: %{y:,}<extra>" + state + "</extra>",
            }
            for state, counts in counted["bars"][name].items()
        ]
        ticks = bars[::4]
        axis = {
            "tickvals": [bar - 0.5 for bar in ticks] if name != "masks" else ticks,
            "ticktext": [_show(name, edges[bar]) for bar in ticks],
        }
        style = layout(title, 200, barmode="stack", bargap=0.05, xaxis=axis)
        panel.plot(f"{name}_plot", data=data, layout=style, on_click=self.open_bar)


def _settings(ctx: Any) -> dict[str, Any]:
    """What the panel's inputs say."""
    names = ("label_field", "order", "other_field", "limit", "reviewer")
    given = {name: ctx.panel.get_state(name) for name in names}
    return {**recall(ctx), **{name: value for name, value in given.items() if value is not None}}


def _range_of(name: str, edges: list[float], bar: int) -> str:
    if name == "masks":
        return f"{edges[bar]:g}" if bar < len(edges) - 2 else f"{edges[bar]:g} and more"
    return f"{_show(name, edges[bar])} to {_show(name, edges[bar + 1])}"


def _show(name: str, value: float) -> str:
    return f"{100 * value:.3g} %" if name == "area" else f"{value:g}"
