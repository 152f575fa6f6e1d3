"""Plots of a comparison of fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from promerge_fo.dataset.evaluation.coco_metrics import RECALLS, Scores
from promerge_fo.figures import draw_masks, save

__all__ = ["plot_curves", "plot_gains", "plot_metrics", "plot_side_by_side"]

_METRICS = ("AP", "AP50", "AP75", "AR1", "AR10", "AR100")
_IOUS = {0: "0.50", 5: "0.75"}  # rows of Scores.precision


def plot_metrics(
    scores: Mapping[str, Scores],
    interval: Callable[[str, str], tuple[float, float]],
    confidence: float,
    path: Path,
) -> None:
    """Bars of the main metrics of each field, with intervals.

    Args:
        scores: the scores of each field.
        interval: returns the interval of a field's metric, given the names of both.
        confidence: the confidence of the intervals, in (0, 1).
        path: where to save the figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axis = figure.subplots()
    width = 0.8 / len(scores)
    for k, (field, score) in enumerate(scores.items()):
        values = np.array([score.metrics[name] for name in _METRICS])
        bounds = np.array([interval(field, name) for name in _METRICS]).T
        errors = np.clip(np.abs(bounds - values), 0, None)
        positions = np.arange(len(_METRICS)) + (k - (len(scores) - 1) / 2) * width
        axis.bar(positions, values, width, yerr=errors, capsize=3, label=field)
    axis.set_xticks(range(len(_METRICS)), _METRICS)
    axis.set_ylim(bottom=0)
    axis.set_ylabel(f"{confidence:.0%} intervals over images")
    axis.legend()
    save(figure, path)


def plot_curves(scores: Mapping[str, Scores], path: Path) -> None:
    """Precision against recall, one line for each field."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.5), layout="constrained")
    for axis, (row, iou) in zip(figure.subplots(1, 2, sharey=True), _IOUS.items(), strict=True):
        for field, score in scores.items():
            axis.plot(RECALLS, score.precision[row], label=field)
        axis.set(title=f"IoU {iou}", xlabel="recall", xlim=(0, 1), ylim=(0, 1))
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel("precision")
    figure.axes[0].legend()
    save(figure, path)


def plot_gains(recalls: Mapping[str, NDArray[np.float64]], path: Path) -> None:
    """The recall of each image with one field against that with another.

    Args:
        recalls: (images,) recalls of two fields, the baseline first.
        path: where to save the figure.
    """
    from matplotlib.figure import Figure

    (baseline, before), (field, after) = recalls.items()
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    scatter, bars = figure.subplots(1, 2)
    scatter.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    scatter.scatter(before, after, s=12, alpha=0.5)
    scatter.set(xlabel=f"recall, {baseline}", ylabel=f"recall, {field}", aspect="equal")
    gains = (after - before)[np.isfinite(after - before)]
    bars.hist(gains, bins=np.linspace(-1, 1, 41))
    bars.axvline(0, color="0.3", linewidth=1)
    bars.set(xlabel=f"gain in recall, {field} over {baseline}", ylabel="images")
    save(figure, path)


def plot_side_by_side(
    rows: Sequence[tuple[NDArray[np.uint8], Sequence[NDArray[np.bool_]]]],
    titles: Sequence[str],
    path: Path,
) -> None:
    """Images with the masks of several fields: a row for each image, a column for each field.

    Args:
        rows: for each image its pixels, (H, W, 3), and the masks of each field, (n, H, W).
        titles: the titles of the columns.
        path: where to save the figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(titles), 2.4 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), len(titles), squeeze=False)
    for line, (pixels, fields) in zip(axes, rows, strict=True):
        for axis, masks in zip(line, fields, strict=True):
            axis.imshow(draw_masks(pixels, masks))
            axis.set_axis_off()
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    save(figure, path)
