"""How well the masks of one field agree with those of another."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import fiftyone.core.utils as fou
import numpy as np
from bson import ObjectId
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pymongo import UpdateOne

from promerge_fo.dataset.database import add_fields, bulk_update, propagate
from promerge_fo.dataset.review.updates import update_labels
from promerge_fo.dataset.samples import images_of, require_detections
from promerge_fo.dataset.stored_labels import ImageLabels, read_labels
from promerge_fo.progress import ShowProgress

__all__ = ["agreement_attribute", "measure_agreement", "require_other"]

_CHUNK = 1000  # images that are written to the database at once


def measure_agreement(
    samples: Any, label_field: str, other_field: str, progress: ShowProgress = None
) -> str:
    """Measure how well each mask of a field agrees with the masks of another field.

    Each label gets the IoU of its mask with the best matching mask of the other field in the same
    image, or 0 if no mask overlaps it, or if it cannot be used itself. If any label of an image has
    no mask, boxes are compared in that image instead. If an image cannot be read, the IoU is None.

    This reads all masks of the samples, so it is slow. Call it once, and again after either field
    has changed.

    Args:
        samples: a dataset or a view, but not a patches view.
        label_field: the field whose labels are measured; it holds detections.
        other_field: the field to compare with; it holds detections, too.
        progress: whether to show a progress bar (None: as FiftyOne's config says), or a function
            that makes one; see :data:`promerge_fo.progress.ShowProgress`.

    Returns:
        The name of the label attribute that holds the IoU, in [0, 1].

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images.
        ValueError: a field does not hold detections, or both fields are the same.
        FileNotFoundError: the file of a mask is missing.
    """
    samples = images_of(samples)
    require_other(label_field, other_field)
    for field in (label_field, other_field):
        require_detections(samples, field)
    attribute = agreement_attribute(other_field)
    path = f"{label_field}.detections"
    add_fields(samples, {f"{path}.{attribute}": fo.FloatField})
    images = read_labels(samples, (label_field, other_field), progress)
    for chunk in fou.iter_batches(images, _CHUNK):
        updates = [
            _ious_update(image, path, attribute, _best_ious(image, label_field, other_field))
            for image in chunk
            if image.all_ids[label_field]
        ]
        bulk_update(samples, updates)
    propagate(samples, label_field)
    return attribute


def agreement_attribute(other_field: str) -> str:
    """The name of the label attribute that holds the IoU with the masks of another field.

    Examples:
        >>> agreement_attribute("maskcut")
        'iou_with_maskcut'
    """
    return f"iou_with_{other_field}"


def require_other(label_field: str, other_field: str | None) -> None:
    """Check that there is another field to compare with.

    Raises:
        ValueError: ``other_field`` is None, or the same as ``label_field``.
    """
    if other_field is None or other_field == label_field:
        raise ValueError(
            f"the other field is {other_field!r}, but must be another field than {label_field!r} "
            "that holds detections: give a field to compare with"
        )


def _best_ious(image: ImageLabels, label_field: str, other_field: str) -> list[float | None]:
    """Each label's IoU with the best matching label of the other field, in stored order."""
    if image.size is None:
        return [None] * len(image.all_ids[label_field])
    best: list[float | None] = [0.0] * len(image.all_ids[label_field])
    own, others = image.records[label_field], image.records[other_field]
    if own and others:
        kind = "segmentation"
        if not all(kind in record for record in (*own, *others)):
            kind = "bbox"
        table: NDArray[np.float64] = coco_mask.iou(
            [record[kind] for record in own],
            [record[kind] for record in others],
            [0] * len(others),
        )
        for place, iou in zip(image.places[label_field], table.max(axis=1), strict=True):
            best[place] = float(iou)
    return best


def _ious_update(
    image: ImageLabels, path: str, attribute: str, values: list[float | None]
) -> UpdateOne:
    """The database update that stores the IoUs of one image's labels."""
    ids = [ObjectId(i) for i in image.all_ids[path.split(".")[0]]]
    value = {"$arrayElemAt": [values, {"$indexOfArray": [ids, "$$label._id"]}]}
    changed = update_labels(path, {"$in": ["$$label._id", ids]}, {attribute: value})
    return UpdateOne({"_id": ObjectId(image.sample_id)}, changed)
