"""The vectors of masks as they lie in the database, with fingerprints of what they were made of.

They lie in a collection of their own beside FiftyOne's, one document a sample, because labels are
loaded with every sample, in the App too. A mask that was painted or moved has another fingerprint,
and no vector until it gets a new one; a label that is gone takes its own with it.
"""

from __future__ import annotations

import hashlib
import logging
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import fiftyone.core.utils as fou
import numpy as np
from bson import ObjectId
from numpy.typing import NDArray
from pymongo import ReplaceOne

from promerge_fo.config import run_hash
from promerge_fo.dataset.database import (
    aggregate,
    companion,
    documents,
    retry_while_unreachable,
)
from promerge_fo.dataset.stored_labels import LARGEST

__all__ = [
    "Current",
    "Embedded",
    "current_vectors",
    "differences",
    "fingerprint",
    "forget_lost_samples",
    "label_parts",
    "same_masks",
    "sources_of",
    "write_embeddings",
]

logger = logging.getLogger("fiftyone.promerge")

_CHUNK = 500  # samples whose labels and vectors are in memory at once
_PRINT = 8  # bytes of a fingerprint

Json = dict[str, Any]


class Embedded(NamedTuple):
    """The masks of one image with their vectors.

    Attributes:
        sample_id: the id of the sample.
        labels: the labels as the database stores them: ``_id``, ``bounding_box``, and ``mask`` or
            ``mask_path`` of those that have one.
        vectors: (n, d) float32, in their order; NaN where a mask has no pixel in the image, or its
            features are not finite.
    """

    sample_id: ObjectId
    labels: Sequence[Mapping[str, Any]]
    vectors: NDArray[np.float32]


class Current(NamedTuple):
    """What is stored for the masks of an image as they are now.

    Attributes:
        sample_id: the id of the sample.
        made_by: the key in :func:`sources_of` of what made the vectors; None without any.
        labels: the k labels that have vectors, by their ids.
        vectors: (k, d) float32, with NaN as in :class:`Embedded`.
        total: how many labels the image has, with vectors or without.
    """

    sample_id: ObjectId
    made_by: str | None
    labels: list[ObjectId]
    vectors: NDArray[np.float32]
    total: int


def write_embeddings(
    samples: Any, label_field: str, source: Mapping[str, Any], images: Iterable[Embedded]
) -> None:
    """Store the vectors of images' masks, in place of all that were stored of these images.

    Args:
        samples: a dataset, or a view of one.
        label_field: the field with the labels.
        source: what made them, in types that JSON has.
        images: any number; they are written in bulk. One whose vectors take more than the database
            holds of an image is left out, and the log says so.
    """
    kept = companion(samples, label_field)
    made_by = run_hash(dict(source))
    retry_while_unreachable(lambda: kept.create_index("made_by"))  # to tell sources apart quickly
    _write(kept, [ReplaceOne({"_id": made_by}, {"source": dict(source)}, upsert=True)])
    for chunk in fou.iter_batches(images, _CHUNK):
        updates = []
        for sample_id, labels, vectors in chunk:
            if vectors.nbytes > LARGEST:
                logger.warning(
                    "promerge: the embeddings of the %d masks of sample %s take %.0f MB, more than "
                    "the database holds of one image; they are left out",
                    len(labels), sample_id, vectors.nbytes / 2**20,
                )  # fmt: skip
                continue
            document = {
                "made_by": made_by,
                "labels": [label["_id"] for label in labels],
                "prints": b"".join(map(fingerprint, labels)),
                "vectors": np.ascontiguousarray(vectors, dtype="<f4").tobytes(),
            }
            updates.append(ReplaceOne({"_id": sample_id}, document, upsert=True))
        _write(kept, updates)


def current_vectors(samples: Any, label_field: str) -> Iterator[Current]:
    """What is stored for the masks that the samples have now, sample after sample.

    Args:
        samples: a dataset or a view of images, with all labels of each.
        label_field: the field with the labels.
    """
    kept = companion(samples, label_field)
    parts = dict.fromkeys(label_parts(label_field), True)
    for chunk in fou.iter_batches(aggregate(samples, [{"$project": parts}]), _CHUNK):
        query = {"_id": {"$in": [row["_id"] for row in chunk]}}
        stored = {each["_id"]: each for each in kept.find(query)}
        for row in chunk:
            labels = (row.get(label_field) or {}).get("detections") or []
            document = stored.get(row["_id"])
            if document is None:
                nothing = np.zeros((0, 0), dtype=np.float32)
                yield Current(row["_id"], None, [], nothing, len(labels))
            else:
                found = _of_same_masks(document, labels)
                yield Current(row["_id"], document["made_by"], *found, len(labels))


def sources_of(samples: Any, label_field: str) -> dict[str, dict[str, Any]]:
    """What made the vectors that are stored for a field, by the keys that they carry.

    What made those of most images comes first.
    """
    kept = companion(samples, label_field)
    used = kept.distinct("made_by", {"made_by": {"$type": "string"}})
    counts = {key: kept.count_documents({"made_by": key}) for key in used}
    known = {each["_id"]: each["source"] for each in kept.find({"_id": {"$in": list(counts)}})}
    return {key: known[key] for key in sorted(counts, key=lambda key: -counts[key])}


def forget_lost_samples(samples: Any, label_field: str) -> None:
    """Delete the vectors of samples that are not in the dataset any more."""
    kept = companion(samples, label_field)
    stored = kept.find({"made_by": {"$exists": True}}, {"_id": True})
    for chunk in fou.iter_batches((each["_id"] for each in stored), _CHUNK):
        there = {each["_id"] for each in documents(samples, {"_id": {"$in": list(chunk)}}, "_id")}
        if len(there) < len(chunk):
            kept.delete_many({"_id": {"$in": [each for each in chunk if each not in there]}})


def label_parts(label_field: str) -> list[str]:
    """The parts of labels that their vectors depend on, as paths in a sample's document."""
    parts = ("_id", "bounding_box", "mask", "mask_path")
    return [f"{label_field}.detections.{part}" for part in parts]


def same_masks(labels: Sequence[Json], others: Sequence[Json]) -> bool:
    """Whether labels, of whatever ids, have the same masks in the same order."""
    return list(map(fingerprint, labels)) == list(map(fingerprint, others))


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """In which settings two sources differ, in words."""
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return "; ".join(f"{name}: {one.get(name)} and {other.get(name)}" for name in names)


def _write(kept: Any, updates: Sequence[ReplaceOne[Any]]) -> None:
    if updates:
        retry_while_unreachable(lambda: kept.bulk_write(list(updates), ordered=False))


def _of_same_masks(
    document: Json, labels: Sequence[Json]
) -> tuple[list[ObjectId], NDArray[np.float32]]:
    """The labels whose masks are those that the vectors were made of, and these (k, d) vectors."""
    prints, ids = document["prints"], document["labels"]
    rows = {(ids[i], prints[i * _PRINT : (i + 1) * _PRINT]): i for i in range(len(ids))}
    found = [(label["_id"], rows.get((label["_id"], fingerprint(label)))) for label in labels]
    same = [(label, row) for label, row in found if row is not None]
    vectors = np.frombuffer(document["vectors"], dtype="<f4").reshape(max(len(ids), 1), -1)
    return [label for label, _ in same], vectors[[row for _, row in same]]


def fingerprint(label: Mapping[str, Any]) -> bytes:
    """8 bytes that change with the stored mask of a label, and with its place."""
    box = [float(value) for value in label.get("bounding_box") or ()]
    digest = hashlib.blake2b(struct.pack(f"<{len(box)}d", *box), digest_size=_PRINT)
    mask = label.get("mask")
    digest.update(str(label.get("mask_path")).encode() if mask is None else bytes(mask))
    return digest.digest()
