"""The training panel: the losses of a detector, while it is trained and afterwards."""

from __future__ import annotations

from math import isfinite
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from .look import COLOURS, column, layout
from .trainings import keep_training, trainings

POINTS = 400  # of a curve; each is a mean of the iterations around it
STYLE = {
    "height": 320,
    "showlegend": True,
    "legend": {"orientation": "h", "x": 0, "y": -0.25},
    "xaxis": {"title": {"text": "iteration"}},
}


class TrainingPanel(foo.Panel):
    """Losses of a training's rounds, and how far it is."""

    @property
    def config(self) -> foo.PanelConfig:
        return foo.PanelConfig(
            name="promerge_training",
            label="ProMerge: training",
            icon="show_chart",
            help_markdown=(
                "The losses of a training by `train_detector` or by `promerge train`: give the "
                "folder that it is in. TensorBoard shows sample predictions as well."
            ),
        )

    def on_load(self, ctx: Any) -> None:
        """Start with the newest training of the dataset."""
        ctx.panel.set_state("folder", next(iter(trainings(ctx)), None))
        self.look(ctx)

    on_change_dataset = on_load

    def look(self, ctx: Any) -> None:
        """Read the losses again."""
        from promerge_fo.detector import read_losses

        folder = ctx.panel.get_state("folder")
        ctx.panel.set_state("curves", None)
        ctx.panel.set_state("trouble", None)
        if not folder:
            return
        try:
            rounds = read_losses(folder)
        except OSError as error:
            ctx.panel.set_state("trouble", str(error))
            return
        keep_training(ctx, folder)
        ctx.panel.set_state("curves", {str(n): _curves(losses) for n, losses in rounds.items()})

    def render(self, ctx: Any) -> types.Property:
        """The folder, how far each round is, its losses and their parts."""
        panel = types.Object()
        known = types.AutocompleteView()
        for folder in trainings(ctx):
            known.add_choice(folder, label=folder)
        panel.str("folder", label="Folder of the training", view=known, on_change=self.look)
        panel.btn("look", label="Look again", icon="refresh", on_click=self.look)
        trouble, rounds = ctx.panel.get_state("trouble"), ctx.panel.get_state("curves")
        if trouble:
            panel.md(trouble, name="trouble_text")
        elif not rounds:
            panel.md(
                "### No losses yet\n\nRun **ProMerge: train a detector**, or give the folder of a "
                "training that `promerge train` was started in, and look again.",
                name="empty",
            )
        else:
            lines = [f"Round {number}: {each['progress']}" for number, each in rounds.items()]
            panel.md("\n\n".join(lines), name="progress")
            panel.plot("total", data=_totals(rounds), layout=layout("Loss", **STYLE))
            for number, each in rounds.items():
                panel.plot(
                    f"parts_{number}",
                    data=_parts(each),
                    layout=layout(f"Parts of the loss, round {number}", **STYLE),
                )
        return types.Property(panel, view=column())


def _curves(losses: Any) -> dict[str, Any]:
    """What the panel shows of a round, as JSON."""
    thin = losses.thinned(POINTS)
    return {
        "progress": f"{losses}{'; done' if losses.finished else ''}",
        "iterations": (thin.iterations + 1).tolist(),
        "values": {
            name: [value if isfinite(value) else None for value in values.tolist()]
            for name, values in thin.values.items()
        },
    }


def _totals(rounds: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        _line(f"round {number}", each, "total_loss", k)
        for k, (number, each) in enumerate(rounds.items())
    ]


def _parts(each: dict[str, Any]) -> list[dict[str, Any]]:
    names = [name for name in each["values"] if name.startswith("loss_")]
    return [
        _line(name.removeprefix("loss_").replace("_", " "), each, name, k)
        for k, name in enumerate(names)
    ]


def _line(name: str, each: dict[str, Any], key: str, k: int) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": each["iterations"],
        "y": each["values"].get(key, []),
        "line": {"color": COLOURS[k % len(COLOURS)]},
    }
