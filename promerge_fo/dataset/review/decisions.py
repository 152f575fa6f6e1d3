"""Review: a person accepts or rejects masks, and the decisions are stored with the labels.

A decision is three attributes of a label: ``review`` ("accepted", "rejected", or None while it is
undecided), ``reviewer`` and ``reviewed_at``. They are part of the label, so clones and exports keep
them, and Python and the App's sidebar can filter by them. Earlier decisions stay in the label's
``review_past``, so that decisions can be undone.

The database itself makes the decisions, so one call can decide on every label of a view. The module
:mod:`promerge_fo.dataset.review.queue` finds the labels to look at first.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from promerge_fo.dataset.database import aggregate, is_patches, root_dataset
from promerge_fo.dataset.decided import ATTRIBUTES
from promerge_fo.dataset.review.updates import (
    area_of,
    decide_all,
    decide_listed,
    decision,
    declare,
    each_label,
    ids_of,
    is_finite,
    label_path,
    reviewed_path,
    take_back,
)
from promerge_fo.dataset.samples import images_of

__all__ = [
    "ACCEPTED",
    "REJECTED",
    "Progress",
    "accept",
    "decide",
    "enable_annotation",
    "list_labels",
    "prepare_review",
    "reject",
    "review_progress",
    "undo",
]

ACCEPTED, REJECTED = "accepted", "rejected"


@dataclass(frozen=True)
class Progress:
    """How far a review has come.

    Attributes:
        total: the number of labels.
        accepted: how many of them are accepted.
        rejected: how many of them are rejected.
    """

    total: int
    accepted: int
    rejected: int

    @property
    def decided(self) -> int:
        """The number of labels that are accepted or rejected."""
        return self.accepted + self.rejected

    @property
    def undecided(self) -> int:
        """The number of labels that are neither accepted nor rejected."""
        return self.total - self.decided

    def __str__(self) -> str:
        text = f"{self.decided:,} of {self.total:,}"
        if self.decided == 0:
            return text
        return f"{text}, {100 * self.accepted / self.decided:.0f} % accepted"


def accept(
    samples: Any,
    label_field: str,
    ids: Collection[str] | None = None,
    reviewer: str | None = None,
) -> int:
    """Accept labels, as masks that can be trusted.

    Args:
        samples: a dataset, a view or a patches view. Labels are found faster among fewer samples.
            In a patches view, the labels that the patches were made from are accepted, too.
        label_field: a field with detections.
        ids: the ids of the labels; ids that ``samples`` does not contain are ignored. None accepts
            every label of ``samples`` without loading them. To accept labels by a rule, give a
            filtered view.
        reviewer: the name of the person who decides.

    Returns:
        The number of labels that were accepted. Labels that were accepted before count as well, and
        get the new reviewer.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images.
        ValueError: the field does not hold detections, or ``ids`` has something that is not an id.

    Examples:
        >>> from fiftyone import ViewField as F
        >>> accept(dataset, "promerge", [label.id], reviewer="Ada")
        1
        >>> sure = dataset.filter_labels("promerge", F("confidence") > 0.8)
        >>> accept(sure, "promerge", reviewer="Ada")
        4
    """
    return _decide(samples, label_field, ACCEPTED, ids, reviewer)


def reject(
    samples: Any,
    label_field: str,
    ids: Collection[str] | None = None,
    reviewer: str | None = None,
) -> int:
    """Reject labels, as masks that should not be used. Otherwise the same as :func:`accept`."""
    return _decide(samples, label_field, REJECTED, ids, reviewer)


def decide(
    samples: Any,
    label_field: str,
    accepted: Collection[str],
    rejected: Collection[str],
    reviewer: str | None = None,
) -> int:
    """Accept some labels and reject others as one decision, which one :func:`undo` takes back.

    Args:
        samples: a dataset, a view or a patches view, as for :func:`accept`.
        label_field: a field with detections.
        accepted: the ids of the labels to accept.
        rejected: the ids of the labels to reject.
        reviewer: the name of the person who decides.

    Returns:
        The number of labels that were decided on.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images.
        ValueError: the field does not hold detections, a label is in both lists, or one of the
            lists has something that is not an id.
    """
    both = set(accepted) & set(rejected)
    if both:
        raise ValueError(
            f"{len(both)} labels are in both lists, accepted and rejected, such as {min(both)}; "
            "put each label into one of them"
        )
    path = _declared_path(samples, label_field)
    change = decision(ACCEPTED, reviewer)
    count = decide_listed(samples, path, accepted, change)
    return count + decide_listed(samples, path, rejected, {**change, "review": REJECTED})


def undo(samples: Any, label_field: str) -> int:
    """Take back the last decision, whether it was on one label or on a million.

    The labels become what they were before it: undecided, or as an earlier decision left them. Call
    it again to take back the decision before that. Each label keeps its 20 latest decisions.

    Args:
        samples: a dataset or a view: the last decision on any of its labels is taken back, and only
            labels of the view change. A patches view stands for the whole dataset that its patches
            were made from, because labels often leave the patches view once they are decided on.
        label_field: a field with detections.

    Returns:
        The number of labels that changed; 0 if there was nothing to take back.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images.
        ValueError: the field does not hold detections.
    """
    samples = images_of(samples)
    return take_back(samples, reviewed_path(samples, label_field))


def review_progress(samples: Any, label_field: str) -> Progress:
    """Count the labels, and how many of them are accepted and rejected.

    Args:
        samples: a dataset, a view or a patches view.
        label_field: a field with detections.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images.
        ValueError: the field does not hold detections.

    Examples:
        >>> accept(dataset, "promerge", [label.id])
        1
        >>> print(review_progress(dataset, "promerge"))
        1 of 8, 100 % accepted
    """
    path = reviewed_path(samples, label_field)
    reviews = each_label(path, "$$label.review")
    counts: dict[str, Any] = {"total": {"$size": [ids_of(path)]}}  # a list of lists
    for state in (ACCEPTED, REJECTED):
        chosen = {"$filter": {"input": reviews, "cond": {"$eq": ["$$this", state]}}}
        counts[state] = {"$size": chosen}
    sums = {name: {"$sum": f"${name}"} for name in counts}
    rows = aggregate(samples, [{"$project": counts}, {"$group": {"_id": None, **sums}}])
    row = next(iter(rows), dict.fromkeys(counts, 0))
    return Progress(*(int(row[name]) for name in counts))


def list_labels(samples: Any, label_field: str) -> list[dict[str, Any]]:
    """List the labels of a few samples with the decisions on them, but without their masks.

    Args:
        samples: a dataset, a view or a patches view, with few samples.
        label_field: a field with detections.

    Returns:
        One dictionary per label, in stored order: ``id``; ``sample_id`` (in a patches view, the
        patch's id); ``score`` (None if the label has none); ``area`` (the mask's share of the
        image, or that of the box if the label has no area); ``review`` and ``reviewer`` (None if
        the label is undecided).

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images.
        ValueError: the field does not hold detections.
    """
    path = reviewed_path(samples, label_field)
    label = {
        "id": {"$toString": "$$label._id"},
        "score": {"$cond": [is_finite("$$label.confidence"), "$$label.confidence", None]},
        "area": area_of("$$label"),
        "review": {"$ifNull": ["$$label.review", None]},
        "reviewer": {"$ifNull": ["$$label.reviewer", None]},
    }
    rows = aggregate(samples, [{"$project": {"labels": each_label(path, label)}}])
    return [{"sample_id": str(row["_id"]), **found} for row in rows for found in row["labels"]]


def prepare_review(samples: Any, label_field: str) -> None:
    """Declare the review attributes in the schema, so that the App's sidebar can filter by them.

    Args:
        samples: a dataset or a view.
        label_field: a field with detections.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images.
        ValueError: the field does not hold detections.
    """
    _declared_path(samples, label_field)


def enable_annotation(samples: Any, label_field: str) -> None:
    """Make the masks of a field editable in the App, in the Annotate tab of a sample.

    Edited masks are exported and evaluated in their edited form, but the attribute ``area`` is not
    updated. The Annotate tab shows the review attributes read-only. If the field already has a
    label schema, it is kept.

    Args:
        samples: a dataset or a view; the setting applies to the whole dataset.
        label_field: a field with detections.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images.
        ValueError: the field does not hold detections.
    """
    prepare_review(samples, label_field)
    dataset = root_dataset(samples)
    if label_field not in dataset.label_schemas:
        schema = dataset.generate_label_schemas(label_field, scan_samples=False)
        for attribute in schema["attributes"]:
            if attribute["name"] in ATTRIBUTES:
                attribute["read_only"] = True
        dataset.update_label_schema(label_field, schema)
    if label_field not in dataset.active_label_schemas:
        dataset.activate_label_schemas(label_field)


def _declared_path(samples: Any, label_field: str) -> str:
    """The path of a field's labels, after declaring their review attributes in the schema."""
    path = label_path(samples, label_field)
    declare(samples, label_field)
    return path


def _decide(
    samples: Any,
    label_field: str,
    review: str,
    ids: Collection[str] | None,
    reviewer: str | None,
) -> int:
    path = _declared_path(samples, label_field)
    change = decision(review, reviewer)
    if ids is None and not is_patches(samples):
        return decide_all(samples, path, change)
    return decide_listed(samples, path, ids, change)
