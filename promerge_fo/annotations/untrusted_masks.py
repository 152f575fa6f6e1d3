"""Decode masks from files of unknown origin, and check them against the image first.

pycocotools' decoder does not check its input: if the counts do not add up to the size, it writes
outside of its memory. So this module decodes run lengths by compiled code of its own, which checks
them against the real size of the image and never takes more memory than the image has pixels.
pycocotools only draws polygons, after their number and extent are checked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from promerge_fo.kernels import kernel

__all__ = ["Crop", "EntryError", "box_of", "check_box", "crop_of", "number"]

_MAX_POLYGONS = 4096  # of one mask
_MAX_OUTLINE = 64  # total length of a mask's polygons, as a multiple of the image's height + width


class EntryError(ValueError):
    """Raised when an entry of a file is not valid; the message is the reason.

    Attributes:
        what: the kind of fault in one word, such as "bbox", by which invalid entries are counted.
    """

    def __init__(self, what: str, message: str) -> None:
        super().__init__(message)
        self.what = what


class Crop(NamedTuple):
    """A mask, cut to its tight box.

    Attributes:
        mask: (h, w) bool, the pixels of the box.
        top: the first row of the box in the image.
        left: the first column of the box in the image.
    """

    mask: NDArray[np.bool_]
    top: int
    left: int


def number(value: Any) -> float | None:
    """A value from JSON as a float, if it is a finite number; else None."""
    if type(value) not in (int, float):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def check_box(value: object) -> tuple[float, float, float, float]:
    """Check a box from JSON: four finite numbers XYWH, with a size that is not negative.

    Raises:
        EntryError: the value is something else.
    """
    numbers = [number(part) for part in value] if isinstance(value, list) else []
    found = [part for part in numbers if part is not None]
    if len(numbers) != 4 or len(found) != 4:
        raise EntryError("bbox", "its bbox is not four finite numbers")
    x, y, w, h = found
    if w < 0 or h < 0:
        raise EntryError("bbox", f"its bbox has the width {w:g} and the height {h:g}")
    return x, y, w, h


def box_of(value: object, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Check a box from JSON, and cut it at the edges of the image.

    Args:
        value: XYWH in pixels, from JSON.
        size: (height, width) of the image in pixels.

    Returns:
        ``x0, y0, x1, y1`` in pixels.

    Raises:
        EntryError: the value is not a box, or the box lies outside of the image.
    """
    x, y, w, h = check_box(value)
    height, width = size
    x0, y0, x1, y1 = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
    if x1 <= x0 or y1 <= y0:
        raise EntryError("bbox", f"its bbox covers nothing of the image ({width} x {height})")
    return x0, y0, x1, y1


def crop_of(segmentation: object, size: tuple[int, int]) -> Crop:
    """Decode and check a mask from JSON.

    Args:
        segmentation: RLE, an object with ``size`` and ``counts`` (compressed as text, or a list of
            numbers); or a list of polygons.
        size: (height, width) of the image in pixels.

    Raises:
        EntryError: the value is neither of these, does not fit the image, or has no pixel.
    """
    if isinstance(segmentation, dict):
        runs = _runs_of_rle(segmentation, size)
    elif isinstance(segmentation, list):
        runs = _runs_of_polygons(segmentation, size)
    else:
        raise EntryError("segmentation", "its segmentation is neither RLE nor polygons")
    area, x0, y0, x1, y1 = _extent(runs, *size)
    if area == 0:
        raise EntryError("empty", "its mask has no pixel")
    return Crop(_paint(runs, size[0], x0, y0, x1, y1), int(y0), int(x0))


def _runs_of_rle(rle: dict[str, Any], size: tuple[int, int]) -> NDArray[np.int64]:
    """The run lengths of an RLE, after checking that none is negative and that they add up."""
    given = rle.get("size")
    if not (isinstance(given, list) and [type(n) for n in given] == [int, int]):
        raise EntryError("size", "the size of its segmentation is not [height, width]")
    height, width = size
    if given != [height, width]:
        raise EntryError(
            "size",
            f"its segmentation is of an image of {given[1]!a:.20} x {given[0]!a:.20} pixels (width "
            f"x height), but its image has {width} x {height}",
        )
    counts, pixels = rle.get("counts"), height * width
    if isinstance(counts, list):
        return _uncompressed_runs(counts, pixels)
    if not isinstance(counts, str):
        raise EntryError("counts", "the counts of its segmentation are neither text nor a list")
    if not counts.isascii():
        raise EntryError("counts", "its counts are no compressed RLE")
    runs, total, fault = _decode(np.frombuffer(counts.encode("ascii"), dtype=np.uint8), pixels)
    if fault:
        raise EntryError("counts", f"its counts {_FAULTS[fault]}".format(pixels=pixels))
    return _require_total(runs, int(total), pixels)


def _uncompressed_runs(counts: list[Any], pixels: int) -> NDArray[np.int64]:
    if not all(type(count) is int and 0 <= count <= pixels for count in counts):
        raise EntryError("counts", f"its counts are not all whole numbers from 0 to {pixels}")
    return _require_total(np.array(counts, dtype=np.int64), sum(counts), pixels)


def _require_total(runs: NDArray[np.int64], total: int, pixels: int) -> NDArray[np.int64]:
    if total != pixels:
        raise EntryError(
            "counts", f"its counts add up to {total} pixels, but its image has {pixels}"
        )
    return runs


_FAULTS = {
    1: "have a character that compressed RLE does not have",
    2: "break off within a number",
    3: "have a negative run",
    4: "go beyond the {pixels} pixels of its image",
}


@kernel
def _decode(text, pixels):  # type: ignore[no-untyped-def]
    """The run lengths of COCO's compressed RLE.

    Each character carries six bits: five bits of a number, the lowest five first, and a bit that
    says whether the number goes on. The highest of a number's last five bits is its sign. From the
    fourth number on, it is the difference to the run two places before.

    Args:
        text: (n,) uint8, the characters.
        pixels: the number of pixels in the image, which the sum of the runs must not exceed.

    Returns:
        (k,) int64, the runs; their sum; and 0, or a key of ``_FAULTS`` if the text is not valid.
    """
    runs = np.empty(text.size, np.int64)
    k, total, at = 0, np.int64(0), 0
    while at < text.size:
        value, bits, more = np.int64(0), 0, True
        while more:
            if at == text.size:
                return runs[:k], total, 2
            character = np.int64(text[at]) - 48
            if character < 0 or character > 63:
                return runs[:k], total, 1
            if bits > 50:
                return runs[:k], total, 4
            value |= (character & 31) << bits
            bits += 5
            more = (character & 32) != 0
            if not more and (character & 16) != 0:
                value -= np.int64(1) << bits
            at += 1
        if k > 2:
            value += runs[k - 2]
        if value < 0:
            return runs[:k], total, 3
        total += value
        if total > pixels:
            return runs[:k], total, 4
        runs[k] = value
        k += 1
    return runs[:k], total, 0


def _runs_of_polygons(polygons: list[Any], size: tuple[int, int]) -> NDArray[np.int64]:
    """The run lengths of a mask that is drawn from polygons, after checking these."""
    if not polygons or len(polygons) > _MAX_POLYGONS:
        raise EntryError(
            "polygons",
            f"it has {len(polygons):,} polygons, and 1 to {_MAX_POLYGONS:,} can be drawn",
        )
    outline = 0.0
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise EntryError("polygons", "a polygon is not a list of three or more points")
        if any(number(part) is None for part in polygon):
            raise EntryError("polygons", "a polygon has something other than finite numbers")
        outline += _outline(polygon, size)
    if outline > _MAX_OUTLINE * sum(size):
        raise EntryError(
            "polygons", f"its polygons are {outline:.3g} pixels long, which is no shape"
        )
    merged = coco_mask.merge(coco_mask.frPyObjects(polygons, *size))
    runs, _, _ = _decode(np.frombuffer(merged["counts"], dtype=np.uint8), size[0] * size[1])
    return np.asarray(runs)


def _outline(polygon: Sequence[float], size: tuple[int, int]) -> float:
    """The length of a polygon in pixels, after checking that no point is far from the image."""
    height, width = size
    points = np.array(polygon, dtype=np.float64).reshape(-1, 2)
    margin = max(height, width)
    if (points < -margin).any() or (points > np.array([width, height]) + margin).any():
        raise EntryError("polygons", f"a polygon leaves its image ({width} x {height}) far behind")
    steps = np.abs(points - np.roll(points, 1, axis=0))
    return float(steps.max(axis=1).sum())


@kernel
def _extent(runs, height, width):  # type: ignore[no-untyped-def]
    """The number of foreground pixels and their tight box: area, x0, y0, x1, y1."""
    area, start = 0, 0
    x0, y0, x1, y1 = width, height, 0, 0
    for k in range(runs.size):
        length = runs[k]
        if k % 2 == 1 and length > 0:
            last = start + length - 1
            first_column, last_column = start // height, last // height
            x0, x1 = min(x0, first_column), max(x1, last_column + 1)
            if first_column == last_column:
                y0, y1 = min(y0, start % height), max(y1, last % height + 1)
            else:
                y0, y1 = 0, height
            area += length
        start += length
    return area, x0, y0, x1, y1


@kernel
def _paint(runs, height, x0, y0, x1, y1):  # type: ignore[no-untyped-def]
    """The foreground in its tight box, (y1 - y0, x1 - x0) bool."""
    crop = np.zeros((y1 - y0, x1 - x0), np.bool_)
    start = 0
    for k in range(runs.size):
        end = start + runs[k]
        if k % 2 == 1:
            pixel = start
            while pixel < end:
                column = pixel // height
                stop = min(end, (column + 1) * height)
                crop[pixel - column * height - y0 : stop - column * height - y0, column - x0] = True
                pixel = stop
        start = end
    return crop
