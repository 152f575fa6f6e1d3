"""What tuning found: the choice, what it is worth on other images, and in words."""

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
from promerge_fo.dataset.experiments.ablation_result import KINDS, Ablation

__all__ = ["Estimate", "Tuning", "mean_interval"]

_ROWS = 12  # settings in the page's table


class Estimate(NamedTuple):
    """A mean over the folds of a cross-validation, with its interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        mean, low, high = (round(value, 2) + 0.0 for value in self)  # no "-0.00"
        return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


@dataclass(frozen=True)
class Tuning:
    """What :func:`promerge_fo.dataset.tune` found.

    Attributes:
        ablation: the figures of all settings on all images.
        metric: what was chosen by.
        folds: of the cross-validation.
        repeats: how often the images were dealt into folds.
        picks: the share of the folds for which each setting was chosen.
        worth: the metric of what was chosen without a fold, on that fold.
        before: that of the first setting.
        gain: what the one has over the other.
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
        """The setting with the highest figure on all images."""
        figures = {name: self._figure(name) for name in self.ablation.outcomes}
        return max(figures, key=lambda name: figures[name])

    @property
    def decided(self) -> bool:
        """Whether the data tell that the best setting is better than the first."""
        return self.best != self.ablation.first and self.gain.low > 0

    @property
    def choice(self) -> str:
        """The setting to use: the best one where the data decide, else the first."""
        return self.best if self.decided else self.ablation.first

    @property
    def config(self) -> Config:
        """The configuration of :attr:`choice`."""
        return self.ablation.outcomes[self.choice].config

    @property
    def changes(self) -> dict[str, Any]:
        """The parameters in which the choice differs from the first setting, if of its method."""
        before = self.ablation.outcomes[self.ablation.first].config.to_dict()
        return {
            name: value
            for name, value in self.config.to_dict().items()
            if name not in before or before[name] != value
        }

    @property
    def alike(self) -> list[str]:
        """The settings whose difference from the best has an interval that holds 0."""
        differences = {
            name: self.ablation.difference(name, self.metric, self.best)
            for name in self.ablation.outcomes
        }
        return [
            n for n, (_, low, high) in differences.items() if n != self.best and low <= 0 <= high
        ]

    def verdict(self) -> str:
        """What to do, and why, in a few sentences."""
        first, best = self.ablation.first, self.best
        sure = f"{self.ablation.confidence:.0%} interval"
        measured = (
            f"Chosen by all images but a fold, and measured on that fold, {self.metric} is "
            f"{self.worth} ({sure}), where '{first}' has {self.before}: a gain of {self.gain}."
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
            f"{self.folds} folds, dealt {self.repeats} times\n\n{self.table()}"
        )

    def table(self) -> str:
        """The first setting and the best ones, by falling figures, as a Markdown table."""
        ranked = sorted(self.ablation.outcomes, key=self._figure, reverse=True)
        shown = [n for n in ranked if n in ranked[:_ROWS] or n == self.ablation.first]
        lines = [
            f"| | {self.metric} | over '{self.ablation.first}' | chosen for | masks an image |",
            "| --- | --- | --- | --- | --- |",
        ]
        for name in shown:
            low, high = self.ablation.interval(name, self.metric)
            value = Estimate(self._figure(name), low, high)
            apart = Estimate(*self.ablation.difference(name, self.metric))
            over = "-" if name == self.ablation.first else str(apart)
            masks = self.ablation.outcomes[name].masks
            lines.append(f"| {name} | {value} | {over} | {self.picks[name]:.0%} | {masks:.1f} |")
        if len(shown) < len(ranked):
            lines.append(f"\n{len(ranked) - len(shown)} settings with lower figures are left out.")
        return "\n".join(lines)

    def report(self, folder: str | os.PathLike[str]) -> Path:
        """Write a report: the page, and the figures and plots of all settings.

        Args:
            folder: for ``tuning.md`` and the files of
                :meth:`promerge_fo.dataset.Ablation.report`.

        Returns:
            The path of ``tuning.md``.
        """
        self.ablation.report(folder, "All settings")
        path = Path(folder).expanduser() / "tuning.md"
        path.write_text(f"# Tuning\n\n{self}\n\nAll settings: [report.md](report.md)\n")
        return path

    def write_settings(self, path: str | os.PathLike[str]) -> None:
        """Write the choice as a file of settings, which ``promerge ablate --settings`` reads."""
        definition = {"tuned": {"method": self.config.method, **self.config.to_dict()}}
        Path(path).expanduser().write_text(json.dumps(definition, indent=2) + "\n")

    def _figure(self, name: str) -> float:
        return self.ablation.outcomes[name].scores[self.ablation.kind].metrics[self.metric]


def mean_interval(values: NDArray[np.float64], folds: int, confidence: float) -> Estimate:
    """The mean over the folds of a repeated cross-validation, and its interval.

    Folds share images, so their spread alone promises too much; this is the corrected t interval
    of Nadeau and Bengio (2003), for repeated folds as Bouckaert and Frank (2004) take it: the
    variance of the mean is (1 / n + 1 / (folds - 1)) times that of the n values.

    Args:
        values: (n,) figures on the folds.
        folds: of each repeat.
        confidence: in (0, 1).
    """
    mean = float(values.mean())
    if len(values) < 2:
        return Estimate(mean, float("-inf"), float("inf"))
    spread = float(np.sqrt((1 / len(values) + 1 / (folds - 1)) * values.var(ddof=1)))
    half = float(student.ppf((1 + confidence) / 2, len(values) - 1)) * spread
    return Estimate(mean, mean - half, mean + half)
