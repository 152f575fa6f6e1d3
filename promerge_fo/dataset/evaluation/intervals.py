"""How sure figures are that are taken on a sample of images: the bootstrap over images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["draw_images", "interval"]


def draw_images(images: int, resamples: int, seed: int) -> NDArray[np.int64]:
    """(resamples, images): how often each image is in each sample, drawn with replacement."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), size=resamples)


def interval(values: NDArray[np.floating[Any]], confidence: float) -> tuple[float, float]:
    """The percentile interval of a figure's values on the samples (Efron and Tibshirani, 1993).

    Args:
        values: (resamples,); those that are not finite do not count.
        confidence: in (0, 1).

    Returns:
        Its ends; NaN without values.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
