"""Patch masks to pixel masks: enlarge, dense CRF, fill holes, check, resize (Sec. 4.1)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from promerge_fo.config import ProMergeConfig, Refine
from promerge_fo.instances import Refined
from promerge_fo.refine import dense_crf, pydensecrf
from promerge_fo.refine.resize import fill_holes, resize_bicubic, upsample_nearest

__all__ = ["crf_size", "refine_masks", "refine_resized"]

_DEFAULT = ProMergeConfig()


def refine_masks(
    image: NDArray[np.uint8], masks: NDArray[np.bool_], config: ProMergeConfig = _DEFAULT
) -> Refined:
    """Refine the patch masks of an image to masks of its pixels.

    The masks are enlarged to ``config.image_size`` pixels and snapped to the edges of the image
    there by a fully connected CRF (Krähenbühl and Koltun, 2011), their holes are filled, masks
    that agree too little with what they were are dropped, and the others take the image's size.

    Args:
        image: (H, W, 3) uint8, RGB, at any size.
        masks: (n, h, w) bool patches that cover the whole image; n may be 0.
        config: ``image_size``, ``refine``, ``fill_holes`` and ``min_refined_iou`` matter. With
            ``refine="none"`` the patches are only enlarged.

    Returns:
        Masks (m, H, W) at the image's size, their indices into ``masks``, and their agreement:
        the IoU before and after refinement, at the CRF's size. Empty masks are never among them.

    Raises:
        TypeError: an image or masks of another type.
        ValueError: an image or masks of another shape.
        ImportError: ``refine="pydensecrf"`` without the package ``pydensecrf2``.

    Examples:
        >>> image = np.full((90, 120, 3), 255, dtype=np.uint8)
        >>> image[20:70, 30:95] = [200, 30, 30]
        >>> patches = np.zeros((1, 12, 12), dtype=bool)
        >>> patches[0, 3:9, 3:9] = True  # rows 22 to 67, columns 30 to 90
        >>> refined = refine_masks(image, patches)
        >>> refined.masks.shape, refined.kept.tolist()
        ((1, 90, 120), [0])
        >>> bool((refined.masks[0] == (image[..., 1] == 30)).mean() > 0.98)
        True
    """
    _check_image(image)
    return refine_resized(image, masks, (image.shape[0], image.shape[1]), config)


def refine_resized(
    resized: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    size: tuple[int, int],
    config: ProMergeConfig = _DEFAULT,
) -> Refined:
    """Like :func:`refine_masks`, with an image that was made smaller before.

    Args:
        resized: (H', W', 3) uint8, RGB; best at :func:`crf_size`, else it is resized to that.
        masks: (n, h, w) bool patches.
        size: (H, W) of the image, in pixels: the size of the masks that are returned.
        config: as for :func:`refine_masks`.

    Returns:
        As :func:`refine_masks`.

    Raises:
        TypeError, ValueError, ImportError: as :func:`refine_masks`.
    """
    _check_image(resized)
    _check_masks(masks)
    size = (int(size[0]), int(size[1]))
    if min(size) < 1:
        raise ValueError(f"size is {size}, but must be the image's (height, width), at least 1")
    if config.refine is Refine.NONE:
        enlarged = upsample_nearest(masks, size)
        return _non_empty(enlarged, np.arange(len(masks)), np.ones(len(masks), np.float32))

    height, width = crf_size((masks.shape[1], masks.shape[2]), config)
    if resized.shape[:2] != (height, width):
        lanczos = Image.Resampling.LANCZOS
        resized = np.asarray(Image.fromarray(resized).resize((width, height), lanczos))
    before = upsample_nearest(masks, (height, width))
    if config.refine is Refine.CRF:
        after = dense_crf.dense_crf(resized, before)
    else:
        after = pydensecrf.pydensecrf(resized, before)
    if config.fill_holes:
        after = fill_holes(after)
    agreement = _iou(before, after)
    kept = np.flatnonzero(agreement >= config.min_refined_iou)
    return _non_empty(resize_bicubic(after[kept], size), kept, agreement[kept])


def crf_size(grid: tuple[int, int], config: ProMergeConfig = _DEFAULT) -> tuple[int, int]:
    """The size at which the CRF works for a grid of patches.

    Args:
        grid: (h, w) patches.
        config: ``image_size`` matters.

    Returns:
        (height, width) in pixels: ``image_size`` squared for a square grid; else the grid's
        shape with as many pixels, up to rounding.

    Examples:
        >>> crf_size((60, 60)), crf_size((45, 80))
        ((480, 480), (360, 640))
    """
    scale = config.image_size / math.sqrt(grid[0] * grid[1])
    return max(round(grid[0] * scale), 1), max(round(grid[1] * scale), 1)


def _iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(n,) IoU of masks (n, H, W) pairwise; 0 for two empty masks."""
    pairs = list(zip(a, b, strict=True))
    common = np.array([np.count_nonzero(x & y) for x, y in pairs], dtype=np.float64)
    either = np.array([np.count_nonzero(x | y) for x, y in pairs], dtype=np.float64)
    return (common / np.maximum(either, 1.0)).astype(np.float32)


def _non_empty(
    masks: NDArray[np.bool_], kept: NDArray[np.int64], agreement: NDArray[np.float32]
) -> Refined:
    some = masks.any(axis=(1, 2))
    if not some.all():
        masks, kept, agreement = masks[some], kept[some], agreement[some]
    return Refined(masks, kept, agreement)


def _check_image(image: Any) -> None:
    how = "np.asarray(PIL.Image.open(path).convert('RGB')) gives one"
    wanted = f"a uint8 array (H, W, 3), RGB, with H and W at least 1; {how}"
    if not isinstance(image, np.ndarray):
        raise TypeError(f"the image is of type {type(image).__name__}, but must be {wanted}")
    if image.dtype != np.uint8:
        raise TypeError(f"the image is {image.dtype} {image.shape}, but must be {wanted}")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"the image has the shape {image.shape}, but must be {wanted}")


def _check_masks(masks: Any) -> None:
    wanted = "a boolean array (n, h, w) of patches, with h and w at least 1"
    if not isinstance(masks, np.ndarray):
        raise TypeError(
            f"the masks are of type {type(masks).__name__}, but must be {wanted}; "
            "np.asarray(masks, dtype=bool) makes one of lists and tensors"
        )
    if masks.dtype != np.bool_:
        raise TypeError(
            f"the masks are {masks.dtype} {masks.shape}, but must be {wanted}: "
            "use masks.astype(bool)"
        )
    if masks.ndim != 3 or 0 in masks.shape[1:]:
        raise ValueError(
            f"the masks have the shape {masks.shape}, but must be {wanted}; "
            "for a single mask use masks[None]"
        )
