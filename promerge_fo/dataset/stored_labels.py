"""FiftyOne's labels as the records of COCO's JSON: what exports write and evaluations count."""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import bson
import fiftyone as fo
import fiftyone.core.utils as fou
import numpy as np
from numpy.typing import NDArray

from promerge_fo.annotations.rle import mask_record
from promerge_fo.annotations.untrusted_masks import EntryError, box_of, check_box, crop_of
from promerge_fo.cpus import available_cpus
from promerge_fo.dataset.database import aggregate
from promerge_fo.dataset.labels import pixel_crop, place_of
from promerge_fo.progress import ShowProgress, progress_bar

__all__ = [
    "LARGEST",
    "ImageLabels",
    "StoredLabel",
    "annotation_of",
    "coco_id_field",
    "image_ids",
    "image_size",
    "label_document",
    "read_documents",
    "read_labels",
    "stored_labels",
]

logger = logging.getLogger("fiftyone.promerge")

LARGEST = 12 << 20  # bytes of one image's labels; a document of the database holds 16 MB
_CHUNK = 100  # images whose masks are in memory at once
# NumPy's format, version 1.0, of a 2-D array of bool
_MASK_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '\|b1', 'fortran_order': False, 'shape': \((\d+), (\d+)\), \}",
    re.DOTALL,
)


@dataclass(frozen=True)
class ImageLabels:
    """The labels of one image, as COCO's JSON would have them.

    Attributes:
        sample_id: of the sample.
        number: the image's COCO id.
        size: (height, width) in pixels; None for an image that cannot be read.
        records: of each field, what :func:`annotation_of` gives, and ``score``, 1 where a label
            has no confidence; in stored order, without labels of no pixel.
        ids: of the records' labels.
        places: where these labels stand among all of the field.
        all_ids: of all labels, in stored order.
    """

    sample_id: str
    number: int
    size: tuple[int, int] | None
    records: dict[str, list[dict[str, Any]]]
    ids: dict[str, list[str]]
    places: dict[str, list[int]]
    all_ids: dict[str, list[str]]


def read_labels(
    samples: Any, fields: Sequence[str], progress: ShowProgress = None
) -> Iterator[ImageLabels]:
    """The labels of all samples, in order; those of images that cannot be read have no records.

    Args:
        samples: a dataset or a view of images.
        fields: with detections.
        progress: whether to show a bar (None: as FiftyOne's config says), or what makes one; see
            :data:`promerge_fo.progress.ShowProgress`.
    """
    read = partial(_read_one, fields)
    unreadable = 0
    with ThreadPoolExecutor(available_cpus()) as pool:
        for chunk in fou.iter_batches(read_documents(samples, fields, progress), _CHUNK):
            for labels in pool.map(read, *zip(*chunk, strict=True)):
                unreadable += labels.size is None
                yield labels
    if unreadable:
        logger.warning("%d images cannot be read and were left out", unreadable)


def read_documents(
    samples: Any, fields: Sequence[str], progress: ShowProgress = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The COCO id of each image and its stored document, with the metadata and these fields.

    Building FiftyOne's objects of the documents takes far longer.

    Args:
        samples: a dataset or a view of images.
        fields: what else is wanted.
        progress: whether to show a bar (None: as FiftyOne's config says), or what makes one; see
            :data:`promerge_fo.progress.ShowProgress`.
    """
    numbers = image_ids(samples)
    documents = aggregate(samples.select_fields(["metadata", *fields]))
    with progress_bar(progress, len(numbers)) as bar:
        for pair in zip(numbers, documents, strict=True):
            yield pair
            bar.update(1)


def stored_labels(document: dict[str, Any], field: str) -> list[StoredLabel]:
    """The detections that a stored document has in a field."""
    return [StoredLabel(label) for label in (document.get(field) or {}).get("detections") or []]


def _read_one(fields: Sequence[str], number: int, document: dict[str, Any]) -> ImageLabels:
    size = image_size(document)
    image = ImageLabels(str(document["_id"]), number, size, {}, {}, {}, {})
    for field in fields:
        labels = stored_labels(document, field)
        records = [annotation_of(label, size) if size else None for label in labels]
        image.all_ids[field] = [label.id for label in labels]
        image.places[field] = [i for i, record in enumerate(records) if record is not None]
        image.ids[field] = [labels[i].id for i in image.places[field]]
        image.records[field] = []
        for label, record in zip(labels, records, strict=True):
            if record is not None:
                score = 1.0 if label.confidence is None else label.confidence
                image.records[field].append({**record, "score": score})
    return image


class StoredLabel:
    """A detection as the database holds it; its mask is decoded where it is asked for."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.id = str(document["_id"])
        self.label = document.get("label")
        self.bounding_box: Any = document.get("bounding_box")
        self.confidence = document.get("confidence")
        self.tags = document.get("tags") or []
        self.mask_path = document.get("mask_path")
        attributes = document.get("attributes") or {}
        self.iscrowd = document.get("iscrowd", (attributes.get("iscrowd") or {}).get("value"))
        self.review = document.get("review")
        self._mask = document.get("mask")

    @property
    def mask(self) -> NDArray[Any] | None:
        """The stored array; None for a mask that lies on disk, or none at all."""
        return None if self._mask is None else _decode(self._mask)

    @property
    def has_mask(self) -> bool:
        """Whether there is more than a box."""
        return self._mask is not None or self.mask_path is not None

    def get_mask(self) -> Any:
        """The array of a mask that lies on disk."""
        return fo.Detection(mask_path=self.mask_path).get_mask()


def _decode(stored: bytes) -> NDArray[Any]:
    """A stored array; that of a usual mask without NumPy's parser, which takes longer than all."""
    raw = zlib.decompress(stored)
    header = _MASK_HEADER.match(raw)
    if header is None:
        return np.asarray(fou.deserialize_numpy_array(stored))
    start = 10 + int.from_bytes(raw[8:10], "little")
    shape = int(header[1]), int(header[2])
    return np.frombuffer(raw, np.bool_, offset=start).reshape(shape)


def annotation_of(label: StoredLabel, size: tuple[int, int]) -> dict[str, Any] | None:
    """What COCO's JSON says of one label, without ids.

    Args:
        label: with a mask or with a box alone.
        size: (height, width) of the image in pixels, as it is shown.

    Returns:
        ``segmentation`` (compressed RLE, at the image's size), ``area`` and ``bbox`` (XYWH in
        pixels) of the mask; of a label without one, the box and its area. ``iscrowd`` is the
        label's own, 0 without. None for a mask without a pixel in the image.

    Raises:
        ValueError, FileNotFoundError: as :func:`promerge_fo.dataset.mask_of`.
    """
    crowd = int(bool(label.iscrowd))
    if not label.has_mask:
        x, y, w, h = label.bounding_box
        height, width = size
        box = [x * width, y * height, w * width, h * height]
        return {"iscrowd": crowd, "area": box[2] * box[3], "bbox": box}
    record = mask_record(*pixel_crop(label, size), size)
    return None if record is None else {"iscrowd": crowd, **record}


def image_size(document: dict[str, Any]) -> tuple[int, int] | None:
    """(height, width) of a stored image as it is shown: from its metadata, or else its file.

    Returns:
        None for a file that cannot be read.
    """
    stored = document.get("metadata") or {}
    height, width = stored.get("height"), stored.get("width")
    if not height or not width:
        try:
            metadata = fo.ImageMetadata.build_for(document["filepath"])
        except Exception:  # decoders raise anything on broken files
            return None
        height, width = metadata.height, metadata.width
    return (int(height), int(width)) if height and width else None


def coco_id_field(samples: Any) -> str | None:
    """The field with the images' COCO ids: ``coco_id``, or None.

    FiftyOne's importer puts the name of the labels' field in front (``ground_truth_coco_id``) where
    it was given one; such a field counts where it is the only one.
    """
    names = list(samples.get_field_schema())
    named = [name for name in names if name.endswith("_coco_id")]
    if "coco_id" in names:
        return "coco_id"
    return named[0] if len(named) == 1 else None


def image_ids(samples: Any) -> list[int]:
    """The COCO ids of the images where all are known and differ, else 1, 2, 3, ..."""
    field = coco_id_field(samples)
    ids = samples.values(field) if field is not None else []
    if len(set(ids)) == len(samples) and all(isinstance(i, int) for i in ids):
        return list(ids)
    return list(range(1, len(samples) + 1))


def label_document(
    entry: Mapping[str, Any], size: tuple[int, int], confidence: float | None, label: str
) -> dict[str, Any]:
    """A label as the database holds it: of the mask, or of the box alone where there is none.

    It equals what FiftyOne's objects make of it, which take longer than all the rest.
    """
    segmentation, bbox = entry.get("segmentation"), entry.get("bbox")
    stored = {**_template(), "_id": bson.ObjectId(), "label": label, "confidence": confidence}
    if segmentation is not None and segmentation != []:  # COCO's ways to say that there is none
        if bbox is not None:
            check_box(bbox)
        crop = crop_of(segmentation, size)
        x0, y0 = float(crop.left), float(crop.top)
        x1, y1 = x0 + crop.mask.shape[1], y0 + crop.mask.shape[0]
        area = float(np.count_nonzero(crop.mask))
        stored["mask"] = fou.serialize_numpy_array(crop.mask)
    elif bbox is not None:
        x0, y0, x1, y1 = box_of(bbox, size)
        area = (x1 - x0) * (y1 - y0)
    else:
        raise EntryError("entry", "it has neither segmentation nor bbox")
    height, width = size
    return {**stored, **place_of((x0, y0, x1, y1), size), "area": area / (width * height)}


@cache
def _template() -> dict[str, Any]:
    """A label of FiftyOne's, as the database holds it."""
    return dict(fo.Detection(area=0.0, touches_border=False).to_dict())
