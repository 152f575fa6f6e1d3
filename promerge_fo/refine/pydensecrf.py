"""The dense CRF of the reference implementation, mask by mask, by the ``pydensecrf2`` package."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from promerge_fo.refine.dense_crf import (
    BILATERAL_COMPATIBILITY,
    BILATERAL_DEVIATION,
    COLOUR_DEVIATION,
    ITERATIONS,
    SPATIAL_COMPATIBILITY,
    SPATIAL_DEVIATION,
)

__all__ = ["load_reference", "pydensecrf"]


def load_reference() -> Any:
    """The package's CRF class.

    Raises:
        ImportError: ``pydensecrf2`` is not installed.
    """
    try:
        from pydensecrf.densecrf import DenseCRF2D
    except ImportError as error:
        raise ImportError(
            'refine="pydensecrf" needs the package pydensecrf2, which is not installed: run '
            '`pip install "promerge-fo[crf-reference]"`, which needs a C++ compiler and a Python '
            'before 3.13, or use refine="crf", which needs nothing and gives the same masks faster'
        ) from error
    return DenseCRF2D


def pydensecrf(
    image: NDArray[np.uint8], masks: NDArray[np.bool_], scale: float = 1.0
) -> NDArray[np.bool_]:
    """Fit masks to the edges of the image, as the authors' released code does.

    Args:
        image: (H, W, 3) uint8.
        masks: (n, H, W) bool, n may be 0.
        scale: that the filters' deviations in pixels are multiplied with, over 0.

    Returns:
        (n, H, W) bool.

    Raises:
        ImportError: ``pydensecrf2`` is not installed.
    """
    DenseCRF2D = load_reference()
    image = np.array(image, order="C")  # pydensecrf refuses read-only arrays
    height, width = image.shape[:2]
    refined = np.empty(masks.shape, dtype=bool)
    for i, mask in enumerate(masks):
        scores = np.exp(np.stack([~mask, mask]).astype(np.float32)).reshape(2, -1)
        crf = DenseCRF2D(width, height, 2)
        crf.setUnaryEnergy(-np.log(scores / scores.sum(axis=0)))
        crf.addPairwiseGaussian(sxy=SPATIAL_DEVIATION * scale, compat=SPATIAL_COMPATIBILITY)
        crf.addPairwiseBilateral(
            sxy=BILATERAL_DEVIATION * scale,
            srgb=COLOUR_DEVIATION,
            rgbim=image,
            compat=BILATERAL_COMPATIBILITY,
        )
        marginals = np.asarray(crf.inference(ITERATIONS))
        refined[i] = marginals.argmax(axis=0).reshape(height, width) == 1
    return refined
