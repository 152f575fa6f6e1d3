"""The review's panel beside the grid: progress, histograms, and the buttons that decide."""

from __future__ import annotations

from typing import Any

from fiftyone.operators import types

from promerge_fo.dataset.database import is_patches

from . import review
from .forms import add_menu, detection_fields, filled
from .look import Panel, add_button, add_plot, bars, layout

COLOURS = {
    "undecided": "#9aa0a6",
    "accepted": "#2e9e5b",
    "rejected": "#d64545",
    "images": "#5b8def",
}
TITLES = {"score": "Score", "area": "Area, share of the image", "masks": "Masks of an image"}


class ReviewPanel(Panel):
    """Shows how far a review is, and opens and decides what is clicked."""

    name = "promerge_review"
    label = "ProMerge review"
    icon = "fact_check"
    help = (
        "Accept and reject masks, the most doubtful first. In the grid, a click marks a mask with "
        "a thumb up, Alt and a click with a thumb down."
    )

    def on_load(self, ctx: Any) -> None:
        last = review.settings_of(ctx)
        for name in review.DEFAULTS:
            ctx.panel.set_state(name, last[name])
        self.count(ctx)

    on_change_dataset = on_load

    def on_change_view(self, ctx: Any) -> None:
        """Another page came after a decision, or was opened by the operator, or left."""
        if review.on_page(ctx):
            self.on_load(ctx)
        elif not is_patches(ctx.view):
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
                "missing": histograms["score"].missing,
                "bars": {
                    name: {state: counts.tolist() for state, counts in h.counts.items()}
                    for name, h in histograms.items()
                },
                "edges": {name: h.edges.tolist() for name, h in histograms.items()},
                "bounds": {
                    name: [h.bounds(bar) for bar in range(len(h.edges) - 1)]
                    for name, h in histograms.items()
                },
            },
        )

    def change_settings(self, ctx: Any) -> None:
        review.keep(ctx, **_settings(ctx))

    def change_field(self, ctx: Any) -> None:
        self.change_settings(ctx)
        self.count(ctx)

    def open_queue(self, ctx: Any) -> None:
        from promerge_fo.dataset.review.queue import require_groups

        settings = _settings(ctx)
        if settings["order"] == "disagreement" and not settings["other_field"]:
            ctx.ops.notify("Choose the other field that disagrees", variant="warning")
            return
        if settings["order"] == "typicality":
            try:
                require_groups(ctx.view, settings["label_field"])
            except ValueError as error:
                ctx.ops.notify(str(error), variant="warning")
                return
        review.open_page(ctx, **settings)
        ctx.ops.open_panel("Samples")  # the grid, where the panel hides it

    def accept_selected(self, ctx: Any) -> None:
        self._decide_selected(ctx, "accept")

    def reject_selected(self, ctx: Any) -> None:
        self._decide_selected(ctx, "reject")

    def ask_shown(self, ctx: Any) -> None:
        """Ask before every mask that is shown is decided."""
        from promerge_fo.dataset.review.decisions import review_progress

        chosen = self._shown(ctx)
        count = review_progress(chosen.samples, str(chosen.label_field)).total
        ctx.panel.set_state("question", {"what": ctx.params["what"], "count": count})

    def take_question_back(self, ctx: Any) -> None:
        ctx.panel.set_state("question", None)

    def accept_shown(self, ctx: Any) -> None:
        self.take_question_back(ctx)
        self._decide(ctx, "accept", self._shown(ctx))

    def reject_shown(self, ctx: Any) -> None:
        self.take_question_back(ctx)
        self._decide(ctx, "reject", self._shown(ctx))

    def decide_marked(self, ctx: Any) -> None:
        """Thumbs up are accepted and thumbs down rejected."""
        from promerge_fo.dataset.review import decisions

        marks: dict[str, list[str]] = {"default": [], "alt": []}
        for mark in ctx.selected_samples:
            marks[mark["type"]].append(mark["id"])
        if not is_patches(ctx.view) or not (marks["default"] or marks["alt"]):
            ctx.ops.notify("Nothing is marked: click masks of an open queue", variant="warning")
            return
        field, reviewer = review.settings_of(ctx)["label_field"], _settings(ctx)["reviewer"]
        decisions.decide(ctx.view, field, marks["default"], marks["alt"], reviewer or None)
        done = f"{len(marks['default']):,} accepted, {len(marks['alt']):,} rejected"
        self._decided(ctx, done)

    def take_back(self, ctx: Any) -> None:
        field = ctx.panel.get_state("label_field")
        count = review.undo_last(ctx, review.whole_of(ctx, field), field)
        if count:
            self._decided(ctx, f"{count:,} as before", is_undone=True)

    def open_bar(self, ctx: Any) -> None:
        """A bar was clicked: show what it counts."""
        from promerge_fo.dataset.review.histograms import select_between

        name = ctx.params["path"].split(".")[-1].removesuffix("_plot")
        low, high = ctx.panel.get_state("counted")["bounds"][name][int(ctx.params["idx"])]
        field = ctx.panel.get_state("label_field")
        ctx.ops.set_view(select_between(ctx.dataset, field, name, low, high))
        ctx.ops.open_panel("Samples")  # the grid, where the panel hides it

    def _decide_selected(self, ctx: Any, what: str) -> None:
        chosen = review.selected(ctx, ctx.panel.get_state("label_field"))
        if chosen is None:
            ctx.ops.notify("Nothing is selected: click masks in the grid", variant="warning")
        else:
            self._decide(ctx, what, chosen)

    def _shown(self, ctx: Any) -> review.Chosen:
        """Every mask of the current view."""
        field = ctx.panel.get_state("label_field")
        if is_patches(ctx.view):
            field = review.settings_of(ctx)["label_field"]
        return review.Chosen(ctx.view, field, None)

    def _decide(self, ctx: Any, what: str, chosen: review.Chosen) -> None:
        count = review.decide(what, chosen, _settings(ctx)["reviewer"])
        self._decided(ctx, f"{count:,} {what}ed")

    def _decided(self, ctx: Any, what: str, is_undone: bool = False) -> None:
        self.change_settings(ctx)
        if not review.show_decided(ctx, what, is_undone):
            self.count(ctx)

    def draw(self, ctx: Any, panel: types.Object) -> None:
        fields = detection_fields(ctx.dataset)
        counted = ctx.panel.get_state("counted")
        if not fields or counted is None:
            panel.md(review.NO_MASKS)
            return
        panel.md(f"**{counted['progress']}**", name="progress_text")
        self._add_buttons(panel, ctx.panel.get_state("question"))
        self._add_inputs(ctx, panel, fields)
        for name, title in TITLES.items():
            if name == "score" and counted["missing"]:
                title = f"{title}; {counted['missing']:,} have none"
            self._add_plot(panel, name, title, counted)

    def _add_buttons(self, panel: types.Object, question: dict[str, Any] | None) -> None:
        row = panel.h_stack("buttons_0", gap=1)
        add_button(row, "open_queue", "Open the queue", "fact_check", self.open_queue)
        add_button(row, "take_back", "Undo", "undo", self.take_back)
        add_button(row, "count", "Count again", "refresh", self.count)
        row = panel.h_stack("buttons_1", gap=1)
        add_button(row, "decide_marked", "Decide by thumbs", "thumbs_up_down", self.decide_marked)
        add_button(row, "accept_selected", "Accept selected", "thumb_up", self.accept_selected)
        add_button(row, "reject_selected", "Reject selected", "thumb_down", self.reject_selected)
        row = panel.h_stack("buttons_2", gap=1)
        for what, icon in (("accept", "done_all"), ("reject", "remove_done")):
            label = f"{what.title()} all shown"
            add_button(row, f"{what}_shown", label, icon, self.ask_shown, {"what": what})
        if question:
            what, masks = question["what"], f"{question['count']:,} masks"
            panel.md(f"**{what.title()} all {masks} that are shown?**", name="question_text")
            row = panel.h_stack("buttons_3", gap=1)
            do = self.accept_shown if what == "accept" else self.reject_shown
            add_button(row, "yes", f"Yes, {what} {masks}", "check", do)
            add_button(row, "no", "No", "close", self.take_question_back)

    def _add_inputs(self, ctx: Any, panel: types.Object, fields: list[str]) -> None:
        now = _settings(ctx)
        field, change = now["label_field"], self.change_settings
        add_menu(panel, "label_field", fields, "Field", default=field, on_change=self.change_field)
        review.add_order(panel, fields, now, on_change=change)
        panel.int("limit", min=1, label="Masks on a page", on_change=change)
        panel.str("reviewer", label="Reviewer", on_change=change)

    def _add_plot(
        self, panel: types.Object, name: str, title: str, counted: dict[str, Any]
    ) -> None:
        edges = counted["edges"][name]
        numbers = list(range(len(edges) - 1))
        ranges = [_range_of(name, edges, bar) for bar in numbers]
        data = [
            bars(
                state,
                numbers,
                counts,
                COLOURS[state],
                customdata=ranges,
                hovertemplate="%{customdata}: %{y:,}<extra>" + state + "</extra>",
            )
            for state, counts in counted["bars"][name].items()
        ]
        ticks = numbers[::4]
        axis = {
            "tickvals": [bar - 0.5 for bar in ticks] if name != "masks" else ticks,
            "ticktext": [_show(name, edges[bar]) for bar in ticks],
        }
        style = layout(title, 200, barmode="stack", bargap=0.05, xaxis=axis)
        add_plot(panel, f"{name}_plot", data, style, on_click=self.open_bar)


def _settings(ctx: Any) -> dict[str, Any]:
    """What the panel's inputs say."""
    given = {name: ctx.panel.get_state(name) for name in review.DEFAULTS}
    return {**review.settings_of(ctx), **filled(given, *given)}


def _range_of(name: str, edges: list[float], bar: int) -> str:
    if name == "masks":
        return f"{edges[bar]:g}" if bar < len(edges) - 2 else f"{edges[bar]:g} and more"
    return f"{_show(name, edges[bar])} to {_show(name, edges[bar + 1])}"


def _show(name: str, value: float) -> str:
    return f"{100 * value:.3g} %" if name == "area" else f"{value:g}"
