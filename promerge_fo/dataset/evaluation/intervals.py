"""The uncertainty of metrics that are measured on a sample of images: a bootstrap over images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promerge_fo.dataset.evaluation.coco_metrics import METRICS, RankedPredictions, bootstrap
from promerge_fo.progress import ShowProgress, progress_bar

__all__ = ["draw_resamples", "percentile_interval", "resampled_metrics"]

_COUNTS = 16 << 20  # counts of images that are in memory at once


def resampled_metrics(
    fields: Mapping[str, dict[str, RankedPredictions]],
    images: int,
    resamples: int,
    seed: int,
    progress: ShowProgress = False,
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """The metrics of several fields on the same samples of the images.

    Memory does not grow with the number of samples.

    Args:
        fields: the predictions of each field, from
            :attr:`~promerge_fo.dataset.evaluation.coco_metrics.Scores.ranked`.
        images: the number of images.
        resamples: the number of samples.
        seed: the seed of the bootstrap.
        progress: see :data:`promerge_fo.progress.ShowProgress`; the bar counts images.

    Returns:
        For each field, (resamples,) values of each metric, 0 to 100; NaN if no object was drawn.
    """
    parts: dict[str, list[dict[str, NDArray[np.float64]]]] = {field: [] for field in fields}
    drawn = 0
    with progress_bar(progress, images) as bar:
        for draws in draw_resamples(images, resamples, seed):
            for field, ranked in fields.items():
                parts[field].append(bootstrap(ranked, draws))
            done, drawn = images * drawn // resamples, drawn + len(draws)
            bar.update(images * drawn // resamples - done)
    return {
        field: {
            name: np.concatenate([np.zeros(0), *(part[name] for part in found)]) for name in METRICS
        }
        for field, found in parts.items()
    }


def draw_resamples(images: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Draw samples of the images, each as large as the original, with replacement.

    Yields:
        (b, images) int64: how often each image was drawn into each of the next b samples.
    """
    rng = np.random.default_rng(seed)
    shares = np.full(images, 1 / images)
    at_once = max(1, _COUNTS // images)
    for first in range(0, resamples, at_once):
        yield rng.multinomial(images, shares, size=min(at_once, resamples - first))


def percentile_interval(
    values: NDArray[np.floating[Any]], confidence: float
) -> tuple[float, float]:
    """The percentile interval of a metric (Efron and Tibshirani, 1993).

    Args:
        values: (resamples,) values of the metric on the samples; values that are not finite are
            left out.
        confidence: in (0, 1).

    Returns:
        The lower and the upper end; NaN if there are no values.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
