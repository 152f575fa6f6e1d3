"""Decisions on labels as updates that the database makes by itself.

A label's document gets ``review``, ``reviewer`` and ``reviewed_at``; the decision that these
replace, if any, becomes the first of its list ``review_past``. The labels of a sample are a list;
in patches, each label is a document of its own: both are changed by the same expressions.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import fiftyone as fo
from bson import ObjectId
from bson.errors import InvalidId
from pymongo import UpdateOne

from promerge_fo.dataset.database import (
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
from promerge_fo.dataset.samples import require_detections, require_images

__all__ = [
    "ATTRIBUTES",
    "area_of",
    "decide_all",
    "decide_listed",
    "decision",
    "declare",
    "each_label",
    "ids_of",
    "is_undecided",
    "label_path",
    "only",
    "take_back",
    "update",
]

ATTRIBUTES = {
    "review": fo.StringField,
    "reviewer": fo.StringField,
    "reviewed_at": fo.DateTimeField,
}
_PAST = "review_past"  # not in the schema: nothing that the App should filter
_KEPT = 20  # earlier decisions that a label keeps
_TINY = 1e-9  # the area of nothing: it has a logarithm

Json = dict[str, Any]


def label_path(samples: Any, label_field: str) -> str:
    """The path of a field's labels: "promerge.detections", or "promerge" in patches of it.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples have no images.
        ValueError: a field that does not hold detections.
    """
    require_images(samples)
    if is_patches(samples):
        field = samples.get_field(label_field)
        if isinstance(field, fo.EmbeddedDocumentField) and field.document_type is fo.Detection:
            return label_field
    require_detections(samples, label_field)
    return f"{label_field}.detections"


def declare(samples: Any, label_field: str) -> None:
    """Have the attributes in the schemas of the samples and of where their labels are stored."""
    places = [(storage_of(samples), f"{label_field}.detections")]
    if is_patches(samples):
        places.append((samples, label_path(samples, label_field)))
    for collection, path in places:
        known = dataset_of(collection).get_field
        fields = {f"{path}.{name}": kind for name, kind in ATTRIBUTES.items()}
        add_fields(collection, {at: kind for at, kind in fields.items() if known(at) is None})


def decision(review: str, reviewer: str | None) -> Json:
    """What a decision that is made now changes in a label, by expressions of ``$$label``.

    The time is the database's own: one clock for all who review.
    """
    present = {name: f"$$label.{name}" for name in ATTRIBUTES}
    past = {"$concatArrays": [[present], {"$ifNull": [f"$$label.{_PAST}", []]}]}
    return {
        "review": review,
        "reviewer": {"$literal": reviewer},
        "reviewed_at": database_time(),
        _PAST: {"$cond": [is_undecided("$$label"), "$$REMOVE", {"$slice": [past, _KEPT]}]},
    }


def decide_listed(samples: Any, path: str, ids: Collection[str] | None, change: Json) -> int:
    """Change the labels with these ids, or all of some patches; one update a sample.

    Args:
        samples: a dataset, a view or patches.
        path: of the labels.
        ids: of labels; those that the samples do not have are left alone.
        change: from :func:`decision`.

    Returns:
        How many labels were changed.

    Raises:
        ValueError: what is no id.
    """
    found = _find(samples, path, ids)
    home = storage_of(samples)
    at = _path_at_home(path) if is_patches(samples) else path
    _update_each(home, at, change, "sample", found)
    if is_patches(samples):
        _update_each(samples, path, change, "_id", found)
    propagate(samples, path.removesuffix(".detections"))
    return len({label for row in found for label in row["labels"]})


def decide_all(samples: Any, path: str, change: Json) -> int:
    """Change all labels of a dataset or a view, not of patches, without reading them here.

    Returns:
        How many labels were changed.
    """
    count = int(samples.count(path))
    chosen = [{"$project": {"chosen": ids_of(path)}}]
    not_yet = {"$ne": ["$$label.reviewed_at", change["reviewed_at"]]}  # should one be met twice
    _merge(samples, path, chosen, not_yet, change)
    propagate(samples, path.removesuffix(".detections"))
    return count


def take_back(samples: Any, path: str) -> int:
    """Give the labels of the last decision the attributes that they had before.

    Args:
        samples: a dataset or a view; patches stand for all of where they were cut from.
        path: of the labels.

    Returns:
        How many labels were changed; 0 where no decision is left.
    """
    home, at, whole = storage_of(samples), path, samples
    if is_patches(samples):
        at, whole = _path_at_home(path), home

    def find(pipeline: list[Json]) -> Any:
        if whole is home:
            return aggregate_stored(home, pipeline)
        return aggregate(samples, pipeline)

    newest: list[Json] = [
        {"$project": {"last": {"$max": f"${at}.reviewed_at"}}},
        {"$group": {"_id": None, "last": {"$max": "$last"}}},
    ]
    last = next((row["last"] for row in find(newest)), None)
    if last is None:
        return 0
    decided_then = {"$eq": ["$$label.reviewed_at", last]}
    chosen = {"$filter": {"input": f"${at}", "as": "label", "cond": decided_then}}
    found = [{"$match": {f"{at}.reviewed_at": last}}, {"$project": {"labels": chosen}}]
    counted = [*found, {"$group": {"_id": None, "count": {"$sum": {"$size": "$labels"}}}}]
    count = next((int(row["count"]) for row in find(counted)), 0)
    change = _as_before()
    if whole is home:
        update_all(home, {f"{at}.reviewed_at": last}, update(at, decided_then, change))
    else:
        ids = [*found, {"$project": {"chosen": "$labels._id"}}]
        _merge(samples, at, ids, decided_then, change)
    if is_patches(samples):
        update_all(samples, {f"{path}.reviewed_at": last}, update(path, decided_then, change))
    propagate(samples, path.removesuffix(".detections"))
    return count


def each_label(path: str, value: Any) -> Json:
    """The list of what an expression of ``$$label`` gives for each label of a sample or patch."""
    labels = f"${path}" if _is_list(path) else [f"${path}"]
    return {"$map": {"input": {"$ifNull": [labels, []]}, "as": "label", "in": value}}


def only(path: str, *attributes: str) -> Json:
    """The stage that reads the labels' ids and these attributes, and not their masks."""
    return {"$project": {f"{path}.{name}": 1 for name in ("_id", *attributes)}}


def area_of(label: str) -> Json:
    """A label's ``area``, its mask's share of the image, or else that of its box; above 0."""
    sides = [{"$arrayElemAt": [f"{label}.bounding_box", i]} for i in (2, 3)]
    return {"$max": [{"$ifNull": [f"{label}.area", {"$multiply": sides}]}, _TINY]}


def is_undecided(label: str) -> Json:
    """Whether nobody has accepted or rejected a label."""
    return {"$eq": [{"$ifNull": [f"{label}.review", None]}, None]}


def ids_of(path: str) -> Any:
    """The ids of the labels of a sample or patch."""
    return {"$ifNull": [f"${path}._id", []]} if _is_list(path) else [f"${path}._id"]


def _path_at_home(path: str) -> str:
    """The path of the labels that patches were cut from."""
    return f"{path.removesuffix('.detections')}.detections"


def _is_list(path: str) -> bool:
    return path.endswith(".detections")


def _find(samples: Any, path: str, ids: Collection[str] | None) -> list[Json]:
    """Which of these labels, or of all, each sample has.

    Returns:
        Of each one that has some: ``_id``, ``sample`` (the same; of a patch, the id of the sample
        or frame that it was cut from) and ``labels`` (their ids).
    """
    pipeline: list[Json] = []
    wanted = None
    if ids is not None:
        try:
            wanted = {ObjectId(i) for i in ids}
        except InvalidId as error:
            raise ValueError(f"ids must be those of labels: {error}") from None
        pipeline.append({"$match": {f"{path}._id": {"$in": list(wanted)}}})
    sample = "$_id"
    if is_patches(samples):
        sample = f"${source_id(samples)}"
    pipeline.append({"$project": {"sample": sample, "labels": ids_of(path)}})
    rows = list(aggregate(samples, pipeline))
    for row in rows:
        row["labels"] = [i for i in row["labels"] if wanted is None or i in wanted]
    return [row for row in rows if row["labels"]]


def _update_each(stored_in: Any, path: str, change: Json, key: str, found: list[Json]) -> None:
    """Change labels that were found, where they are stored ("sample") or in patches ("_id")."""
    labels: dict[ObjectId, list[ObjectId]] = {}
    for row in found:
        labels.setdefault(row[key], []).extend(row["labels"])
    updates = [
        UpdateOne({"_id": sample}, update(path, {"$in": ["$$label._id", chosen]}, change))
        for sample, chosen in labels.items()
    ]
    bulk_update(stored_in, updates)


def _merge(samples: Any, path: str, chosen: list[Json], condition: Json, change: Json) -> None:
    """Change labels of a dataset or a view, not of patches, in the database alone.

    Args:
        samples: what the pipeline runs on.
        path: of the labels.
        chosen: a pipeline that gives the ids of each sample's labels, ``chosen``.
        condition: what must hold for such a ``$$label``, besides.
        change: attributes, by expressions of ``$$label``.
    """
    condition = {"$and": [{"$in": ["$$label._id", "$$new.chosen"]}, condition]}
    merge_updates(samples, chosen, update(path, condition, change))


def update(path: str, condition: Json, change: Json) -> list[Json]:
    """The update of a sample or a patch that changes its labels for which a condition holds."""
    label = {"$cond": [condition, {"$mergeObjects": ["$$label", change]}, "$$label"]}
    value: Json
    if _is_list(path):
        value = {"$map": {"input": f"${path}", "as": "label", "in": label}}
    else:
        value = {"$let": {"vars": {"label": f"${path}"}, "in": label}}
    return [{"$set": {path: value, "last_modified_at": "$$NOW"}}]


def _as_before() -> Json:
    """The attributes of a label before its last decision."""
    past = {"$ifNull": [f"$$label.{_PAST}", []]}
    before = {"$arrayElemAt": [past, 0]}
    change: Json = {
        name: {"$let": {"vars": {"past": before}, "in": {"$ifNull": [f"$$past.{name}", None]}}}
        for name in ATTRIBUTES
    }
    rest = {"$slice": [past, 1, {"$max": [1, {"$size": past}]}]}
    return {**change, _PAST: {"$cond": [{"$eq": [past, []]}, "$$REMOVE", rest]}}
