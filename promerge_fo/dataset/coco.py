"""FiftyOne's labels as the records of COCO's JSON: what exports write and evaluations count."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import fiftyone as fo
import fiftyone.core.utils as fou
import numpy as np
from numba import njit
from pycocotools import mask as coco_mask

from promerge_fo.dataset.labels import pixel_crop

__all__ = ["ImageLabels", "annotation_of", "image_ids", "image_size", "read_labels"]

logger = logging.getLogger("fiftyone.promerge")

_CHUNK = 100  # images whose masks are in memory at once


@dataclass(frozen=True)
class ImageLabels:
    """The labels of one image, as COCO's JSON would have them.

    Attributes:
        sample_id: of the sample.
        number: the image's COCO id.
        size: (height, width) in pixels.
        records: of each field, what :func:`annotation_of` gives, and ``score``, 1 where a label
            has no confidence; in stored order, without labels of no pixel.
        ids: of the records' labels.
        places: where these labels stand in the stored order.
        counts: of all stored labels.
    """

    sample_id: str
    number: int
    size: tuple[int, int]
    records: dict[str, list[dict[str, Any]]]
    ids: dict[str, list[str]]
    places: dict[str, list[int]]
    counts: dict[str, int]


def read_labels(
    samples: Any, fields: Sequence[str], progress: bool | None = None
) -> Iterator[ImageLabels | None]:
    """The labels of all samples, in order; of images that cannot be read, None.

    Args:
        samples: a dataset or a view of images.
        fields: with detections.
        progress: whether to show a progress bar; FiftyOne's default if None.
    """
    numbers = image_ids(samples)
    view = samples.select_fields(["metadata", *fields])
    read = partial(_read_one, fields)
    unreadable = 0
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        fou.ProgressBar(total=len(numbers), progress=progress) as bar,
    ):
        for chunk in fou.iter_batches(zip(numbers, view, strict=True), _CHUNK):
            pairs = list(chunk)
            for labels in pool.map(read, *zip(*pairs, strict=True)):
                unreadable += labels is None
                yield labels
            bar.update(len(pairs))
    if unreadable:
        logger.warning("%d images cannot be read and were left out", unreadable)


def _read_one(fields: Sequence[str], number: int, sample: Any) -> ImageLabels | None:
    size = image_size(sample.metadata, sample.filepath)
    if size is None:
        return None
    image = ImageLabels(sample.id, number, size, {}, {}, {}, {})
    for field in fields:
        labels = sample[field].detections if sample[field] is not None else []
        records = [annotation_of(label, size) for label in labels]
        places = [i for i, record in enumerate(records) if record is not None]
        image.counts[field], image.places[field] = len(labels), places
        image.ids[field] = [labels[i].id for i in places]
        image.records[field] = [record for record in records if record is not None]
        for i, record in zip(places, image.records[field], strict=True):
            confidence = labels[i].confidence
            record["score"] = 1.0 if confidence is None else confidence
    return image


def annotation_of(label: fo.Detection, size: tuple[int, int]) -> dict[str, Any] | None:
    """What COCO's JSON says of one label, without ids.

    Args:
        label: a detection, with a mask or with a box alone.
        size: (height, width) of the image in pixels, as it is shown.

    Returns:
        ``segmentation`` (compressed RLE, at the image's size), ``area`` and ``bbox`` (XYWH in
        pixels) of the mask; of a label without one, the box and its area. ``iscrowd`` is the
        label's own, 0 without. None for a mask without a pixel in the image.

    Raises:
        ValueError, FileNotFoundError: as :func:`promerge_fo.dataset.mask_of`.
    """
    crowd = int(bool(_attribute(label, "iscrowd")))
    if label.mask is None and label.mask_path is None:
        x, y, w, h = label.bounding_box
        height, width = size
        box = [x * width, y * height, w * width, h * height]
        return {"iscrowd": crowd, "area": box[2] * box[3], "bbox": box}
    crop, top, left = pixel_crop(label, size)
    counts, area, x0, y0, x1, y1 = _run_lengths(np.ascontiguousarray(crop), top, left, *size)
    if area == 0:
        return None
    rle = coco_mask.frPyObjects({"size": list(size), "counts": counts.tolist()}, *size)
    return {
        "iscrowd": crowd,
        "area": int(area),
        "bbox": [int(x0), int(y0), int(x1 - x0), int(y1 - y0)],
        "segmentation": {"size": list(size), "counts": rle["counts"].decode("ascii")},
    }


def _attribute(label: fo.Detection, name: str) -> Any:
    return label[name] if label.has_field(name) else label.attributes.get(name, None)


@njit(cache=True, nogil=True)
def _run_lengths(crop, top, left, height, width):  # type: ignore[no-untyped-def]
    """Run lengths, column by column, of a mask of which ``crop`` is all that is not empty.

    Returns:
        (k,) int64 lengths, background first; the area; and the tight box, x0, y0, x1, y1.
    """
    counts = np.empty(crop.size + 3, np.int64)
    n, area, end = 0, 0, 0  # end: the pixel after the last one of the foreground
    x0, y0, x1, y1 = width, height, 0, 0
    for x in range(crop.shape[1]):
        for y in range(crop.shape[0]):
            if not crop[y, x]:
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


def image_size(metadata: Any, filepath: str) -> tuple[int, int] | None:
    """(height, width) as the image is shown, from its metadata or its file; None if unreadable."""
    if metadata is None or not metadata.width or not metadata.height:
        try:
            metadata = fo.ImageMetadata.build_for(filepath)
        except Exception:  # decoders raise anything on broken files
            return None
    if not metadata.width or not metadata.height:
        return None
    return int(metadata.height), int(metadata.width)


def image_ids(samples: Any) -> list[int]:
    """The COCO ids of the images where all are known and differ, else 1, 2, 3, ..."""
    ids = samples.values("coco_id") if samples.has_sample_field("coco_id") else []
    if len(set(ids)) == len(samples) and all(isinstance(i, int) for i in ids):
        return list(ids)
    return list(range(1, len(samples) + 1))
