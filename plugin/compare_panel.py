"""The compare panel: evaluations beside each other, and the samples on which they differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from .look import COLOURS, column, layout

BARS = ("AP", "AP50", "AP75", "AR1", "AR10", "AR100")
SHOWN = 20  # samples of the greatest gain, and of the greatest loss


class ComparePanel(foo.Panel):
    """Figures of several evaluations, and where one gains on another and loses to it."""

    @property
    def config(self) -> foo.PanelConfig:
        """What FiftyOne shows of it."""
        return foo.PanelConfig(
            name="promerge_compare",
            label="ProMerge: compare",
            icon="compare",
            help_markdown=(
                "Evaluations by `evaluate_instances`, beside each other. A click on a bar of the "
                "lower plot opens its image with both fields."
            ),
        )

    def on_load(self, ctx: Any) -> None:
        """Start with all evaluations, the newest against the oldest."""
        keys = list(_evaluations(ctx))
        ctx.panel.state.menus = {"runs": keys, "kind": "masks"}
        ctx.panel.state.pair = {
            "against": keys[-1] if keys else None,
            "baseline": keys[0] if keys else None,
        }

    def on_change_dataset(self, ctx: Any) -> None:
        """Another dataset has other evaluations."""
        self.on_load(ctx)

    def render(self, ctx: Any) -> types.Property:
        """Menus, bars, curves, the table, gains and losses."""
        panel = types.Object()
        evaluations = _evaluations(ctx)
        if not evaluations:
            panel.md(
                "### Nothing to compare yet\n\nRun **ProMerge: evaluate instances** on a field "
                "with predictions, and on another one.",
                name="empty",
            )
            panel.btn("refresh", label="Look again", on_click=self.on_load)
            return types.Property(panel)
        menus = ctx.panel.state.menus or {}
        chosen = {key: evaluations[key] for key in menus.get("runs") or () if key in evaluations}
        kind = "bbox" if menus.get("kind") == "boxes" else "segm"
        rows = panel.v_stack("menus", gap=2)
        several = types.DropdownView(multiple=True)
        for key in evaluations:
            several.add_choice(key, label=key)
        rows.list("runs", types.String(), label="Evaluations", view=several)
        rows.enum("kind", ["masks", "boxes"], label="Of")
        panel.btn("refresh", label="Look again", icon="refresh", on_click=self.on_load)
        measured = {key: c.figures[kind] for key, c in chosen.items() if kind in c.figures}
        panel.plot(
            "bars",
            data=_bars(measured, evaluations),
            layout=layout("AP and AR, percent", lines=len(measured), barmode="group"),
        )
        for iou in ("0.50", "0.75"):
            curves = _curves(chosen, evaluations, iou)
            panel.plot(
                f"curve_{iou[2:]}",
                data=curves,
                layout=layout(
                    f"Precision over recall at IoU {iou}",
                    lines=len(curves),
                    xaxis={"range": [0, 1], "title": {"text": "recall"}},
                    yaxis={"range": [0, 1.05]},
                ),
            )
        panel.md(_table(measured, evaluations), name="figures")
        row = panel.h_stack("pair", gap=2)
        row.enum("against", list(evaluations), label="Gains of")
        row.enum("baseline", list(evaluations), label="over")
        if set(_pair(ctx)) <= set(evaluations):
            self._gains(ctx, panel)
        return types.Property(panel, view=column())

    def _gains(self, ctx: Any, panel: types.Object) -> None:
        key, base = _pair(ctx)
        if key == base:
            panel.md("Choose two different evaluations to see gains and losses.", name="same")
            return
        ids, names, gains = _greatest(ctx, key, base)
        panel.plot(
            "gains",
            data=[
                {
                    "type": "bar",
                    "orientation": "h",
                    "ids": ids,
                    "x": gains,
                    "y": names,
                    "marker": {"color": ["#2ca02c" if g > 0 else "#d62728" for g in gains]},
                }
            ],
            layout=layout(
                "Gain in recall at IoU 0.5",
                height=120 + 18 * len(ids),
                yaxis={"automargin": True, "autorange": "reversed"},
            ),
            on_click=self.open_sample,
        )
        row = panel.h_stack("open", gap=2)
        row.btn("open_gains", label="Open the gains", on_click=self.open_gains)
        row.btn("open_losses", label="Open the losses", on_click=self.open_losses)

    def open_sample(self, ctx: Any) -> None:
        """Show the image of a bar, with both fields."""
        self._show(ctx, ctx.dataset.select(ctx.params["id"]))

    def open_gains(self, ctx: Any) -> None:
        """Show the images on which recall rises."""
        self._open(ctx, losses=False)

    def open_losses(self, ctx: Any) -> None:
        """Show the images on which recall falls."""
        self._open(ctx, losses=True)

    def _open(self, ctx: Any, losses: bool) -> None:
        from promerge_fo.dataset.evaluation.comparison import samples_by_gain

        self._show(ctx, samples_by_gain(ctx.dataset, *_pair(ctx), losses=losses))

    def _show(self, ctx: Any, view: Any) -> None:
        """A view with the fields of both evaluations alone, which the App colours apart."""
        evaluations = _evaluations(ctx)
        pair = [evaluations[key] for key in _pair(ctx)]
        fields = dict.fromkeys([*(config.pred_field for config in pair), pair[0].gt_field])
        ctx.ops.set_view(view)
        ctx.ops.open_panel("Samples")  # the grid, where the panel hides it
        ctx.ops.set_active_fields(list(fields))


def _pair(ctx: Any) -> tuple[str | None, str | None]:
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


def _colour(key: str, evaluations: dict[str, Any]) -> str:
    return COLOURS[list(evaluations).index(key) % len(COLOURS)]


def _bars(measured: dict[str, Any], evaluations: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "type": "bar",
            "name": key,
            "x": list(BARS),
            "y": [max(figures[name], 0) for name in BARS],
            "marker": {"color": _colour(key, evaluations)},
        }
        for key, figures in measured.items()
    ]


def _curves(chosen: dict[str, Any], evaluations: dict[str, Any], iou: str) -> list[dict[str, Any]]:
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "name": key,
            "x": [k / 100 for k in range(101)],
            "y": config.curves[iou],
            "line": {"color": _colour(key, evaluations)},
        }
        for key, config in chosen.items()
        if iou in config.curves
    ]


def _table(measured: dict[str, Any], evaluations: dict[str, Any]) -> str:
    if not measured:
        return "None of the evaluations chosen has these figures."
    rows = {"images": [f"{evaluations[key].images:,}" for key in measured]}
    for name in next(iter(measured.values())):
        values = [figures[name] for figures in measured.values()]
        rows[name] = ["-" if value < 0 else f"{value:.1f}" for value in values]
    lines = ["| | " + " | ".join(measured) + " |", "| --- |" + " --- |" * len(measured)]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(row)} |" for name, row in rows.items())])
