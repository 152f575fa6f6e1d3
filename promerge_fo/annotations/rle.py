"""Convert masks to the records of COCO's JSON: compressed RLE, area and box."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from promerge_fo.instances import Instances
from promerge_fo.kernels import kernel

__all__ = ["mask_record", "records_of"]


def records_of(instances: Instances) -> list[dict[str, Any]]:
    """Convert the masks of one image to records of COCO's JSON, except masks without a pixel.

    Args:
        instances: masks at the image's own size.

    Returns:
        One dictionary per mask: what :func:`mask_record` returns, ``iscrowd`` (0) and ``score``.
    """
    height, width = instances.masks.shape[1:]
    records = []
    for mask, (x0, y0, x1, y1), score in zip(
        instances.masks, instances.boxes.tolist(), instances.scores, strict=True
    ):
        record = mask_record(mask[y0:y1, x0:x1], y0, x0, (height, width))
        if record is not None:
            records.append({"iscrowd": 0, **record, "score": float(score)})
    return records


def mask_record(
    crop: NDArray[np.bool_], top: int, left: int, size: tuple[int, int]
) -> dict[str, Any] | None:
    """Convert one mask to a record of COCO's JSON.

    Args:
        crop: (h, w) bool, a part of the image that contains the whole mask.
        top: the first row of this part in the image.
        left: the first column of this part in the image.
        size: (height, width) of the image in pixels.

    Returns:
        A dictionary with ``segmentation`` (compressed RLE at the image's size, ``counts`` as text),
        ``area`` in pixels and the tight ``bbox`` (XYWH in pixels); None for a mask without a pixel.

    Examples:
        >>> mask_record(np.ones((1, 2), dtype=bool), 0, 1, (2, 4))
        {'area': 2, 'bbox': [1, 0, 2, 1], 'segmentation': {'size': [2, 4], 'counts': '21102'}}
    """
    counts, area, x0, y0, x1, y1 = _run_lengths(np.ascontiguousarray(crop.T), top, left, *size)
    if area == 0:
        return None
    rle = coco_mask.frPyObjects({"size": list(size), "counts": counts.tolist()}, *size)
    return {
        "area": int(area),
        "bbox": [int(x0), int(y0), int(x1 - x0), int(y1 - y0)],
        "segmentation": {"size": list(size), "counts": rle["counts"].decode("ascii")},
    }


@kernel
def _run_lengths(columns, top, left, height, width):  # type: ignore[no-untyped-def]
    """The run lengths, column by column, of a mask that is empty outside of a part of the image.

    Args:
        columns: (w, h) bool, that part of the mask, transposed.
        top: the first row of the part in the image.
        left: the first column of the part in the image.
        height: of the image in pixels.
        width: of the image in pixels.

    Returns:
        (k,) int64 lengths, background first; the area; and the tight box, x0, y0, x1, y1.
    """
    # a column of h pixels has at most (h + 1) // 2 runs of foreground, each after one of background
    counts = np.empty(columns.shape[0] * (columns.shape[1] + 1) + 1, np.int64)
    n, area, end = 0, 0, 0  # end: the pixel after the last one of the foreground
    x0, y0, x1, y1 = width, height, 0, 0
    for x in range(columns.shape[0]):
        for y in range(columns.shape[1]):
            if not columns[x, y]:
                continue
            pixel = (left + x) * height + top + y
            if n > 0 and pixel == end:
                counts[n - 1] += 1
            else:
                counts[n], counts[n + 1] = pixel - end, 1
                n += 2
            end = pixel + 1
            area += 1
            x0, x1 = min(x0, left + x), max(x1, left + x + 1)
            y0, y1 = min(y0, top + y), max(y1, top + y + 1)
    if end < height * width:
        counts[n] = height * width - end
        n += 1
    return counts[:n], area, x0, y0, x1, y1
