"""Write the rows of shards to the database, in bulk and in constant memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from datetime import datetime, timezone
from functools import partial
from typing import Any, NamedTuple

import bson
import fiftyone as fo
import numpy as np
from numpy.typing import NDArray
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from promerge_fo.dataset.classes.stored_vectors import Embedded, same_masks, write_embeddings
from promerge_fo.dataset.database import (
    bulk_update,
    documents,
    retry_while_unreachable,
    room_left,
)
from promerge_fo.dataset.decided import Kept
from promerge_fo.dataset.runs.unstored import failed, record_failures, require_room
from promerge_fo.dataset.sizes import right_metadata
from promerge_fo.dataset.stored_labels import LARGEST, label_document

__all__ = ["Merged", "merge_rows"]


class Merged(NamedTuple):
    """What became of the rows of a shard.

    Attributes:
        samples: the number of samples that show their images.
        failed: the number of these that failed.
        instances: the number of masks.
        full: the paths of images whose documents do not even take that they failed.
    """

    samples: int
    failed: int
    instances: int
    full: set[str]


def merge_rows(
    dataset: fo.Dataset,
    label_field: str,
    run: str,
    rows: Sequence[Mapping[str, Any]],
    pool: Executor,
    kept: Kept | None = None,
    embeds: Mapping[str, Any] | None = None,
) -> Merged:
    """Store the masks of some images as labels.

    The labels are those of :func:`promerge_fo.dataset.to_detections`. A sample that already has
    labels of this run keeps them, unless it failed. When the function returns, the labels are on
    the database's disk. While the database cannot be reached, it waits.

    Args:
        dataset: the dataset itself, not a view.
        label_field: a field of detections, already declared.
        run: the run hash.
        rows: the rows of a shard, from :func:`promerge_fo.cluster.shards.read_shard`.
        pool: the threads that turn rows into labels.
        kept: what people did to labels that are replaced.
        embeds: what made the rows' embeddings; None if they have none.

    Raises:
        ValueError: a row holds something that no worker writes, such as a malformed mask.
    """
    paths = [row["filepath"] for row in rows]
    samples = retry_while_unreachable(lambda: _samples_by_path(dataset, paths))
    pairs = [(row, sample) for row in rows for sample in samples[row["filepath"]]]
    labels = list(pool.map(partial(_label_documents, run), [row for row, _ in pairs]))
    made = [document["detections"] for document in labels]
    ids = [sample["_id"] for _, sample in pairs]
    room = retry_while_unreachable(lambda: room_left(dataset, ids, label_field))
    if kept:
        for sample_id, document in zip(ids, labels, strict=True):
            kept.hand_on(str(sample_id), document)
    labels = [
        each if (why := require_room(len(bson.encode(each)), room[str(i)])) is None
        else failed(why, run).to_dict()
        for i, each in zip(ids, labels, strict=True)
    ]  # fmt: skip
    now = datetime.now(timezone.utc)
    not_finished = {
        "$or": [{f"{label_field}.run": {"$ne": run}}, {f"{label_field}.status": "failed"}]
    }
    updates = [
        UpdateOne(
            {"_id": sample["_id"], **not_finished},
            {"$set": {label_field: document, "last_modified_at": now, **_metadata(row, sample)}},
        )
        for (row, sample), document in zip(pairs, labels, strict=True)
    ]
    full: set[str] = set()
    try:
        retry_while_unreachable(lambda: bulk_update(dataset, updates, durable=True))
    except BulkWriteError as error:  # of some documents; the others are written
        said = error.details["writeErrors"] if error.details else []
        reasons = {str(ids[each["index"]]): str(each["errmsg"]) for each in said}
        full = record_failures(dataset, label_field, run, reasons)
    if embeds is not None:
        embedded = [
            Embedded(sample_id, document["detections"], _means(row, len(before)))
            for (row, _), sample_id, document, before in zip(pairs, ids, labels, made, strict=True)
            if row.get("means") and before and same_masks(before, document["detections"])
        ]
        write_embeddings(dataset, label_field, embeds, embedded)
    return Merged(
        len(pairs),
        sum(each["status"] == "failed" for each in labels),
        sum(len(each["detections"]) for each in labels),
        {row["filepath"] for row, sample in pairs if str(sample["_id"]) in full},
    )


def _means(row: Mapping[str, Any], count: int) -> NDArray[np.float32]:
    """The embeddings of a row's masks, (count, d).

    Raises:
        ValueError: they are not as many.
    """
    return np.frombuffer(row["means"], dtype="<f4").reshape(count, -1)


def _samples_by_path(
    dataset: fo.Dataset, paths: Sequence[str]
) -> defaultdict[str, list[dict[str, Any]]]:
    """The documents of the samples of each image file; usually one. They have metadata alone."""
    samples: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for document in documents(dataset, {"filepath": {"$in": list(paths)}}, "filepath", "metadata"):
        samples[document["filepath"]].append(document)
    return samples


def _metadata(row: Mapping[str, Any], sample: dict[str, Any]) -> dict[str, Any]:
    """What the database is told of an image's size, if it does not know it."""
    if not row["height"]:  # the image could not be read
        return {}
    metadata = right_metadata(sample, (row["height"], row["width"]))
    return {} if metadata is None else {"metadata": metadata}


def _label_documents(run: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """The labels of one image as the database stores them."""
    size = row["height"], row["width"]
    labels = [
        label_document({"segmentation": {"size": list(size), "counts": counts}}, size, score, "fg")
        for counts, score in zip(row["counts"], row["scores"], strict=True)
    ]
    if row.get("levels") is not None:  # shards of older versions have none
        for label, level, parent in zip(labels, row["levels"], row["parents"], strict=True):
            label["level"] = level
            label["parent"] = None if parent < 0 else str(labels[parent]["_id"])
    status, error = row["status"], row["error"]
    mask_bytes = sum(len(label["mask"]) for label in labels)
    if mask_bytes > LARGEST:
        status, labels = "failed", []
        error = (
            f"its masks take {mask_bytes / 2**20:.0f} MB, more than the database holds of one image"
        )
    empty = fo.Detections(detections=[], status=status, error=error, run=run).to_dict()
    return {**empty, "detections": labels}
