"""Plots of an ablation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from promerge_fo.config import Config
from promerge_fo.dataset.evaluation.matching import IouType
from promerge_fo.dataset.experiments.outcome import Outcome
from promerge_fo.dataset.experiments.settings import changes_between
from promerge_fo.figures import save

__all__ = ["plot_settings", "plot_sweeps", "plot_times"]


class Measured(Protocol):
    """The attributes of :class:`promerge_fo.dataset.Ablation` that are plotted."""

    @property
    def outcomes(self) -> dict[str, Outcome]: ...

    @property
    def kind(self) -> IouType: ...

    @property
    def images(self) -> int: ...

    @property
    def confidence(self) -> float: ...


def plot_sweeps(ablation: Measured, path: Path) -> bool:
    """Plot AP and AR100 against each parameter that has several values, all else being equal.

    Returns:
        Whether there is such a parameter; without one, no plot is saved.
    """
    from matplotlib.figure import Figure

    panels = {
        name: lines for name in _varied_numbers(ablation) if (lines := _lines(ablation, name))
    }
    if not panels:
        return False
    outcomes, confidence = ablation.outcomes, ablation.confidence
    figure = Figure(figsize=(4 * len(panels), 5), layout="constrained")
    axes = figure.subplots(2, len(panels), squeeze=False, sharex="col")
    for column, (parameter, lines) in zip(axes.T, panels.items(), strict=True):
        for axis, metric in zip(column, ("AP", "AR100"), strict=True):
            for label, points in lines.items():
                x, names = zip(*points, strict=True)
                (line,) = axis.plot(x, _metrics(ablation, names, metric), marker="o", label=label)
                intervals = [outcomes[name].interval(metric, confidence) for name in names]
                low, high = np.array(intervals).T
                axis.fill_between(x, low, high, alpha=0.12, color=line.get_color())
            axis.grid(alpha=0.3)
            axis.set_ylim(bottom=0)
        column[1].set_xlabel(parameter)
        if len(lines) > 1:
            column[0].legend(fontsize=7)
    for axis, metric in zip(axes[:, 0], ("AP", "AR100"), strict=True):
        axis.set_ylabel(f"{metric}, {confidence:.0%} intervals")
    save(figure, path)
    return True


def plot_settings(ablation: Measured, path: Path) -> None:
    """Plot the AP of each setting as a bar with its interval."""
    from matplotlib.figure import Figure

    names = list(ablation.outcomes)
    figure = Figure(figsize=(8, 0.9 + 0.32 * len(names)), layout="constrained")
    axis = figure.subplots()
    values = np.array(_metrics(ablation, names, "AP"))
    bounds = np.array(
        [ablation.outcomes[name].interval("AP", ablation.confidence) for name in names]
    ).T
    axis.barh(names, values, xerr=np.clip(np.abs(bounds - values), 0, None), capsize=3)
    axis.invert_yaxis()
    axis.set_xlim(left=0)
    axis.set_xlabel(f"AP, {ablation.confidence:.0%} intervals over {ablation.images} images")
    axis.grid(axis="x", alpha=0.3)
    save(figure, path)


def plot_times(ablation: Measured, path: Path) -> None:
    """Plot AP against the time for an image, with one colour for each method.

    If the settings of a method differ in one number only, they are joined by a line, and labelled
    with that number.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    for method, configs in _by_method(ablation).items():
        labels, title, style = {name: name for name in configs}, method, "none"
        varied = changes_between(configs)
        if len(varied) == 1 and _are_numbers(values := next(iter(varied.values()))):
            (parameter,) = varied
            value_of = dict(zip(configs, values, strict=True))
            labels = {
                name: f"{value_of[name]:g}" for name in sorted(configs, key=lambda n: value_of[n])
            }
            title, style = f"{method}, by {parameter}", "-"
        seconds = [ablation.outcomes[name].image_seconds for name in labels]
        aps = _metrics(ablation, list(labels), "AP")
        axis.plot(seconds, aps, marker="o", linestyle=style, linewidth=0.8, label=title)
        for label, x, y in zip(labels.values(), seconds, aps, strict=True):
            axis.annotate(label, (x, y), (4, 3), textcoords="offset points", fontsize=7)
    axis.set(xlabel="seconds an image (median, one thread)", ylabel="AP")
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend()
    save(figure, path)


def _metrics(ablation: Measured, names: Sequence[str], metric: str) -> list[float]:
    """The values of a metric with some settings."""
    return [ablation.outcomes[name].scores[ablation.kind].metrics[metric] for name in names]


def _lines(ablation: Measured, parameter: str) -> dict[str, list[tuple[float, str]]]:
    """Groups of settings that differ in one parameter only, as lines of a plot.

    Returns:
        For each group its label, made of the other parameters, and its points: the values of the
        parameter and the names of the settings, by rising value.
    """
    configs = {
        name: outcome.config
        for name, outcome in ablation.outcomes.items()
        if hasattr(outcome.config, parameter)
    }
    others = changes_between(configs)
    values = others.pop(parameter)
    lines: dict[tuple[Any, ...], dict[float, str]] = defaultdict(dict)
    for name, value, *rest in zip(configs, values, *others.values(), strict=True):
        lines[tuple(rest)][value] = name
    return {
        ", ".join(f"{other}={v}" for other, v in zip(others, rest, strict=True)): sorted(
            points.items()
        )
        for rest, points in lines.items()
        if len(points) > 1
    }


def _varied_numbers(ablation: Measured) -> list[str]:
    """The numeric parameters in which the settings of a method differ."""
    varied = [changes_between(settings) for settings in _by_method(ablation).values()]
    return [name for changes in varied for name, values in changes.items() if _are_numbers(values)]


def _are_numbers(values: list[Any]) -> bool:
    return all(type(value) in (int, float) for value in values)


def _by_method(ablation: Measured) -> dict[str, dict[str, Config]]:
    """The settings of each method."""
    methods: dict[str, dict[str, Config]] = defaultdict(dict)
    for name, outcome in ablation.outcomes.items():
        methods[outcome.config.method][name] = outcome.config
    return methods
