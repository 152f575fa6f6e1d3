"""Rows of shards into the database: in bulk, each image once, in memory that does not grow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from datetime import datetime, timezone
from functools import partial
from typing import Any

import bson
import fiftyone as fo
from pymongo import UpdateOne

from promerge_fo.dataset.database import bulk_update, documents, patiently
from promerge_fo.dataset.stored_labels import LARGEST, label_document

__all__ = ["merge_rows"]


def merge_rows(
    dataset: Any, label_field: str, run: str, rows: Sequence[Mapping[str, Any]], pool: Executor
) -> int:
    """Give the samples of some images their labels; they are on the database's disk afterwards.

    The labels are those of :func:`promerge_fo.dataset.to_detections`. Samples that have labels of
    the run keep them, unless they have failed. It waits for a database that is away.

    Args:
        dataset: the dataset itself.
        label_field: a field of detections that is declared.
        run: the run hash.
        rows: of :func:`promerge_fo.cluster.shards.read_shard`.
        pool: whose threads make the labels.

    Returns:
        The number of samples of these images.

    Raises:
        ValueError: a row is not what a worker writes.
    """
    samples = patiently(lambda: _samples_of(dataset, [row["filepath"] for row in rows]))
    pairs = [(row, sample_id) for row in rows for sample_id in samples[row["filepath"]]]
    documents = pool.map(partial(_document, run), [row for row, _ in pairs])
    now = datetime.now(timezone.utc)
    open_still = {
        "$or": [{f"{label_field}.run": {"$ne": run}}, {f"{label_field}.status": "failed"}]
    }
    updates = [
        UpdateOne(
            {"_id": sample_id, **open_still},
            {"$set": {label_field: document, "last_modified_at": now}},
        )
        for (_, sample_id), document in zip(pairs, documents, strict=True)
    ]
    patiently(lambda: bulk_update(dataset, updates, durable=True))
    return len(updates)


def _samples_of(dataset: Any, paths: Sequence[str]) -> defaultdict[str, list[bson.ObjectId]]:
    """The samples of each path: one, usually."""
    samples: defaultdict[str, list[bson.ObjectId]] = defaultdict(list)
    for document in documents(dataset, {"filepath": {"$in": list(paths)}}, "filepath"):
        samples[document["filepath"]].append(document["_id"])
    return samples


def _document(run: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The labels of one image, as the database holds them."""
    size = row["height"], row["width"]
    labels = [
        label_document({"segmentation": {"size": list(size), "counts": counts}}, size, score, "fg")
        for counts, score in zip(row["counts"], row["scores"], strict=True)
    ]
    status, error = row["status"], row["error"]
    taken = sum(len(label["mask"]) for label in labels)
    if taken > LARGEST:
        status, labels = "failed", []
        error = f"its masks take {taken / 2**20:.0f} MB, more than the database holds of one image"
    empty = fo.Detections(detections=[], status=status, error=error, run=run).to_dict()
    return {**empty, "detections": labels}
