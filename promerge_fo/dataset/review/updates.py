"""Decisions on labels, as update pipelines that MongoDB runs by itself.

Each decision sets ``review``, ``reviewer`` and ``reviewed_at`` in the label's document. The earlier
decision, if any, goes to the front of the label's list ``review_past``.

A sample's document holds its labels as a list; a patch's document holds a single label. In the
expressions below, ``$$label`` stands for one label in either case.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, TypeAlias

import fiftyone as fo
from bson import ObjectId
from bson.errors import InvalidId
from pymongo import UpdateOne

from promerge_fo.dataset.database import (
    CHUNK,
    add_fields,
    aggregate,
    aggregate_stored,
    bulk_update,
    database_time,
    dataset_of,
    is_patches,
    merge_updates,
    propagate,
    source_id,
    storage_of,
    update_all,
)
from promerge_fo.dataset.decided import (
    ATTRIBUTES,
    PAST,
    is_undecided,
    keeping,
    mend,
    restored,
)
from promerge_fo.dataset.samples import images_of, require_detections

__all__ = [
    "LARGEST",
    "area_of",
    "decide_all",
    "decide_listed",
    "decision",
    "declare",
    "each_label",
    "ids_of",
    "is_finite",
    "label_path",
    "reviewed_path",
    "select_attributes",
    "take_back",
    "update_labels",
]

#: The largest number that is finite: views that the App gets have no infinity, which JSON lacks.
LARGEST = sys.float_info.max
_MAXPAST = 20  # earlier decisions that a label keeps
_MIN_AREA = 1e-9  # in place of an area of 0, which has no logarithm

Json = dict[str, Any]
Change: TypeAlias = "Json | Callable[[list[ObjectId]], Json]"


def label_path(samples: Any, label_field: str) -> str:
    """The path of a field's labels: "promerge.detections", or "promerge" in its patches views.

    Args:
        samples: a dataset, a view or a patches view.
        label_field: a field with detections.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images.
        ValueError: the field does not hold detections.
    """
    samples = images_of(samples)
    if is_patches(samples):
        field = samples.get_field(label_field)
        if isinstance(field, fo.EmbeddedDocumentField) and field.document_type is fo.Detection:
            return label_field
    require_detections(samples, label_field)
    return f"{label_field}.detections"


def reviewed_path(samples: Any, label_field: str) -> str:
    """As :func:`label_path`, after :func:`mend`: for whoever reads decisions."""
    path = label_path(samples, label_field)
    mend(samples, label_field)
    return path


def declare(
    samples: Any, label_field: str, attributes: Mapping[str, type[fo.Field]] = ATTRIBUTES
) -> None:
    """Add attributes of labels to the schema; for patches, also to that of their source."""
    places = [(storage_of(samples), f"{label_field}.detections")]
    if is_patches(samples):
        places.append((samples, label_path(samples, label_field)))
    for collection, path in places:
        declared = dataset_of(collection).get_field
        fields = {f"{path}.{name}": kind for name, kind in attributes.items()}
        add_fields(collection, {f: kind for f, kind in fields.items() if declared(f) is None})


def decision(review: str, reviewer: str | None) -> Json:
    """The attributes that a decision sets in a label, as expressions of ``$$label``.

    The time is the database's, so that all reviewers use the same clock.

    Args:
        review: "accepted" or "rejected".
        reviewer: the name of the person who decides.
    """
    present = {name: f"$$label.{name}" for name in ATTRIBUTES}
    past = {"$concatArrays": [[present], {"$ifNull": [f"$$label.{PAST}", []]}]}
    return {
        "review": review,
        "reviewer": {"$literal": reviewer},
        "reviewed_at": database_time(),
        PAST: {"$cond": [is_undecided("$$label"), "$$REMOVE", {"$slice": [past, _MAXPAST]}]},
    }


def decide_listed(samples: Any, path: str, ids: Collection[str] | None, change: Change) -> int:
    """Change the labels with these ids, by one update per sample.

    Args:
        samples: a dataset, a view or a patches view.
        path: the path of the labels.
        ids: the ids of the labels; ids that the samples do not contain are ignored. None takes all
            labels of the samples.
        change: from :func:`decision`; or a function that gives the change of some labels by ids.

    Returns:
        The number of labels that were changed.

    Raises:
        ValueError: ``ids`` has something that is not an id.
    """
    found = _find_labels(samples, path, ids)
    _update_listed(storage_of(samples), _stored_path(path), change, "sample", found)
    if is_patches(samples):
        _update_listed(samples, path, change, "_id", found)
    propagate(samples, path.removesuffix(".detections"))
    return len({label for row in found for label in row["labels"]})


def decide_all(samples: Any, path: str, change: Json, time: str = "reviewed_at") -> int:
    """Change all labels of a dataset or a view, but not of patches, without loading them.

    Args:
        samples: a dataset or a view.
        path: the path of the labels.
        change: from :func:`decision`.
        time: the attribute of the change that says when it was made.

    Returns:
        The number of labels that were changed.
    """
    count = int(samples.count(path))
    chosen = [{"$project": {"chosen": ids_of(path)}}]
    not_yet = {"$ne": [f"$$label.{time}", change[time]]}  # in case a document comes up twice
    _update_chosen(samples, path, chosen, not_yet, change)
    propagate(samples, path.removesuffix(".detections"))
    return count


def take_back(
    samples: Any,
    path: str,
    time: str = "reviewed_at",
    before: Json | None = None,
    without: Collection[str] = (),
) -> int:
    """Give the labels of the last decision the attributes that they had before it.

    Args:
        samples: a dataset or a view. A patches view stands for all samples of its source.
        path: the path of the labels.
        time: the attribute that says when a decision was made.
        before: the attributes before it, as expressions of ``$$label``; those of a review if None.
        without: attributes that go, unless ``before`` has them.

    Returns:
        The number of labels that were changed; 0 if no decision is left.
    """
    storage, stored_at = storage_of(samples), _stored_path(path)
    takes_all = is_patches(samples) or samples is storage
    find = partial(aggregate_stored, storage) if takes_all else partial(aggregate, samples)
    newest: list[Json] = [
        {"$project": {"last": {"$max": f"${stored_at}.{time}"}}},
        {"$group": {"_id": None, "last": {"$max": "$last"}}},
    ]
    last = next((row["last"] for row in find(newest)), None)
    if last is None:
        return 0
    decided_then = {"$eq": [f"$$label.{time}", last]}
    chosen = {"$filter": {"input": f"${stored_at}", "as": "label", "cond": decided_then}}
    found = [{"$match": {f"{stored_at}.{time}": last}}, {"$project": {"labels": chosen}}]
    counted = [*found, {"$group": {"_id": None, "count": {"$sum": {"$size": "$labels"}}}}]
    count = next((int(row["count"]) for row in find(counted)), 0)
    change = before or _previous_decision()
    restored = update_labels(stored_at, decided_then, change, without)
    if takes_all:
        update_all(storage, {f"{stored_at}.{time}": last}, restored)
    else:
        ids = [*found, {"$project": {"chosen": "$labels._id"}}]
        _update_chosen(samples, stored_at, ids, decided_then, change, without)
    if is_patches(samples):
        restored = update_labels(path, decided_then, change, without)
        update_all(samples, {f"{path}.{time}": last}, restored)
    propagate(samples, path.removesuffix(".detections"))
    return count


def each_label(path: str, value: Any) -> Json:
    """The expression for a list: what an expression of ``$$label`` gives for each label."""
    labels = f"${path}" if _is_list(path) else [f"${path}"]
    return {"$map": {"input": {"$ifNull": [labels, []]}, "as": "label", "in": value}}


def select_attributes(path: str, *attributes: str) -> Json:
    """The stage that selects the labels' ids and these attributes, so that no masks are read."""
    return {"$project": {f"{path}.{name}": 1 for name in ("_id", *attributes)}}


def area_of(label: str) -> Json:
    """The expression for a label's ``area``, or that of its box if it has none; always above 0."""
    box = {"$cond": [{"$isArray": f"{label}.bounding_box"}, f"{label}.bounding_box", []]}
    sides = [{"$arrayElemAt": [box, i]} for i in (2, 3)]
    numbers = [{"$cond": [is_finite(side), side, 0]} for side in sides]
    area = {"$cond": [is_finite(f"{label}.area"), f"{label}.area", {"$multiply": numbers}]}
    return {"$max": [area, _MIN_AREA]}


def is_finite(value: Any) -> Json:
    """The expression for whether a value is a number, and neither infinite nor NaN."""
    # MongoDB's order of values: NaN, numbers from -infinity on, texts
    return {
        "$and": [
            {"$isNumber": value},
            {"$gte": [value, -LARGEST]},
            {"$lte": [value, LARGEST]},
        ]
    }


def ids_of(path: str) -> Any:
    """The expression for the ids of the labels of a sample or patch."""
    return {"$ifNull": [f"${path}._id", []]} if _is_list(path) else [f"${path}._id"]


def _stored_path(path: str) -> str:
    """The path of the labels where they are stored; it differs for patches."""
    return f"{path.removesuffix('.detections')}.detections"


def _is_list(path: str) -> bool:
    return path.endswith(".detections")


def _find_labels(samples: Any, path: str, ids: Collection[str] | None) -> list[Json]:
    """Find the labels with these ids, or all labels if ``ids`` is None.

    Returns:
        One row for each sample or patch with such labels: its ``_id``; ``sample``, the id of the
        sample or frame that stores the labels (``_id`` itself, except for patches); and
        ``labels``, the ids of the labels.
    """
    pipeline: list[Json] = []
    wanted = None
    if ids is not None:
        try:
            wanted = {ObjectId(i) for i in ids}
        except InvalidId as error:
            raise ValueError(f"ids must be those of labels: {error}") from None
        if len(wanted) <= CHUNK:  # more would make a large query, and the ids are compared below
            pipeline.append({"$match": {f"{path}._id": {"$in": list(wanted)}}})
    sample = "$_id"
    if is_patches(samples):
        sample = f"${source_id(samples)}"
    pipeline.append({"$project": {"sample": sample, "labels": ids_of(path)}})
    rows = []
    for row in aggregate(samples, pipeline):
        row["labels"] = [i for i in row["labels"] if wanted is None or i in wanted]
        if row["labels"]:
            rows.append(row)
    return rows


def _update_listed(samples: Any, path: str, change: Change, key: str, found: list[Json]) -> None:
    """Change the labels that :func:`_find_labels` found.

    Args:
        samples: what holds the documents to update.
        path: the path of the labels in these documents.
        change: attributes, as expressions of ``$$label``, or a function of ids that gives them.
        key: which entry of the rows is the document's id: "sample", or "_id" for patches.
        found: the rows.
    """
    labels: dict[ObjectId, list[ObjectId]] = {}
    for row in found:
        labels.setdefault(row[key], []).extend(row["labels"])

    def update(sample: ObjectId, ids: list[ObjectId]) -> UpdateOne:
        changes = change(ids) if callable(change) else change
        return UpdateOne(
            {"_id": sample}, update_labels(path, {"$in": ["$$label._id", ids]}, changes)
        )

    bulk_update(samples, (update(sample, ids) for sample, ids in labels.items()))


def _update_chosen(
    samples: Any,
    path: str,
    chosen: list[Json],
    condition: Json,
    change: Json,
    without: Collection[str] = (),
) -> None:
    """Change labels of a dataset or a view, but not of patches, without loading anything.

    Args:
        samples: a dataset or a view.
        path: the path of the labels.
        chosen: a pipeline that gives, for each sample, the ids of its labels as ``chosen``.
        condition: an expression; of the chosen labels, those for which it is true are changed.
        change: attributes, as expressions of ``$$label``.
        without: attributes that go, unless the change has them.
    """
    condition = {"$and": [{"$in": ["$$label._id", "$$new.chosen"]}, condition]}
    merge_updates(samples, chosen, update_labels(path, condition, change, without))


def update_labels(
    path: str, condition: Json, change: Json, without: Collection[str] = ()
) -> list[Json]:
    """The update pipeline that changes the labels of a document for which a condition is true.

    Args:
        path: the path of the labels.
        condition: an expression of ``$$label``.
        change: attributes, as expressions of ``$$label``.
        without: attributes that go, unless the change has them.
    """
    stays = {"$not": [{"$in": ["$$pair.k", list(without)]}]}
    pairs = {"input": {"$objectToArray": "$$label"}, "as": "pair", "cond": stays}
    kept = {"$arrayToObject": {"$filter": pairs}} if without else "$$label"
    label = {"$cond": [condition, {"$mergeObjects": [kept, change]}, "$$label"]}
    modified = {"last_modified_at": "$$NOW"}
    if not _is_list(path):
        return [
            {"$set": {path: {"$let": {"vars": {"label": f"${path}"}, "in": label}}, **modified}}
        ]
    field = path.removesuffix(".detections")
    changed = {"$map": {"input": f"${path}", "as": "label", "in": label}}
    return [restored(field), {"$set": {path: changed, **modified}}, keeping(field)]


def _previous_decision() -> Json:
    """The attributes that a label had before its last decision, as expressions of ``$$label``."""
    past = {"$ifNull": [f"$$label.{PAST}", []]}
    before = {"$arrayElemAt": [past, 0]}
    change: Json = {
        name: {"$let": {"vars": {"past": before}, "in": {"$ifNull": [f"$$past.{name}", None]}}}
        for name in ATTRIBUTES
    }
    rest = {"$slice": [past, 1, {"$max": [1, {"$size": past}]}]}
    return {**change, PAST: {"$cond": [{"$eq": [past, []]}, "$$REMOVE", rest]}}
