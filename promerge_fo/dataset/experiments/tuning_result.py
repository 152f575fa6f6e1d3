"""The result of tuning: the chosen setting, and an honest estimate of its gain."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from promerge_fo.config import Config
from promerge_fo.dataset.evaluation.coco_metrics import KINDS
from promerge_fo.dataset.experiments.ablation_result import Ablation
from promerge_fo.words import markdown_table

__all__ = ["Estimate", "Tuning", "mean_interval"]

_OF_ENCODER = ("facet", "block")
_MAX_ROWS = 12  # settings in the page's table


class Estimate(NamedTuple):
    """A metric, or the gain of one, and its interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        mean, low, high = (round(value, 2) + 0.0 for value in self)  # + 0.0 avoids "-0.00"
        return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


@dataclass(frozen=True)
class Tuning:
    """The result of :func:`promerge_fo.dataset.tune`.

    Attributes:
        ablation: the measurements of all settings on all images.
        metric: the metric by which settings were chosen.
        folds: the number of folds of the cross-validation.
        repeats: how often the images were divided into folds.
        picks: for each setting the share of folds, 0 to 1, for which it was chosen.
        worth: the metric on held-out folds, each with the setting chosen on the other folds. On few
            images, AP is often higher than on all of them together.
        before: the metric of the first setting on the same folds.
        gain: ``worth`` minus ``before``.
    """

    ablation: Ablation
    metric: str
    folds: int
    repeats: int
    picks: dict[str, float]
    worth: Estimate
    before: Estimate
    gain: Estimate

    @property
    def best(self) -> str:
        """The setting with the highest metric on all images."""
        return max(self.ablation.outcomes, key=self._metric_of)

    @property
    def decided(self) -> bool:
        """Whether the images show that the best setting is better than the first one."""
        return self.best != self.ablation.first and self.gain.low > 0

    @property
    def choice(self) -> str:
        """The setting to use: the best one if it is :attr:`decided`, else the first one."""
        return self.best if self.decided else self.ablation.first

    @property
    def config(self) -> Config:
        """The configuration of :attr:`choice`."""
        return self.ablation.outcomes[self.choice].config

    @property
    def changes(self) -> dict[str, Any]:
        """The parameters of the choice that the first setting lacks or has with another value.

        The encoder's facet and block are among them.
        """
        first, choice = (
            {**{k: o.pipeline.encoder.identity().get(k) for k in _OF_ENCODER}, **o.config.to_dict()}
            for o in (self.ablation.outcomes[n] for n in (self.ablation.first, self.choice))
        )
        return {
            name: value
            for name, value in choice.items()
            if name not in first or first[name] != value
        }

    @property
    def alike(self) -> list[str]:
        """The settings whose difference to the best one has an interval that contains 0."""
        differences = {
            name: self.ablation.difference(name, self.metric, self.best)
            for name in self.ablation.outcomes
        }
        return [
            n for n, (_, low, high) in differences.items() if n != self.best and low <= 0 <= high
        ]

    def verdict(self) -> str:
        """A recommendation and its reasons, in a few sentences."""
        first, best = self.ablation.first, self.best
        measured = (
            f"Chosen by all images but a fold, and measured on that fold, {self.metric} has a mean "
            f"of {self.worth.mean:.2f}, where '{first}' has {self.before.mean:.2f}: a gain of "
            f"{self.gain} ({self.ablation.confidence:.0%} interval)."
        )
        if best == first:
            head = f"Keep '{first}': no other setting has a higher {self.metric} on these images."
        elif self.decided:
            head = f"Take '{best}'."
        else:
            head = (
                f"These images cannot tell '{best}', which has the highest {self.metric}, from "
                f"'{first}': keep '{first}', or label more images."
            )
        tail = (
            f"'{best}' was chosen for {self.picks[best]:.0%} of the folds; "
            f"{len(self.alike)} of the other {len(self.picks) - 1} settings cannot be told from it."
        )
        return f"{head} {measured} {tail}"

    def __str__(self) -> str:
        return (
            f"{self.verdict()}\n\n{self.ablation.images} images against {self.ablation.gt_field}, "
            f"{KINDS[self.ablation.kind]}, encoder {self.ablation.encoder['name']}; "
            f"{self.folds} folds, repeated {self.repeats} times. The table has {self.metric} on "
            "all images together, which is not its mean over folds of few images."
            f"\n\n{self.table()}"
        )

    def table(self) -> str:
        """The best settings and the first one, by falling metric on all images, in Markdown."""
        first, metric = self.ablation.first, self.metric
        ranked = sorted(self.ablation.outcomes, key=self._metric_of, reverse=True)
        shown = [n for n in ranked if n in ranked[:_MAX_ROWS] or n == first]
        heads = ["", f"{metric}, all images", f"over '{first}'", "chosen for", "masks an image"]
        rows = []
        for name in shown:
            value = Estimate(self._metric_of(name), *self.ablation.interval(name, metric))
            difference = Estimate(*self.ablation.difference(name, metric))
            over = "-" if name == first else str(difference)
            masks = self.ablation.outcomes[name].masks
            rows.append([name, str(value), over, f"{self.picks[name]:.0%}", f"{masks:.1f}"])
        table = markdown_table(heads, rows)
        if len(shown) == len(ranked):
            return table
        hidden = len(ranked) - len(shown)
        return f"{table}\n\n{hidden} settings with a lower {metric} are left out."

    def report(self, folder: str | os.PathLike[str]) -> Path:
        """Write a report: the verdict, and the metrics and plots of all settings.

        Args:
            folder: the folder for ``tuning.md`` and the files of
                :meth:`promerge_fo.dataset.Ablation.report`.

        Returns:
            The path of ``tuning.md``.
        """
        self.ablation.report(folder, "All settings")
        path = Path(folder).expanduser() / "tuning.md"
        path.write_text(
            f"# Tuning\n\n{self}\n\nAll settings: [report.md](report.md)\n", encoding="utf-8"
        )
        return path

    def write_settings(self, path: str | os.PathLike[str]) -> None:
        """Write the chosen setting, with its encoder, to a JSON file for ``--settings``."""
        definition = {"tuned": self.ablation.outcomes[self.choice].pipeline.identity()}
        Path(path).expanduser().write_text(
            json.dumps(definition, indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )

    def _metric_of(self, name: str) -> float:
        """The metric of a setting on all images."""
        return self.ablation.outcomes[name].scores[self.ablation.kind].metrics[self.metric]


def mean_interval(values: NDArray[np.float64], folds: int, confidence: float) -> Estimate:
    """The mean of a metric over the folds of a repeated cross-validation, and its interval.

    The settings for different folds are chosen on overlapping sets of images, so an ordinary t
    interval of the values would be too narrow. This is the corrected t interval of Nadeau and
    Bengio (2003), applied to repeated folds by Bouckaert and Frank (2004): the variance of the mean
    is (1 / n + 1 / (folds - 1)) times that of the n values.

    Args:
        values: (n,) float64: the metric on each fold.
        folds: the number of folds in each repeat.
        confidence: in (0, 1).
    """
    mean = float(values.mean())
    if len(values) < 2:
        return Estimate(mean, float("-inf"), float("inf"))
    spread = float(np.sqrt((1 / len(values) + 1 / (folds - 1)) * values.var(ddof=1)))
    half = float(student.ppf((1 + confidence) / 2, len(values) - 1)) * spread
    return Estimate(mean, mean - half, mean + half)
