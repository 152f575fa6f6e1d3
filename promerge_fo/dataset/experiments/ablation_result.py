"""What an ablation found: figures with intervals, as a table, a CSV file and plots."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promerge_fo.dataset.evaluation.coco_metrics import METRICS, IouType
from promerge_fo.dataset.evaluation.intervals import interval
from promerge_fo.dataset.experiments.outcome import Outcome
from promerge_fo.dataset.experiments.settings import changes_between

__all__ = ["KINDS", "Ablation"]

KINDS: dict[IouType, str] = {"segm": "masks", "bbox": "boxes"}  #: what is measured, in words
_SHOWN = ("AP50", "AP", "AR100")  # in tables, as the paper's have them


@dataclass(frozen=True)
class Ablation:
    """What :func:`promerge_fo.dataset.ablate` found.

    Attributes:
        outcomes: of each setting, by its name; the first is the one that others are compared with.
        kind: "segm" or "bbox": what intervals and differences are of.
        images: how many were measured on.
        gt_field: the field with the ground truth.
        encoder: the encoder's identity.
        confidence: of the intervals.
    """

    outcomes: dict[str, Outcome]
    kind: IouType
    images: int
    gt_field: str
    encoder: Mapping[str, Any]
    confidence: float

    @property
    def first(self) -> str:
        """The name of the setting that the others are compared with."""
        return next(iter(self.outcomes))

    def metrics(self) -> dict[str, dict[str, dict[str, float]]]:
        """The figures of each setting, of masks and boxes; 0 to 100, or -1 without ground truth."""
        return {
            name: {kind: dict(scores.metrics) for kind, scores in outcome.scores.items()}
            for name, outcome in self.outcomes.items()
        }

    def interval(self, name: str, metric: str) -> tuple[float, float]:
        """The bootstrap's interval of a setting's figure."""
        return self.outcomes[name].interval(metric, self.confidence)

    def difference(
        self, name: str, metric: str, other: str | None = None
    ) -> tuple[float, float, float]:
        """What a setting has over another one, the first by default, and the interval of that."""
        mine, theirs = self.outcomes[name], self.outcomes[other or self.first]
        apart = interval(mine.drawn[metric] - theirs.drawn[metric], self.confidence)
        figures = [each.scores[self.kind].metrics[metric] for each in (mine, theirs)]
        return (figures[0] - figures[1], *apart)

    def table(self) -> str:
        """Figures, mask counts and times as a Markdown table; AP with its interval."""
        kinds = [kind for kind in KINDS if all(kind in o.scores for o in self.outcomes.values())]
        heads = [f"{metric} ({KINDS[kind]})" for kind in kinds for metric in _SHOWN]
        heads += ["masks an image", "seconds an image"]
        lines = ["| | " + " | ".join(heads) + " |", "| --- |" + " --- |" * len(heads)]
        for name, outcome in self.outcomes.items():
            cells = [self.cell(name, kind, metric) for kind in kinds for metric in _SHOWN]
            cells += [f"{outcome.masks:.1f}", _number(outcome.image_seconds)]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def cell(self, name: str, kind: IouType, metric: str) -> str:
        """A figure for a table, the leading AP with its interval; "-" without ground truth."""
        value = self.outcomes[name].scores[kind].metrics[metric]
        if value == -1:
            return "-"
        low, high = self.interval(name, metric)
        if metric != "AP" or kind != self.kind or math.isnan(low):
            return f"{value:.2f}"
        return f"{value:.2f} [{low:.2f}, {high:.2f}]"

    def __str__(self) -> str:
        return (
            f"{self.images} images against {self.gt_field}, encoder {self.encoder['name']}; in "
            f"brackets, {self.confidence:.0%} intervals over images\n\n{self.table()}"
        )

    def report(self, folder: str | os.PathLike[str], title: str = "Ablation") -> Path:
        """Write a report: a page, all figures, and plots.

        Args:
            folder: for ``report.md``, ``results.csv`` and the PNG files.
            title: of the page.

        Returns:
            The path of ``report.md``.
        """
        from promerge_fo.dataset.experiments import ablation_plots as plots

        target = Path(folder).expanduser()
        target.mkdir(parents=True, exist_ok=True)
        self.write_csv(target / "results.csv")
        parts = [f"# {title}", str(self)]
        if plots.plot_sweeps(self, target / "sweeps.png"):
            parts.append("![Figures against each parameter](sweeps.png)")
        plots.plot_settings(self, target / "settings.png")
        plots.plot_times(self, target / "times.png")
        parts.append("![AP of each setting](settings.png)")
        parts.append("![AP against time](times.png)")
        path = target / "report.md"
        path.write_text("\n\n".join(parts) + "\n")
        return path

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write all figures, a row a setting.

        Columns: ``setting``; the parameters in which settings differ; each metric of masks and
        boxes (``segm_AP``, ...; 0 to 100, -1 without ground truth); the interval of the leading AP,
        and what it has over the first setting's; ``masks`` an image, ``seconds`` and
        ``encoding_seconds`` an image (medians), ``statuses`` and ``run``.
        """
        varied = changes_between({name: o.config for name, o in self.outcomes.items()})
        kinds = [kind for kind in KINDS if all(kind in o.scores for o in self.outcomes.values())]
        heads = ["setting", *varied, *(f"{kind}_{metric}" for kind in kinds for metric in METRICS)]
        heads += ["AP_low", "AP_high", "AP_gain", "AP_gain_low", "AP_gain_high"]
        heads += ["masks", "seconds", "encoding_seconds", "statuses", "run"]
        with Path(path).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(heads)
            for i, (name, outcome) in enumerate(self.outcomes.items()):
                figures = [outcome.scores[kind].metrics[m] for kind in kinds for m in METRICS]
                sure = [*self.interval(name, "AP"), *self.difference(name, "AP")]
                times = [outcome.seconds, outcome.encoding_seconds]
                statuses = " ".join(f"{status}={n}" for status, n in outcome.statuses.items())
                numbers = [round(value, 4) for value in (*figures, *sure, outcome.masks, *times)]
                changes = ["" if values[i] is None else values[i] for values in varied.values()]
                writer.writerow([name, *changes, *numbers, statuses, outcome.run])


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
