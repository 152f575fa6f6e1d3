"""Labels as the database stores them: read quickly as records of COCO's JSON, and made quickly."""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Any

import bson
import fiftyone as fo
import fiftyone.core.utils as fou
import numpy as np
from numpy.typing import NDArray

from promerge_fo.annotations.rle import mask_record
from promerge_fo.annotations.untrusted_masks import EntryError, box_of, check_box, crop_of
from promerge_fo.dataset.database import aggregate
from promerge_fo.dataset.faults import Fault, Faults, check_label
from promerge_fo.dataset.labels import mask_of, pixel_crop, place_of
from promerge_fo.dataset.sizes import image_size
from promerge_fo.images import ImageError
from promerge_fo.machine import available_cpus
from promerge_fo.progress import ShowProgress, progress_bar

__all__ = [
    "LARGEST",
    "ImageLabels",
    "StoredLabel",
    "annotation_of",
    "coco_id_field",
    "image_ids",
    "label_document",
    "read_documents",
    "read_labels",
    "stored_labels",
    "usable_masks",
    "warn_of_unreadable",
]

logger = logging.getLogger("fiftyone.promerge")

LARGEST = 12 << 20  #: bytes that the labels of one image may take; MongoDB's documents hold 16 MB
_NAMED = 10  # images that cannot be read, in the log
_CHUNK = 100  # images whose masks are in memory at once
# the header of NumPy's file format, version 1.0, for a 2-D array of bool
_MASK_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '\|b1', 'fortran_order': False, 'shape': \((\d+), (\d+)\), \}",
    re.DOTALL,
)


@dataclass(frozen=True)
class ImageLabels:
    """The labels of one image, as records of COCO's JSON. Every dictionary has the fields as keys.

    Attributes:
        sample_id: the id of the sample.
        number: the COCO id of the image.
        size: (height, width) in pixels; None if the image cannot be read.
        records: for each label that covers a pixel, in stored order, what :func:`annotation_of`
            returns, and ``score``: the label's confidence, or 1 if it has none.
        ids: the ids of these labels.
        names: the names of these labels, "None" without.
        places: the indices of these labels among all labels of the field.
        all_ids: the ids of all labels, in stored order.
        faults: the labels that cannot be used, and have no records.
    """

    sample_id: str
    number: int
    size: tuple[int, int] | None
    records: dict[str, list[dict[str, Any]]]
    ids: dict[str, list[str]]
    names: dict[str, list[str]]
    places: dict[str, list[int]]
    all_ids: dict[str, list[str]]
    faults: Sequence[Fault] = ()


def read_labels(
    samples: Any,
    fields: Sequence[str],
    progress: ShowProgress = None,
    faults: Faults | None = None,
) -> Iterator[ImageLabels]:
    """Read the labels of all samples, in order; images that cannot be read have no records.

    Labels that cannot be used have none either; the log names them at the end.

    Args:
        samples: a dataset or a view of images.
        fields: the fields to read; they hold detections.
        progress: whether to show a progress bar (None: as FiftyOne's config says), or a function
            that makes one; see :data:`promerge_fo.progress.ShowProgress`.
        faults: counts and names the labels that cannot be used.
    """
    unreadable: list[str] = []
    read = partial(_image_labels, fields, unreadable)
    faults = Faults() if faults is None else faults
    with ThreadPoolExecutor(available_cpus()) as pool:
        for chunk in fou.iter_batches(read_documents(samples, fields, progress), _CHUNK):
            for labels in pool.map(read, *zip(*chunk, strict=True)):
                faults.add(labels.faults)
                yield labels
    warn_of_unreadable(unreadable)
    faults.warn()


def warn_of_unreadable(reasons: Sequence[str]) -> None:
    """Say in the log which images are left out because they cannot be read, and why, if any."""
    if reasons:
        more = f"; and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
        logger.warning(
            "%d images cannot be read and are left out: %s%s",
            len(reasons), "; ".join(sorted(reasons)[:_NAMED]), more,
        )  # fmt: skip


def read_documents(
    samples: Any, fields: Sequence[str], progress: ShowProgress = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read each image's COCO id and its document in the database, with metadata and these fields.

    This is far faster than reading FiftyOne's sample objects.

    Args:
        samples: a dataset or a view of images.
        fields: the fields to read.
        progress: whether to show a progress bar (None: as FiftyOne's config says), or a function
            that makes one; see :data:`promerge_fo.progress.ShowProgress`.
    """
    numbers = image_ids(samples)
    documents = aggregate(samples.select_fields(["metadata", *fields]))
    with progress_bar(progress, len(numbers)) as bar:
        for pair in zip(numbers, documents, strict=True):
            yield pair
            bar.update(1)


def stored_labels(document: dict[str, Any], field: str) -> list[StoredLabel]:
    """The detections in one field of a sample's document."""
    return [StoredLabel(label) for label in (document.get(field) or {}).get("detections") or []]


def _image_labels(
    fields: Sequence[str], unreadable: list[str], number: int, document: dict[str, Any]
) -> ImageLabels:
    size = None
    try:
        size = image_size(document)
    except ImageError as reason:
        unreadable.append(str(reason))
    faults: list[Fault] = []
    image = ImageLabels(str(document["_id"]), number, size, {}, {}, {}, {}, {}, faults)

    def record_of(label: StoredLabel) -> dict[str, Any] | None:
        try:
            return annotation_of(label, size) if size else None
        except EntryError as error:
            faults.append(label.fault(document["filepath"], error))
            return None

    for field in fields:
        labels = stored_labels(document, field)
        records = [record_of(label) for label in labels]
        image.all_ids[field] = [label.id for label in labels]
        image.places[field] = [i for i, record in enumerate(records) if record is not None]
        image.ids[field] = [labels[i].id for i in image.places[field]]
        image.names[field] = [str(labels[i].label) for i in image.places[field]]
        image.records[field] = []
        for label, record in zip(labels, records, strict=True):
            if record is not None:
                score = 1.0 if label.confidence is None else label.confidence
                image.records[field].append({**record, "score": score})
    return image


class StoredLabel:
    """A detection as the database stores it; its mask is decoded on access."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.id = str(document["_id"])
        self.label = document.get("label")
        self.bounding_box: Any = document.get("bounding_box")
        self.confidence = document.get("confidence")
        self.tags = document.get("tags") or []
        self.mask_path = document.get("mask_path")
        attribute = document.get("attributes")
        for key in ("iscrowd", "value"):  # where older versions of FiftyOne's importer put it
            attribute = attribute.get(key) if isinstance(attribute, dict) else None
        self.iscrowd = document.get("iscrowd", attribute)
        self.review = document.get("review")
        self._mask = document.get("mask")

    @property
    def mask(self) -> NDArray[Any] | None:
        """The array of a mask in the database; None for a mask on disk, or if there is no mask."""
        return None if self._mask is None else _decode(self._mask)

    @property
    def has_mask(self) -> bool:
        """Whether the label has a mask, in the database or on disk."""
        return self._mask is not None or self.mask_path is not None

    def fault(self, path: str, error: EntryError) -> Fault:
        """What is wrong with this label of an image."""
        return Fault(error.what, f"{path}, label {self.id}", str(error))

    def get_mask(self) -> NDArray[Any] | None:
        """The array of a mask on disk."""
        mask: NDArray[Any] | None = fo.Detection(mask_path=self.mask_path).get_mask()
        return mask


def _decode(stored: bytes) -> NDArray[Any]:
    """The array of a mask in the database; boolean masks bypass NumPy's parser, which is slow."""
    raw = zlib.decompress(stored)
    start = 10 + int.from_bytes(raw[8:10], "little")
    shape = _mask_shape(raw[:start])
    if shape is None:
        return np.asarray(fou.deserialize_numpy_array(stored))
    return np.frombuffer(raw, np.bool_, offset=start).reshape(shape)


@lru_cache(1 << 14)
def _mask_shape(header: bytes) -> tuple[int, int] | None:
    """The shape of a boolean mask, from its header in NumPy's format; None for another array."""
    found = _MASK_HEADER.match(header)
    return None if found is None else (int(found[1]), int(found[2]))


def annotation_of(label: StoredLabel, size: tuple[int, int]) -> dict[str, Any] | None:
    """The annotation of one label in COCO's JSON, without ids and category.

    Args:
        label: a label with a mask, or with a box only.
        size: (height, width) of the image in pixels, as it is shown.

    Returns:
        A dictionary with ``segmentation`` (compressed RLE, at the image's size), ``area`` (in
        pixels) and ``bbox`` (XYWH in pixels) of the mask, and ``iscrowd`` (the label's attribute,
        or 0 if it has none). If the label has no mask, ``bbox`` and ``area`` are those of its box,
        and there is no ``segmentation``. None if the mask has no pixel in the image.

    Raises:
        EntryError: the confidence, the box or the mask cannot be used; ``what`` is one of
            :data:`~promerge_fo.dataset.faults.FAULTS`.
    """
    check_label(label.bounding_box, label.confidence)
    crowd = int(bool(label.iscrowd))
    if not label.has_mask:
        x, y, w, h = label.bounding_box
        height, width = size
        box = [x * width, y * height, w * width, h * height]
        return {"iscrowd": crowd, "area": box[2] * box[3], "bbox": box}
    try:
        record = mask_record(*pixel_crop(label, size), size)
    except FileNotFoundError as error:
        raise EntryError("lost_mask", str(error)) from error
    except Exception as error:  # decoders raise anything on broken masks
        raise EntryError("bad_mask", f"its mask cannot be used ({error})") from error
    return None if record is None else {"iscrowd": crowd, **record}


def usable_masks(detections: fo.Detections | None, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The masks of the labels of one image that can be used and have one.

    Args:
        detections: labels; None stands for none.
        size: (height, width) of the image in pixels, as it is shown.

    Returns:
        (n, height, width) bool, in the order of the labels.
    """
    masks = []
    for label in [] if detections is None else detections.detections:
        with suppress(Exception):  # decoders raise anything on broken masks
            check_label(label.bounding_box, label.confidence)
            masks.append(mask_of(label, size))
    return np.array(masks, dtype=np.bool_).reshape(-1, *size)


def coco_id_field(samples: Any) -> str | None:
    """The field with the COCO ids of the images: ``coco_id``; None if there is no such field.

    FiftyOne's importer may put the name of a label field in front (``ground_truth_coco_id``). Such
    a field is used if there is exactly one.
    """
    names = list(samples.get_field_schema())
    named = [name for name in names if name.endswith("_coco_id")]
    if "coco_id" in names:
        return "coco_id"
    return named[0] if len(named) == 1 else None


def image_ids(samples: Any) -> list[int]:
    """The COCO ids of the images, if all of them are known and different; else 1, 2, 3, ..."""
    field = coco_id_field(samples)
    ids = samples.values(field) if field is not None else []
    if len(set(ids)) == len(samples) and all(isinstance(i, int) for i in ids):
        return list(ids)
    return list(range(1, len(samples) + 1))


def label_document(
    entry: Mapping[str, Any], size: tuple[int, int], confidence: float | None, label: str
) -> dict[str, Any]:
    """Make the document that the database stores for a label, from an annotation of COCO's JSON.

    The result is the same as that of FiftyOne's objects, which take longer than all the rest.

    Args:
        entry: an annotation with ``segmentation``, ``bbox``, or both; it is checked.
        size: (height, width) of the image in pixels.
        confidence: the label's confidence, in [0, 1], or None.
        label: the label's name.

    Raises:
        EntryError: the annotation has neither mask nor box, or is not valid for the image.
    """
    segmentation, bbox = entry.get("segmentation"), entry.get("bbox")
    stored = {**_template(), "_id": bson.ObjectId(), "label": label, "confidence": confidence}
    if segmentation is not None and segmentation != []:  # either means that there is no mask
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
    """The document that FiftyOne stores for a label; its values are replaced."""
    return dict(fo.Detection(area=0.0, touches_border=False).to_dict())
