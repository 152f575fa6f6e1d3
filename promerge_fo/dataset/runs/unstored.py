"""Labels that the database cannot take: they become failures with a reason, and cost one image."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import bson
import fiftyone as fo
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from promerge_fo.dataset.database import (
    bulk_update,
    documents,
    is_too_large,
    propagate,
    retry_while_unreachable,
    room_left,
)
from promerge_fo.words import reason_of

__all__ = ["failed", "fitting", "record_failures", "require_room"]

logger = logging.getLogger("fiftyone.promerge")

_OF_A_LABEL = 2048  # more bytes than a label takes without its mask
Json = dict[str, Any]


def failed(reason: str, run: str) -> fo.Detections:
    """The labels of an image that a run could not do."""
    return fo.Detections(detections=[], status="failed", error=reason, run=run)


def fitting(
    samples: Sequence[Any], labels: Sequence[fo.Detections], field: str, run: str
) -> list[fo.Detections]:
    """The labels of some samples, with failures in place of those that their documents cannot hold.

    Args:
        samples: of the same dataset.
        labels: of each of them.
        field: where they will be stored.
        run: the run hash.
    """
    dataset = samples[0].dataset
    ids = [sample.id for sample in samples]
    room = retry_while_unreachable(lambda: room_left(dataset, ids, field))
    return [
        each
        if (reason := require_room(_size_of(each, room[sample.id]), room[sample.id])) is None
        else _withdrawn(each, reason, run)
        for sample, each in zip(samples, labels, strict=True)
    ]


def require_room(size: int, room: int) -> str | None:
    """Why labels of so many bytes do not fit into a document with so much room; None if they do."""
    if size <= room:
        return None
    return (
        f"its labels take {size / 1e6:.2f} MB, and its document in the database has room for "
        f"{max(room, 0) / 1e6:.2f} MB of 16.8; keep the masks in files (output_dir, --output-dir), "
        "or delete what else is stored with the image"
    )


def record_failures(dataset: Any, field: str, run: str, reasons: Mapping[str, Any]) -> set[str]:
    """Store that images failed whose labels could not be stored.

    Args:
        dataset: the dataset itself, not a view.
        field: the field for the labels.
        run: the run hash.
        reasons: why, by the ids of the samples: exceptions, or texts.

    Returns:
        The ids of those whose documents do not even take that; the log names them.
    """
    full = set()
    for sample_id, reason in reasons.items():
        text = reason if isinstance(reason, str) else reason_of(reason)
        values = {field: failed(text, run).to_dict(), "last_modified_at": _now()}
        update = UpdateOne({"_id": bson.ObjectId(sample_id)}, {"$set": values})
        try:
            bulk_update(dataset, [update], durable=True)
        except BulkWriteError as error:
            if not is_too_large(error):
                raise
            full.add(sample_id)
            (found,) = documents(dataset, {"_id": bson.ObjectId(sample_id)}, "filepath")
            logger.warning(
                "promerge: %s has no labels (%s), and its document in the database, which is full, "
                "does not even take that it failed",
                found["filepath"], text,
            )  # fmt: skip
    if reasons:
        propagate(dataset, field)
    return full


def _size_of(labels: fo.Detections, room: int) -> int:
    """The bytes that labels take in the database; or, if that is in the room, an upper bound."""
    masks = [label.mask for label in labels.detections if label.mask is not None]
    most = sum(mask.nbytes for mask in masks) + _OF_A_LABEL * (len(labels.detections) + 1)
    return most if most <= room else len(bson.encode(labels.to_dict()))


def _withdrawn(labels: fo.Detections, reason: str, run: str) -> fo.Detections:
    """A failure in place of labels, whose files are removed."""
    for label in labels.detections:
        if label.mask_path is not None:
            Path(label.mask_path).unlink(missing_ok=True)
    return failed(reason, run)


def _now() -> datetime:
    return datetime.now(timezone.utc)
