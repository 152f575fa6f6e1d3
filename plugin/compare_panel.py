"""The compare panel: evaluations beside each other, and the samples on which they differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fiftyone.operators import types

from promerge_fo.words import markdown_table

from .forms import menu
from .look import COLOURS, Panel, add_plot, bars, layout, line

BARS = ("AP", "AP50", "AP75", "AR1", "AR10", "AR100")
SHOWN = 20  # samples of the greatest gain, and of the greatest loss


class ComparePanel(Panel):
    """Figures of several evaluations, and where one gains on another and loses to it."""

    name = "promerge_compare"
    label = "ProMerge: compare"
    icon = "compare"
    help = (
        "Evaluations by `evaluate_instances`, beside each other. A click on a bar of the lower "
        "plot opens its image with both fields."
    )

    def on_load(self, ctx: Any) -> None:
        """Start with all evaluations, the newest against the oldest."""
        keys = list(_evaluations(ctx))
        ctx.panel.state.menus = {"runs": keys, "kind": "masks"}
        newest, oldest = (keys[-1], keys[0]) if keys else (None, None)
        ctx.panel.state.pair = {"against": newest, "baseline": oldest}

    on_change_dataset = on_load

    def draw(self, ctx: Any, panel: types.Object) -> None:
        """Menus, bars, curves, the table, gains and losses."""
        evaluations = _evaluations(ctx)
        if not evaluations:
            panel.md(
                "### Nothing to compare yet\n\nRun **ProMerge: evaluate instances** on a field "
                "with predictions, and on another one.",
                name="empty",
            )
            panel.btn("refresh", label="Look again", on_click=self.on_load)
            return
        menus = ctx.panel.state.menus or {}
        chosen = {key: evaluations[key] for key in menus.get("runs") or () if key in evaluations}
        kind = "bbox" if menus.get("kind") == "boxes" else "segm"
        rows = panel.v_stack("menus", gap=2)
        several = menu(types.DropdownView(multiple=True), evaluations.keys())
        rows.list("runs", types.String(), label="Evaluations", view=several)
        rows.enum("kind", ["masks", "boxes"], label="Of")
        panel.btn("refresh", label="Look again", icon="refresh", on_click=self.on_load)
        measured = {key: c.figures[kind] for key, c in chosen.items() if kind in c.figures}
        number = {key: k for k, key in enumerate(evaluations)}  # of its colour
        figures = [
            bars(
                key,
                list(BARS),
                [max(values[name], 0) for name in BARS],
                COLOURS[number[key] % len(COLOURS)],
            )
            for key, values in measured.items()
        ]
        style = layout("AP and AR, percent", lines=len(figures), barmode="group")
        add_plot(panel, "bars", figures, style)
        for iou in ("0.50", "0.75"):
            recalls = [k / 100 for k in range(101)]
            curves = [
                line(key, recalls, config.curves[iou], number[key])
                for key, config in chosen.items()
                if iou in config.curves
            ]
            style = layout(
                f"Precision over recall at IoU {iou}",
                lines=len(curves),
                xaxis={"range": [0, 1], "title": {"text": "recall"}},
                yaxis={"range": [0, 1.05]},
            )
            add_plot(panel, f"curve_{iou[2:]}", curves, style)
        panel.md(_table(measured, evaluations), name="figures")
        row = panel.h_stack("pair", gap=2)
        row.enum("against", list(evaluations), label="Gains of")
        row.enum("baseline", list(evaluations), label="over")
        key, base = _pair(ctx)
        if key in evaluations and base in evaluations:
            self._add_gains(ctx, panel, key, base)

    def _add_gains(self, ctx: Any, panel: types.Object, key: str, base: str) -> None:
        """The images on which one evaluation's recall differs most from another's."""
        if key == base:
            panel.md("Choose two different evaluations to see gains and losses.", name="same")
            return
        ids, names, gains = _greatest(ctx, key, base)
        colours = ["#2ca02c" if gain > 0 else "#d62728" for gain in gains]
        data = [bars("gain", gains, names, colours, ids=ids, orientation="h")]
        axis = {"automargin": True, "autorange": "reversed"}
        style = layout("Gain in recall at IoU 0.5", height=120 + 18 * len(ids), yaxis=axis)
        add_plot(panel, "gains", data, style, on_click=self.open_sample)
        row = panel.h_stack("open", gap=2)
        for what, losses in (("gains", False), ("losses", True)):
            params = {"losses": losses}
            row.btn(f"open_{what}", f"Open the {what}", on_click=self.open_changed, params=params)

    def open_sample(self, ctx: Any) -> None:
        """Show the image of a bar, with both fields."""
        self._show(ctx, ctx.dataset.select(ctx.params["id"]))

    def open_changed(self, ctx: Any) -> None:
        """Show the images on which recall rises, or those on which it falls."""
        from promerge_fo.dataset.evaluation.comparison import samples_by_gain

        self._show(ctx, samples_by_gain(ctx.dataset, *_pair(ctx), losses=ctx.params["losses"]))

    def _show(self, ctx: Any, view: Any) -> None:
        """A view with the fields of both evaluations alone, which the App colours apart."""
        evaluations = _evaluations(ctx)
        pair = [evaluations[key] for key in _pair(ctx)]
        fields = dict.fromkeys([*(config.pred_field for config in pair), pair[0].gt_field])
        ctx.ops.set_view(view)
        ctx.ops.open_panel("Samples")  # the grid, where the panel hides it
        ctx.ops.set_active_fields(list(fields))


def _pair(ctx: Any) -> tuple[Any, Any]:
    """The evaluation whose gains are shown, and the one over which it gains."""
    pair = ctx.panel.state.pair or {}
    return pair.get("against"), pair.get("baseline")


def _evaluations(ctx: Any) -> dict[str, Any]:
    from promerge_fo.dataset.evaluation.evaluate import list_evaluations

    return list_evaluations(ctx.dataset)


def _greatest(ctx: Any, key: str, base: str) -> tuple[list[str], list[str], list[float]]:
    """Samples of the greatest gains and losses: ids, file names, gains."""
    from promerge_fo.dataset.evaluation.comparison import recall_gain, samples_by_gain

    found: dict[str, tuple[str, float]] = {}
    for losses in (False, True):
        view = samples_by_gain(ctx.dataset, key, base, SHOWN, losses)
        rows = zip(*view.values(["id", "filepath", recall_gain(key, base)]), strict=True)
        found.update({i: (Path(path).name, float(gain)) for i, path, gain in rows})
    ranked = sorted(found.items(), key=lambda item: -item[1][1])
    # two files of one name are two bars
    names = [f"{name} ({i[-4:]})" for i, (name, _) in ranked]
    return [i for i, _ in ranked], names, [gain for _, (_, gain) in ranked]


def _table(measured: dict[str, Any], evaluations: dict[str, Any]) -> str:
    """Images and figures as Markdown, a column for each evaluation."""
    if not measured:
        return "None of the evaluations chosen has these figures."
    rows = [["images", *(f"{evaluations[key].images:,}" for key in measured)]]
    for name in next(iter(measured.values())):
        values = [figures[name] for figures in measured.values()]
        rows.append([name, *("-" if value < 0 else f"{value:.1f}" for value in values)])
    return markdown_table(["", *measured], rows)
