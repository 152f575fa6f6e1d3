"""Plots of an ablation."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from promerge_fo.config import Config
from promerge_fo.dataset.evaluation.coco_metrics import IouType
from promerge_fo.dataset.experiments.outcome import Outcome
from promerge_fo.dataset.experiments.settings import changes_between
from promerge_fo.figures import save

__all__ = ["plot_settings", "plot_sweeps", "plot_times"]


class Measured(Protocol):
    """What an :class:`promerge_fo.dataset.Ablation` has to show."""

    @property
    def outcomes(self) -> dict[str, Outcome]: ...

    @property
    def kind(self) -> IouType: ...

    @property
    def images(self) -> int: ...

    @property
    def confidence(self) -> float: ...


def plot_sweeps(ablation: Measured, path: Path) -> bool:
    """AP and AR100 against each parameter that takes several numbers, all else being equal.

    Returns:
        Whether there is such a parameter; nothing is drawn without one.
    """
    from matplotlib.figure import Figure

    panels = {name: lines for name in _numeric(ablation) if (lines := _lines(ablation, name))}
    if not panels:
        return False
    of, sure = ablation.outcomes, ablation.confidence
    figure = Figure(figsize=(4 * len(panels), 5), layout="constrained")
    axes = figure.subplots(2, len(panels), squeeze=False, sharex="col")
    for column, (parameter, lines) in zip(axes.T, panels.items(), strict=True):
        for axis, metric in zip(column, ("AP", "AR100"), strict=True):
            for label, points in lines.items():
                names = [name for _, name in points]
                at = [value for value, _ in points]
                (line,) = axis.plot(at, _values(ablation, names, metric), marker="o", label=label)
                low, high = np.array([of[name].interval(metric, sure) for name in names]).T
                axis.fill_between(at, low, high, alpha=0.12, color=line.get_color())
            axis.grid(alpha=0.3)
            axis.set_ylim(bottom=0)
        column[1].set_xlabel(parameter)
        if len(lines) > 1:
            column[0].legend(fontsize=7)
    for axis, metric in zip(axes[:, 0], ("AP", "AR100"), strict=True):
        axis.set_ylabel(f"{metric}, {sure:.0%} intervals")
    save(figure, path)
    return True


def plot_settings(ablation: Measured, path: Path) -> None:
    """Bars of each setting's AP, with its interval."""
    from matplotlib.figure import Figure

    names = list(ablation.outcomes)
    figure = Figure(figsize=(8, 0.9 + 0.32 * len(names)), layout="constrained")
    axis = figure.subplots()
    values = np.array(_values(ablation, names, "AP"))
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
    """AP against the time of an image, a colour a method.

    Settings of a method that differ in one number alone are a line, with the numbers beside it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis = figure.subplots()
    for method, configs in _by_method(ablation).items():
        labels, title, style = {name: name for name in configs}, method, "none"
        varied = changes_between(configs)
        if len(varied) == 1 and _are_numbers(values := next(iter(varied.values()))):
            parameter = next(iter(varied))
            value_of = dict(zip(configs, values, strict=True))
            labels = {
                name: f"{value_of[name]:g}" for name in sorted(configs, key=lambda n: value_of[n])
            }
            title, style = f"{method}, by {parameter}", "-"
        seconds = [ablation.outcomes[name].image_seconds for name in labels]
        figures = _values(ablation, list(labels), "AP")
        axis.plot(seconds, figures, marker="o", linestyle=style, linewidth=0.8, label=title)
        for label, x, y in zip(labels.values(), seconds, figures, strict=True):
            axis.annotate(label, (x, y), (4, 3), textcoords="offset points", fontsize=7)
    axis.set(xlabel="seconds an image (median, one thread)", ylabel="AP")
    axis.set_xlim(left=0)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend()
    save(figure, path)


def _values(ablation: Measured, names: list[str], metric: str) -> list[float]:
    return [ablation.outcomes[name].scores[ablation.kind].metrics[metric] for name in names]


def _lines(ablation: Measured, parameter: str) -> dict[str, list[tuple[float, str]]]:
    """Settings that differ in this parameter alone: of each such line the values and names."""
    configs = {name: outcome.config for name, outcome in ablation.outcomes.items()}
    having = {name: c for name, c in configs.items() if hasattr(c, parameter)}
    others = changes_between(having)
    values = others.pop(parameter)
    lines: dict[tuple[Any, ...], dict[float, str]] = defaultdict(dict)
    for name, value, *rest in zip(having, values, *others.values(), strict=True):
        lines[tuple(rest)][value] = name
    return {
        ", ".join(f"{other}={v}" for other, v in zip(others, rest, strict=True)): sorted(
            points.items()
        )
        for rest, points in lines.items()
        if len(points) > 1
    }


def _numeric(ablation: Measured) -> list[str]:
    """Parameters of which some method's settings have several numbers."""
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
