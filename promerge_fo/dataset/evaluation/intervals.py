"""The uncertainty of metrics that are measured on a sample of images: a bootstrap over images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["draw_resamples", "percentile_interval"]


def draw_resamples(images: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """Draw samples of the images, each as large as the original, with replacement.

    Returns:
        (resamples, images) int64: how often each image was drawn into each sample.
    """
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), size=resamples)


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
