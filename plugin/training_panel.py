"""The training panel: the losses of a detector, while it is trained and afterwards."""

from __future__ import annotations

from math import isfinite
from typing import Any

from fiftyone.operators import types

from .forms import menu
from .look import Panel, add_plot, layout, line
from .memory import keep_training, trainings

POINTS = 400  # of a curve; each is a mean of the iterations around it
STYLE: dict[str, Any] = {
    "height": 320,
    "showlegend": True,
    "legend": {"orientation": "h", "x": 0, "y": -0.25},
    "xaxis": {"title": {"text": "iteration"}},
}


class TrainingPanel(Panel):
    """Losses of a training's rounds, and how far it is."""

    name = "promerge_training"
    label = "ProMerge: training"
    icon = "show_chart"
    help = (
        "The losses of a training by `train_detector` or by `promerge train`: give the folder that "
        "it is in. TensorBoard shows sample predictions as well."
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

    def draw(self, ctx: Any, panel: types.Object) -> None:
        """The folder, how far each round is, its losses and their parts."""
        known = menu(types.AutocompleteView(), trainings(ctx))
        panel.str("folder", label="Folder of the training", view=known, on_change=self.look)
        panel.btn("look", label="Look again", icon="refresh", on_click=self.look)
        trouble, rounds = ctx.panel.get_state("trouble"), ctx.panel.get_state("curves")
        if trouble:
            panel.md(trouble, name="trouble_text")
            return
        if not rounds:
            panel.md(
                "### No losses yet\n\nRun **ProMerge: train a detector**, or give the folder of a "
                "training that `promerge train` was started in, and look again.",
                name="empty",
            )
            return
        lines = [f"Round {number}: {each['progress']}" for number, each in rounds.items()]
        panel.md("\n\n".join(lines), name="progress")
        totals = {f"round {n}": (each, "total_loss") for n, each in rounds.items()}
        add_plot(panel, "total", _lines(totals), layout("Loss", **STYLE))
        for number, each in rounds.items():
            names = [name for name in each["values"] if name.startswith("loss_")]
            parts = {name[len("loss_") :].replace("_", " "): (each, name) for name in names}
            style = layout(f"Parts of the loss, round {number}", **STYLE)
            add_plot(panel, f"parts_{number}", _lines(parts), style)


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


def _lines(shown: dict[str, tuple[dict[str, Any], str]]) -> list[dict[str, Any]]:
    """Plotly's curves: by their name, the round that each is of and its key there."""
    return [
        line(name, each["iterations"], each["values"].get(key, []), k)
        for k, (name, (each, key)) in enumerate(shown.items())
    ]
