"""What people did to labels: it outlives the App's way of writing labels, and the next run.

A label has been worked on if it is accepted or rejected, has tags, has another name than its run
gave it, or a mask that was painted in the App.

- The App's Annotate tab writes back the whole label that it holds, with the decision and the name
  that it had when the tab was opened. So a sample's field keeps decisions and names a second time,
  beside its labels, with the time when it did; :func:`mend` restores those that were overwritten.
- A run replaces all labels of an image. A mask of the new run that nearly equals one that was
  worked on (IoU over 0.9) takes its place: with its id, decision, name, tags and painted mask; a
  label whose name was handed on says so (``name_from_run``). What finds no such mask is kept with
  the record of the run that made it, and :func:`restore_decisions` brings it back.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from itertools import chain
from typing import Any

import fiftyone as fo
import numpy as np
from bson import ObjectId, json_util
from pycocotools import mask as coco_mask
from pymongo import UpdateOne

from promerge_fo.annotations.untrusted_masks import EntryError
from promerge_fo.config import METHODS
from promerge_fo.dataset.database import (
    aggregate,
    bulk_update,
    documents,
    documents_of,
    is_generated,
    is_patches,
    propagate,
    root_dataset,
    storage_of,
    update_all,
)
from promerge_fo.dataset.labels import LABEL
from promerge_fo.dataset.provenance import (
    keep_with_run,
    kept_with_run,
    load_run,
    method_of,
)
from promerge_fo.dataset.stored_labels import StoredLabel, annotation_of

__all__ = [
    "ATTRIBUTES",
    "NAMED",
    "NAMED_PAST",
    "PAST",
    "DecisionsLostError",
    "Kept",
    "is_undecided",
    "keeping",
    "mend",
    "restore_decisions",
    "restored",
]

logger = logging.getLogger("fiftyone.promerge")

ATTRIBUTES = {
    "review": fo.StringField,
    "reviewer": fo.StringField,
    "reviewed_at": fo.DateTimeField,
}
PAST = "review_past"  #: not declared in the schema, because the App should not filter by it
NAMED = {
    "former_label": fo.StringField,
    "named_by": fo.StringField,
    "named_at": fo.DateTimeField,
    "name_distance": fo.FloatField,
    "name_from_run": fo.StringField,
}
NAMED_PAST = "name_past"  #: as :data:`PAST`, of names
SAME_IOU = 0.9  #: above which a new mask takes the place of one that was worked on
_KEPT = "decisions"  # of a sample's field, beside its labels
_KEPT_AT = "decisions_at"
#: What is kept a second time, by the attribute that says when it was decided.
_TIMED = {"reviewed_at": tuple(ATTRIBUTES), "named_at": ("label", *NAMED)}

Json = dict[str, Any]


class DecisionsLostError(ValueError):
    """A run would lose what people did to labels."""


class Kept:
    """The labels of some images that people have worked on, before a run replaces them.

    Args:
        parts: the images that the run will do, as :func:`~promerge_fo.dataset.samples.settled`
            returns them.
        label_field: the field with the labels.
    """

    def __init__(self, parts: Sequence[Any], label_field: str) -> None:
        self._field = label_field
        self._labels: dict[str, list[Json]] = {}
        self._runs: dict[str, str | None] = {}
        self.paths: dict[str, str] = {}  #: of the images that have such labels, by their ids
        if not parts or is_generated(parts[0]) or not parts[0].has_field(label_field):
            return
        self._dataset = root_dataset(parts[0])
        mend(parts[0], label_field)
        for row in chain.from_iterable(_worked_on(part, label_field) for part in parts):
            sample_id = str(row["_id"])
            self._labels[sample_id] = row["labels"]
            self._runs[sample_id] = row["run"]
            self.paths[sample_id] = row["filepath"]

    def __bool__(self) -> bool:
        return bool(self._labels)

    def hand_on(self, sample_id: str, made: Json) -> list[Json]:
        """Give the new labels of an image what people did to the old ones.

        Args:
            sample_id: the id of the image's sample.
            made: the new labels' field as the database stores it; changed in place.

        Returns:
            The old labels that no new one nearly equals.
        """
        if sample_id not in self._labels:
            return []
        made["detections"] = labels = [dict(label) for label in made["detections"]]
        lost = _take_over(self._labels[sample_id], labels, self._runs[sample_id])
        made[_KEPT] = [
            {"_id": label["_id"], **{name: label.get(name) for name in sum(_TIMED.values(), ())}}
            for label in labels
            if label.get("review") is not None or label.get("named_at") is not None
        ]
        made[_KEPT_AT] = datetime.now(timezone.utc)
        return lost

    def check(self, made: Iterable[tuple[str, Sequence[Json]]], drop: bool) -> None:
        """Do :meth:`part_with` what a run would lose, before it begins.

        Args:
            made: the ids of all images in :attr:`paths`, with the labels that the run will make.
            drop: whether it may be lost.

        Raises:
            DecisionsLostError: it may not.
        """
        self.part_with({i: _take_over(self._labels[i], labels) for i, labels in made}, drop)

    def part_with(self, lost: Mapping[str, Sequence[Json]], drop: bool) -> None:
        """Keep labels with the records of the runs that made them, or refuse to lose them.

        Args:
            lost: the labels, by the ids of their samples.
            drop: whether they may be lost.

        Raises:
            DecisionsLostError: they may not.
        """
        count = sum(map(len, lost.values()))
        if not count:
            return
        if not drop:
            total = sum(map(len, self._labels.values()))
            raise DecisionsLostError(
                f"people have worked on {total:,} masks of '{self._field}' in these images, and no "
                f"new mask equals {count:,} of them: decisions, names, tags or painted masks would "
                "be lost. Nothing was changed. Give another field, or drop_decisions="
                "True (--drop-decisions; a box in the App's form): they are then kept with the "
                "record of their run, from which restore_decisions brings them back"
            )
        by_run: dict[str | None, list[Json]] = defaultdict(list)
        for sample_id, labels in lost.items():
            entries = [{"sample": sample_id, "label": label} for label in labels]
            by_run[self._runs[sample_id]] += entries
        for run, entries in by_run.items():
            texts = [json_util.dumps(entry) for entry in entries]
            key = keep_with_run(self._dataset, self._field, run or "norun", texts)
            logger.warning(
                "promerge: what people did to %d masks is kept with the run %s; restore_decisions("
                "dataset, %r) brings it back",
                len(entries), key, key,
            )  # fmt: skip


def restore_decisions(samples: Any, key: str) -> int:
    """Bring back what people did to labels that a later run replaced.

    A label that nearly equals a lost one (IoU over 0.9) takes its decision, name, tags and painted
    mask; where there is none, the lost label is added to the field again.

    Args:
        samples: a dataset, or a view of one; the whole dataset is changed.
        key: the key of the run that had made the labels, from
            :func:`~promerge_fo.dataset.list_runs`.

    Returns:
        The number of labels restored.

    Raises:
        ValueError: the dataset has no such run, or nothing is kept with it.
    """
    dataset = root_dataset(samples)
    record = load_run(dataset, key)
    field, run = record["label_field"], record["run_hash"]
    entries = [json_util.loads(text) for text in kept_with_run(dataset, key)]
    if not entries:
        raise ValueError(f"nothing that people did is kept with the run {key!r}")
    lost: dict[str, list[Json]] = defaultdict(list)
    for entry in entries:
        lost[entry["sample"]].append(entry["label"])
    path, count = f"{field}.detections", 0

    def update(document: Json) -> UpdateOne:
        nonlocal count
        labels = (document.get(field) or {}).get("detections") or []
        old = lost[str(document["_id"])]
        labels += _take_over(old, labels, run)
        count += len(old)
        changed = {"$set": {path: {"$literal": labels}, "last_modified_at": "$$NOW"}}
        return UpdateOne({"_id": document["_id"]}, [changed, keeping(field)])

    found = documents_of(dataset, map(ObjectId, lost), field)
    bulk_update(dataset, map(update, found), durable=True)
    propagate(dataset, field)
    return count


def mend(samples: Any, label_field: str) -> None:
    """Restore the decisions that the App has overwritten since they were made.

    Args:
        samples: a dataset, a view or a patches view; what is stored is mended as a whole.
        label_field: a field with detections.
    """
    storage = storage_of(samples)
    kept_at = f"{label_field}.{_KEPT_AT}"
    touched: Json = {
        kept_at: {"$exists": True},
        "$expr": {"$gt": ["$last_modified_at", f"${kept_at}"]},
    }
    update = [restored(label_field), {"$set": {"last_modified_at": "$$NOW"}}, keeping(label_field)]
    if not update_all(storage, touched, update):
        return
    propagate(samples, label_field)
    if is_patches(samples):
        samples.reload()


def is_undecided(label: str) -> Json:
    """The expression for whether a label is neither accepted nor rejected."""
    return {"$eq": [{"$ifNull": [f"{label}.review", None]}, None]}


def restored(field: str) -> Json:
    """The stage that gives a field's labels the decisions and names that it keeps of them.

    The time tells: whoever else changes a decision or a name leaves the time of it alone.
    """
    same = {"$eq": ["$$kept._id", "$$label._id"]}
    kept = {"input": {"$ifNull": [f"${field}.{_KEPT}", []]}, "as": "kept", "cond": same}
    found = {"$ne": [{"$type": "$$own"}, "missing"]}
    parts: list[Any] = ["$$label"]
    for time, names in _TIMED.items():
        own, present = ({"$ifNull": [f"$${of}.{time}", None]} for of in ("own", "label"))
        overwritten = {"$and": [found, {"$ne": [own, present]}]}
        parts.append({"$cond": [overwritten, {n: f"$$own.{n}" for n in names}, {}]})
    first = {"$arrayElemAt": [{"$filter": kept}, 0]}
    label = {"$let": {"vars": {"own": first}, "in": {"$mergeObjects": parts}}}
    path = f"{field}.detections"
    return {"$set": {path: {"$map": {"input": f"${path}", "as": "label", "in": label}}}}


def keeping(field: str) -> Json:
    """The stage that keeps decisions on a field's labels and their names, also those taken back."""
    known = {"$in": ["$$label._id", {"$ifNull": [f"${field}.{_KEPT}._id", []]}]}
    named = {"$ne": [{"$ifNull": ["$$label.named_at", None]}, None]}
    decided = {"$or": [known, named, {"$not": [is_undecided("$$label")]}]}
    labels = {"$filter": {"input": f"${field}.detections", "as": "label", "cond": decided}}
    names = sum(_TIMED.values(), ())
    entry = {"_id": "$$label._id", **{n: {"$ifNull": [f"$$label.{n}", None]} for n in names}}
    kept = {"$map": {"input": labels, "as": "label", "in": entry}}
    return {"$set": {f"{field}.{_KEPT}": kept, f"{field}.{_KEPT_AT}": "$$NOW"}}


def _worked_on(samples: Any, field: str) -> Iterator[Json]:
    """The images with labels that people have worked on: ``_id``, ``filepath``, ``run``, labels."""
    dataset = root_dataset(samples)
    made = samples.distinct(f"{field}.run") if samples.has_field(f"{field}.run") else []
    named_by_run = [run for run in made if method_of(dataset, field, run) in METHODS]
    is_named = {
        "$and": [
            {"$in": [f"${field}.run", named_by_run]},
            {"$ne": [{"$ifNull": ["$$label.label", LABEL]}, LABEL]},
        ]
    }
    has_tags = {"$gt": [{"$size": {"$ifNull": ["$$label.tags", []]}}, 0]}
    was_named = {"$ne": [{"$ifNull": ["$$label.named_by", None]}, None]}
    chosen = {"$or": [{"$not": [is_undecided("$$label")]}, has_tags, is_named, was_named]}
    labels = {"$ifNull": [f"${field}.detections", []]}
    can_be_painted = field in dataset.active_label_schemas
    found = {"$filter": {"input": labels, "as": "label", "cond": chosen}}
    written = {"$max": {"$map": {"input": labels, "as": "l", "in": {"$toDate": "$$l._id"}}}}
    rows = aggregate(
        samples,
        [
            {
                "$project": {
                    "filepath": True,
                    "run": {"$ifNull": [f"${field}.run", None]},
                    "found": {"$map": {"input": found, "as": "l", "in": "$$l._id"}},
                    "touched": {"$gt": ["$last_modified_at", written]},
                }
            },
            {"$match": {"$or": [{"found.0": {"$exists": True}}, {"touched": can_be_painted}]}},
        ],
    )
    for row in rows:
        (document,) = documents(dataset, {"_id": row["_id"]}, field)
        stored = document[field]["detections"] if document.get(field) else []
        kept = [
            label
            for label in stored
            if label["_id"] in row["found"] or (can_be_painted and _is_painted(label))
        ]
        if kept:
            yield {**row, "labels": kept}


def _is_painted(label: Json) -> bool:
    """Whether a mask was drawn in the App, which does not write boolean masks."""
    with suppress(Exception):  # decoders raise anything on broken masks
        mask = StoredLabel(label).mask
        return mask is not None and mask.dtype != np.bool_
    return False


def _take_over(old: Sequence[Json], made: Sequence[Json], run: str | None = None) -> list[Json]:
    """Give new labels what people did to the old ones, which that run had made.

    Returns:
        The old labels that no new one equals.
    """
    size = next(filter(None, map(_size_of, made)), None)
    if not old or size is None:
        return list(old)
    old_masks, new_masks = (
        [_annotation(label, size) for label in labels] for labels in (old, made)
    )
    ious = np.zeros((len(old), len(made)))
    rows = [i for i, each in enumerate(old_masks) if each is not None and "segmentation" in each]
    columns = [i for i, each in enumerate(new_masks) if each is not None]
    if rows and columns:
        ious[np.ix_(rows, columns)] = coco_mask.iou(
            [old_masks[i]["segmentation"] for i in rows],  # type: ignore[index]
            [new_masks[i]["segmentation"] for i in columns],  # type: ignore[index]
            [0] * len(columns),
        )
    left = dict(enumerate(old))
    for i, j in sorted(np.argwhere(ious > SAME_IOU).tolist(), key=lambda ij: -ious[tuple(ij)]):
        if i in left and not np.isnan(ious[i, j]):
            _hand_over(left.pop(i), made, j, run)
            ious[:, j] = np.nan
    return list(left.values())


def _annotation(label: Json, size: tuple[int, int]) -> Json | None:
    """As :func:`annotation_of`; None also for a label that cannot be used or has lost its file."""
    try:
        return annotation_of(StoredLabel(label), size)
    except (EntryError, FileNotFoundError):
        return None


def _hand_over(old: Mapping[str, Any], made: Sequence[Json], number: int, run: str | None) -> None:
    """Put a label that was worked on in the place of a new one, which gives it its measurements."""
    label = made[number]
    for other in made:
        if other.get("parent") == str(label["_id"]):
            other["parent"] = str(old["_id"])
    names = ["_id", "tags", "attributes", PAST, *ATTRIBUTES, NAMED_PAST, *NAMED]
    if _is_painted(dict(old)):
        names += ["mask", "bounding_box"]
    is_named = old.get("named_by") is not None or old.get("label") not in (None, LABEL)
    if is_named:
        names.append("label")
    label.update({name: old[name] for name in names if name in old})
    if is_named and run is not None:
        label["name_from_run"] = run


def _size_of(label: Json) -> tuple[int, int] | None:
    """(height, width) of the image of a label that a run made; None if it has no mask."""
    stored = StoredLabel(label)
    mask = stored.mask if stored.mask_path is None else stored.get_mask()
    if mask is None or _is_painted(label):
        return None
    _, _, width, height = label["bounding_box"]
    return round(mask.shape[0] / height), round(mask.shape[1] / width)
