"""Review: masks accepted or rejected by a person, on the labels themselves.

A decision is three attributes of a label: ``review`` ("accepted" or "rejected"; None where nobody
has decided), ``reviewer`` and ``reviewed_at``. They last, travel with the labels into clones and
exports, and can be filtered in Python and in the App's sidebar. What a decision replaced stays in
the label's ``review_past``, so that decisions can be taken back.

Decisions are made in the database, whole filters at once; what should be looked at first is in
:mod:`promerge_fo.dataset.review.queue`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from promerge_fo.dataset.database import aggregate, is_patches, root_dataset
from promerge_fo.dataset.review.updates import (
    ATTRIBUTES,
    area_of,
    decide_all,
    decide_listed,
    decision,
    declare,
    each_label,
    ids_of,
    label_path,
    take_back,
)

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
    """How far a review is.

    Attributes:
        total: labels.
        accepted: of these.
        rejected: of these.
    """

    total: int
    accepted: int
    rejected: int

    @property
    def decided(self) -> int:
        """Labels that somebody has accepted or rejected."""
        return self.accepted + self.rejected

    @property
    def undecided(self) -> int:
        """Labels that nobody has decided on."""
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
    """Accept labels: they are to be trusted.

    Args:
        samples: a dataset or a view; the fewer samples, the sooner the labels are found. Of
            patches, also the labels that they were cut from are accepted.
        label_field: a field with detections.
        ids: of the labels; those that ``samples`` does not have are left alone. None takes every
            label of ``samples``, without reading them: filter labels to accept by a rule.
        reviewer: who decides.

    Returns:
        How many labels were accepted; what was accepted already is so once more, by this reviewer.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples have no images.
        ValueError: a field that does not hold detections.

    Examples:
        >>> accept(dataset, "promerge", [label.id], reviewer="Ada")  # doctest: +SKIP
        1
        >>> sure = dataset.filter_labels("promerge", F("confidence") > 0.9)  # doctest: +SKIP
        >>> accept(sure, "promerge", reviewer="Ada")  # doctest: +SKIP
        203112
    """
    return _decide(samples, label_field, ACCEPTED, ids, reviewer)


def reject(
    samples: Any,
    label_field: str,
    ids: Collection[str] | None = None,
    reviewer: str | None = None,
) -> int:
    """Reject labels: they are to be left out. Otherwise as :func:`accept`."""
    return _decide(samples, label_field, REJECTED, ids, reviewer)


def decide(
    samples: Any,
    label_field: str,
    accepted: Collection[str],
    rejected: Collection[str],
    reviewer: str | None = None,
) -> int:
    """Accept some labels and reject others, which :func:`undo` takes back as one decision.

    Args:
        samples: a dataset or a view, as for :func:`accept`.
        label_field: a field with detections.
        accepted: ids of labels.
        rejected: ids of other labels.
        reviewer: who decides.

    Returns:
        How many labels were decided on.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples have no images.
        ValueError: a field that does not hold detections, or a label that is in both.
    """
    both = set(accepted) & set(rejected)
    if both:
        raise ValueError(
            f"{len(both)} labels are to be accepted and rejected, such as {min(both)}; decide"
        )
    path = _prepared(samples, label_field)
    change = decision(ACCEPTED, reviewer)
    count = decide_listed(samples, path, accepted, change)
    return count + decide_listed(samples, path, rejected, {**change, "review": REJECTED})


def undo(samples: Any, label_field: str) -> int:
    """Take back the last decision, be it on one label or on a million.

    Its labels are as they were before: undecided, or as decided earlier. Called again, it takes
    back the decision before; each label keeps its 20 latest ones.

    Args:
        samples: a dataset or a view: the last decision among its labels is taken back, on these.
            Patches stand for the whole dataset that they were cut from, as what was decided last
            is often no longer among them.
        label_field: a field with detections.

    Returns:
        How many labels it changed; 0 where there is nothing to take back.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples have no images.
        ValueError: a field that does not hold detections.
    """
    return take_back(samples, label_path(samples, label_field))


def review_progress(samples: Any, label_field: str) -> Progress:
    """How many labels there are, and how many are accepted and rejected.

    Args:
        samples: a dataset, a view or patches.
        label_field: a field with detections.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples have no images.
        ValueError: a field that does not hold detections.

    Examples:
        >>> print(review_progress(dataset, "promerge"))  # doctest: +SKIP
        412 of 1,903, 38 % accepted
    """
    path = label_path(samples, label_field)
    reviews = each_label(path, "$$label.review")

    def of(state: str) -> dict[str, Any]:
        return {"$size": {"$filter": {"input": reviews, "cond": {"$eq": ["$$this", state]}}}}

    counts = {"total": {"$size": ids_of(path)}, ACCEPTED: of(ACCEPTED), REJECTED: of(REJECTED)}
    sums = {name: {"$sum": f"${name}"} for name in counts}
    rows = aggregate(samples, [{"$project": counts}, {"$group": {"_id": None, **sums}}])
    row = next(iter(rows), dict.fromkeys(counts, 0))
    return Progress(*(int(row[name]) for name in counts))


def list_labels(samples: Any, label_field: str) -> list[dict[str, Any]]:
    """The labels of some samples and what was decided on them, without their masks.

    Args:
        samples: a dataset, a view or patches; meant for few samples.
        label_field: a field with detections.

    Returns:
        Of each label, in stored order: ``id``, ``sample_id`` (of patches, the patch's), ``score``
        (None without one), ``area`` (share of the image; of the box where the label has none),
        ``review`` and ``reviewer`` (None where nobody has decided).

    Raises:
        fiftyone.core.media.MediaTypeError: the samples have no images.
        ValueError: a field that does not hold detections.
    """
    path = label_path(samples, label_field)
    label = {
        "id": {"$toString": "$$label._id"},
        "score": {"$ifNull": ["$$label.confidence", None]},
        "area": area_of("$$label"),
        "review": {"$ifNull": ["$$label.review", None]},
        "reviewer": {"$ifNull": ["$$label.reviewer", None]},
    }
    rows = aggregate(samples, [{"$project": {"labels": each_label(path, label)}}])
    return [{"sample_id": str(row["_id"]), **found} for row in rows for found in row["labels"]]


def prepare_review(samples: Any, label_field: str) -> None:
    """Declare the attributes of decisions in the schema, so that the App's sidebar filters them.

    Args:
        samples: a dataset or a view.
        label_field: a field with detections.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples have no images.
        ValueError: a field that does not hold detections.
    """
    _prepared(samples, label_field)


def enable_annotation(samples: Any, label_field: str) -> None:
    """Let masks of a field be mended in the App: the Annotate tab of a sample edits it.

    Mended masks are exported and evaluated as they are then; ``area`` stays that of the mask
    before. The review's own attributes are shown there and cannot be edited. A label schema that
    the field has is kept.

    Args:
        samples: a dataset, or a view of one; the dataset is what is changed.
        label_field: a field with detections.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples have no images.
        ValueError: a field that does not hold detections.
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


def _prepared(samples: Any, label_field: str) -> str:
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
    path = _prepared(samples, label_field)
    change = decision(review, reviewer)
    if ids is None and not is_patches(samples):
        return decide_all(samples, path, change)
    return decide_listed(samples, path, ids, change)
