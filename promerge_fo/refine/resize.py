# mypy: disable-error-code="untyped-decorator"
"""Resizing masks and filling their holes, for all masks of an image in one call."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from promerge_fo.instances import mask_boxes
from promerge_fo.kernels import kernel
from promerge_fo.kernels.connected import draw, find_components

__all__ = ["fill_holes", "nearest_index", "resize_bicubic", "upsample_nearest"]

_PRECISION = 22  # bits after the point of a bicubic weight: a sum of 8-bit products fits int32


def upsample_nearest(masks: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Every pixel takes the value of the patch that its centre lies in.

    Args:
        masks: (n, h, w) bool, h and w at least 1.
        size: (H, W) in pixels; may also be smaller than (h, w).

    Returns:
        (n, H, W) bool, C-contiguous.
    """
    rows, columns = map(nearest_index, masks.shape[1:], size)
    return np.asarray(masks.take(columns, axis=2).take(rows, axis=1), dtype=bool)


def nearest_index(small: int, large: int) -> NDArray[np.int64]:
    """(large,): for each pixel of a row, which of ``small`` patches its centre lies in."""
    return (2 * np.arange(large, dtype=np.int64) + 1) * small // (2 * large)


def fill_holes(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Set all background that is not 4-connected to the border of the image.

    Equal to ``scipy.ndimage.binary_fill_holes`` mask by mask.

    Args:
        masks: (n, H, W) bool.

    Returns:
        (n, H, W) bool.
    """
    filled = np.array(masks, dtype=bool, order="C")
    for mask, (x0, y0, x1, y1) in zip(filled, mask_boxes(filled), strict=True):
        # With a frame of background around it, the outside is the first component.
        background = find_components(np.pad(~mask[y0:y1, x0:x1], 1, constant_values=True)[None])
        outside = np.zeros((1, y1 - y0 + 2, x1 - x0 + 2), dtype=bool)
        draw(background, np.where(np.arange(len(background.sizes)) == 0, 0, -1), outside)
        mask[y0:y1, x0:x1] = ~outside[0, 1:-1, 1:-1]
    return filled


def resize_bicubic(masks: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Resize masks as Pillow's ``Image.resize`` does by default: bicubic, on 0 and 255, > 127.

    Equal to Pillow in every pixel, if Pillow resizes the rows before the columns (always before
    version 13; since then only if the height does not shrink). It takes the memory of the output,
    and of one row of it for each row of the input.

    Args:
        masks: (n, h, w) bool, h and w at least 1.
        size: (H, W) in pixels, at least 1.

    Returns:
        (n, H, W) bool.
    """
    masks = np.ascontiguousarray(masks)
    resized = np.zeros((len(masks), *size), dtype=bool)
    if masks.shape[1:] == size:
        resized[:] = masks
    else:
        columns = _bicubic_weights(masks.shape[2], size[1])
        rows = _bicubic_weights(masks.shape[1], size[0])
        _resize(masks, mask_boxes(masks), *columns, *rows, resized)
    return resized


def _bicubic_weights(
    small: int, large: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """The weights with which each of ``large`` outputs is a sum of ``small`` inputs.

    The cubic (a = -1/2) spans two inputs on either side, or two outputs if these are larger, is
    cut off at the border, and scaled to a sum of 1; the arithmetic is Pillow's.

    Returns:
        (large,) first input, (large,) one past the last, (large, taps) weights in fixed point.
    """
    scale = small / large
    stretch = max(scale, 1.0)
    centre = (np.arange(large) + 0.5) * scale
    first = np.maximum((centre - 2 * stretch + 0.5).astype(np.int64), 0)
    stop = np.minimum((centre + 2 * stretch + 0.5).astype(np.int64), small)
    taps = first[:, None] + np.arange((stop - first).max())
    x = np.abs((taps - centre[:, None] + 0.5) * (1 / stretch))
    weights = np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2)
    weights[(x >= 2) | (taps >= stop[:, None])] = 0
    weights /= np.add.accumulate(weights, axis=1)[:, -1:]
    fixed = np.trunc(weights * (1 << _PRECISION) + np.copysign(0.5, weights))
    return first, stop, fixed.astype(np.int32)


@kernel
def _resize(
    masks: Any,
    boxes: Any,
    column_first: Any,
    column_stop: Any,
    column_weights: Any,
    row_first: Any,
    row_stop: Any,
    row_weights: Any,
    resized: Any,
) -> None:
    """Rows first, rounded to 8 bits, then columns; only where a mask's box reaches."""
    height, width = resized.shape[1:]
    half = np.int32(1 << (_PRECISION - 1))
    narrow = np.empty((masks.shape[1], width), np.uint8)
    sums = np.empty(width, np.int32)
    count = np.zeros(masks.shape[2] + 1, np.int32)  # set pixels of a row before each pixel
    for i in range(len(masks)):
        x0, y0, x1, y1 = boxes[i]
        left, right = width, 0
        for x in range(width):
            if column_first[x] < x1 and column_stop[x] > x0:
                left, right = min(left, x), x + 1
        for y in range(y0, y1):
            for x in range(masks.shape[2]):
                count[x + 1] = count[x] + masks[i, y, x]
            for x in range(left, right):
                first, taps = column_first[x], column_stop[x] - column_first[x]
                inside = count[first + taps] - count[first]
                if inside == 0 or inside == taps:  # the weights sum to 1: nothing to calculate
                    narrow[y, x] = 255 * (inside > 0)
                    continue
                total = half
                for tap in range(taps):
                    if masks[i, y, first + tap]:
                        total += np.int32(255) * column_weights[x, tap]
                narrow[y, x] = min(max(total >> _PRECISION, 0), 255)
        for y in range(height):
            sums[left:right] = half
            for row in range(max(row_first[y], y0), min(row_stop[y], y1)):
                weight = row_weights[y, row - row_first[y]]
                for x in range(left, right):
                    sums[x] += weight * np.int32(narrow[row, x])
            for x in range(left, right):
                resized[i, y, x] = (sums[x] >> _PRECISION) > 127
