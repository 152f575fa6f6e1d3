"""The results of an ablation: metrics with intervals, as a table, a CSV file and plots."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promerge_fo.dataset.evaluation.coco_metrics import KINDS, METRICS
from promerge_fo.dataset.evaluation.intervals import percentile_interval
from promerge_fo.dataset.evaluation.matching import IouType
from promerge_fo.dataset.experiments.outcome import Outcome
from promerge_fo.dataset.experiments.settings import changes_between
from promerge_fo.words import markdown_table

__all__ = ["Ablation"]

_TABLE_METRICS = ("AP50", "AP", "AR100")  # those of the paper's tables


@dataclass(frozen=True)
class Ablation:
    """The results of :func:`promerge_fo.dataset.ablate`.

    Attributes:
        outcomes: the measurements of each setting, by its name; the others are compared with the
            first one.
        kind: "segm" or "bbox": whether intervals and differences are those of masks or of boxes.
        images: the number of images measured.
        gt_field: the field with the ground truth.
        encoder: the identity of the encoder.
        confidence: the confidence of the intervals.
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

    @property
    def failed(self) -> int:
        """The number of images that failed, by the setting with which most did."""
        return max(outcome.statuses.get("failed", 0) for outcome in self.outcomes.values())

    def metrics(self) -> dict[str, dict[str, dict[str, float]]]:
        """The metrics of each setting, of masks and boxes; 0 to 100, or -1 without ground truth."""
        return {
            name: {kind: dict(scores.metrics) for kind, scores in outcome.scores.items()}
            for name, outcome in self.outcomes.items()
        }

    def interval(self, name: str, metric: str) -> tuple[float, float]:
        """The bootstrap interval of a setting's metric."""
        return self.outcomes[name].interval(metric, self.confidence)

    def difference(
        self, name: str, metric: str, other: str | None = None
    ) -> tuple[float, float, float]:
        """The difference of a metric to another setting, the first by default, and its interval."""
        mine, theirs = self.outcomes[name], self.outcomes[other or self.first]
        value, baseline = (each.scores[self.kind].metrics[metric] for each in (mine, theirs))
        differences = mine.drawn[metric] - theirs.drawn[metric]
        return (value - baseline, *percentile_interval(differences, self.confidence))

    def table(self) -> str:
        """Metrics, mask counts and times as a Markdown table; AP has its interval."""
        columns = [(kind, metric) for kind in self._kinds for metric in _TABLE_METRICS]
        heads = [f"{metric} ({KINDS[kind]})" for kind, metric in columns]
        rows = [
            [
                name,
                *(self.cell(name, kind, metric) for kind, metric in columns),
                f"{outcome.masks:.1f}",
                "-" if math.isnan(outcome.image_seconds) else f"{outcome.image_seconds:.3f}",
            ]
            for name, outcome in self.outcomes.items()
        ]
        return markdown_table(["", *heads, "masks an image", "seconds an image"], rows)

    def cell(self, name: str, kind: IouType, metric: str) -> str:
        """A metric as text, "-" without ground truth. The AP of :attr:`kind` has its interval."""
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
        """Write a report: a page, a CSV file with all metrics, and plots.

        Args:
            folder: the folder for ``report.md``, ``results.csv`` and the PNG files.
            title: the title of the page.

        Returns:
            The path of ``report.md``.
        """
        from promerge_fo.dataset.experiments import ablation_plots as plots

        target = Path(folder).expanduser()
        target.mkdir(parents=True, exist_ok=True)
        self.write_csv(target / "results.csv")
        parts = [f"# {title}", str(self)]
        if plots.plot_sweeps(self, target / "sweeps.png"):
            parts.append("![Metrics against each parameter](sweeps.png)")
        plots.plot_settings(self, target / "settings.png")
        plots.plot_times(self, target / "times.png")
        parts.append("![AP of each setting](settings.png)")
        parts.append("![AP against time](times.png)")
        path = target / "report.md"
        path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
        return path

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write all measurements to a CSV file, one row for each setting.

        Columns: ``setting``; the parameters in which settings differ; each metric of masks and
        boxes (``segm_AP``, ...; 0 to 100, -1 without ground truth); for the AP of :attr:`kind` its
        interval (``AP_low``, ``AP_high``) and its difference to the first setting with an interval
        (``AP_gain``, ...); the mean number of ``masks`` in an image; the medians of ``seconds`` and
        ``encoding_seconds`` for an image; ``statuses`` and ``run``.
        """
        varied = changes_between({name: o.config for name, o in self.outcomes.items()})
        columns = [(kind, metric) for kind in self._kinds for metric in METRICS]
        heads = ["setting", *varied, *(f"{kind}_{metric}" for kind, metric in columns)]
        heads += ["AP_low", "AP_high", "AP_gain", "AP_gain_low", "AP_gain_high"]
        heads += ["masks", "seconds", "encoding_seconds", "statuses", "run"]
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(heads)
            for i, (name, outcome) in enumerate(self.outcomes.items()):
                numbers = [
                    *(outcome.scores[kind].metrics[metric] for kind, metric in columns),
                    *self.interval(name, "AP"),
                    *self.difference(name, "AP"),
                    outcome.masks,
                    outcome.seconds,
                    outcome.encoding_seconds,
                ]
                rounded = [round(number, 4) for number in numbers]
                statuses = " ".join(f"{status}={n}" for status, n in outcome.statuses.items())
                parameters = ["" if values[i] is None else values[i] for values in varied.values()]
                writer.writerow([name, *parameters, *rounded, statuses, outcome.run])

    @property
    def _kinds(self) -> list[IouType]:
        """What was measured with every setting: masks, boxes or both."""
        return [kind for kind in KINDS if all(kind in o.scores for o in self.outcomes.values())]
