"""The review queue: the database finds the most doubtful labels, one page at a time.

Even among a million labels, only those of one page are loaded and shown as patches.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias, get_args

import fiftyone as fo

from promerge_fo.dataset.database import aggregate, is_patches, storage_of
from promerge_fo.dataset.decided import is_undecided
from promerge_fo.dataset.review.updates import (
    area_of,
    declare,
    each_label,
    label_path,
    reviewed_path,
    select_attributes,
)
from promerge_fo.dataset.samples import images_of

__all__ = ["ORDERS", "Order", "require_groups", "review_queue"]

Order: TypeAlias = Literal["score", "disagreement", "size", "typicality"]
ORDERS: tuple[Order, ...] = get_args(Order)

Json = dict[str, Any]

_STEPS = 100  # the median area is found in steps of 1/100 of the logarithm: to within 1 %


def review_queue(
    samples: Any,
    label_field: str,
    order: Order = "score",
    other_field: str | None = None,
    limit: int = 48,
) -> fo.DatasetView:
    """Get the most doubtful of the undecided labels, as one page of patches.

    Only the labels of the page are loaded, so the first page is fast even for a million labels.
    When the page is decided on, call this again for the next one.

    Args:
        samples: a dataset, a view or a patches view.
        label_field: a field with detections.
        order: which labels come first. "score": those with the lowest ``confidence``.
            "disagreement": those whose masks have the lowest IoU with the best matching mask of
            ``other_field``. "size": those whose area is the most times larger or smaller than the
            median area of all labels. "typicality": those that are least typical of their group,
            from :func:`~promerge_fo.dataset.group_instances`. Labels that have no such value come
            last.
        other_field: the field to compare with, for "disagreement". Labels that were not compared
            with it yet are first measured by :func:`~promerge_fo.dataset.measure_agreement`.
        limit: the largest number of labels on the page.

    Returns:
        A patches view, the most doubtful labels first; it is empty when all labels are decided.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images.
        ValueError: the field does not hold detections, there is no such order, the limit is below
            1, the order is "disagreement" and there is no other field, or it is "typicality" and
            the field has no groups.

    Examples:
        >>> from promerge_fo.dataset import accept
        >>> session.view = review_queue(dataset, "promerge")
        >>> accept(session.view, "promerge", session.selected, "Ada")
        3
    """
    samples = images_of(samples)
    path = reviewed_path(samples, label_field)
    if order not in ORDERS:
        raise ValueError(f"the order is {order!r}, but must be one of {', '.join(ORDERS)}")
    if limit < 1:
        raise ValueError(f"the limit is {limit}, but must be at least 1")
    declare(samples, label_field)
    attributes: tuple[str, ...]
    value: Json | str  # the labels with the lowest values come first
    if order == "score":
        attributes, value = ("confidence",), "$$label.confidence"
    elif order == "size":
        distance = {"$subtract": [{"$ln": area_of("$$label")}, _median_log_area(samples, path)]}
        attributes, value = ("area", "bounding_box"), {"$multiply": [-1, {"$abs": distance}]}
    elif order == "typicality":
        require_groups(samples, label_field)
        attributes, value = ("typicality",), "$$label.typicality"
    else:
        attribute = _measured_attribute(samples, path, label_field, other_field)
        attributes, value = (attribute,), f"$$label.{attribute}"
    found = _most_doubtful(samples, path, attributes, value, limit)
    if is_patches(samples):
        return samples.select([sample for sample, _ in found], ordered=True)
    ids = [label for _, label in found]
    images = list(dict.fromkeys(sample for sample, _ in found))
    chosen = samples.select(images).select_labels(ids=ids, fields=label_field)
    return chosen.to_patches(label_field).select(ids, ordered=True)


def require_groups(samples: Any, label_field: str) -> None:
    """Check that the labels of a field were put into groups.

    Raises:
        ValueError: none of them has a ``typicality``.
    """
    if not samples.has_field(f"{label_path(samples, label_field)}.typicality"):
        raise ValueError(
            f"the masks of {label_field!r} are in no groups, so none is more typical than another; "
            "make groups first: promerge group, or group_instances"
        )


def _most_doubtful(
    samples: Any, path: str, attributes: tuple[str, ...], value: Json | str, limit: int
) -> list[tuple[str, str]]:
    """The ids of the most doubtful labels, each with the id of its sample or patch.

    The first n labels of all lie in the n samples whose own first labels come first, so only the
    labels of these n samples are sorted.
    """
    rank = {"$ifNull": [value, math.inf]}
    ranks = each_label(path, {"$cond": [is_undecided("$$label"), rank, None]})
    label = {"id": "$$label._id", "rank": rank, "undecided": is_undecided("$$label")}
    pipeline: list[Json] = [
        select_attributes(path, "review", *attributes),
        {"$project": {"first": {"$min": ranks}, "labels": each_label(path, label)}},
        {"$match": {"first": {"$ne": None}}},
        {"$sort": {"first": 1, "_id": 1}},
        {"$limit": limit},
        {"$unwind": "$labels"},
        {"$match": {"labels.undecided": True}},
        {"$sort": {"labels.rank": 1, "_id": 1, "labels.id": 1}},
        {"$limit": limit},
    ]
    return [(str(row["_id"]), str(row["labels"]["id"])) for row in aggregate(samples, pipeline)]


def _measured_attribute(samples: Any, path: str, label_field: str, other_field: str | None) -> str:
    """The attribute with the IoUs, which are measured first if undecided labels lack it."""
    # imported here because it takes seconds, and the App loads this module for its first page
    from promerge_fo.dataset.review.agreement import (
        agreement_attribute,
        measure_agreement,
        require_other,
    )

    require_other(label_field, other_field)
    attribute = agreement_attribute(str(other_field))
    absent = {"$eq": [{"$type": f"$$label.{attribute}"}, "missing"]}
    find_missing: list[Json] = [
        {"$project": {"missing": each_label(path, {"$and": [is_undecided("$$label"), absent]})}},
        {"$match": {"missing": True}},
        {"$limit": 1},
    ]
    if next(iter(aggregate(samples, find_missing)), None) is not None:
        source = storage_of(samples) if is_patches(samples) else samples
        measure_agreement(source, label_field, str(other_field))
        if is_patches(samples):
            samples.reload()
    return attribute


def _median_log_area(samples: Any, path: str) -> float:
    """The median of the natural logarithms of the labels' areas; 0 if there are no labels."""
    step = {"$floor": {"$multiply": [_STEPS, {"$ln": area_of("$$label")}]}}
    pipeline: list[Json] = [
        {"$project": {"step": each_label(path, step)}},
        {"$unwind": "$step"},
        {"$group": {"_id": "$step", "count": {"$sum": 1}}},
        {"$sort": {"_id": 1}},
    ]
    rows = list(aggregate(samples, pipeline))
    half = sum(row["count"] for row in rows) / 2
    for row in rows:
        half -= row["count"]
        if half <= 0:
            return float((row["_id"] + 0.5) / _STEPS)
    return 0.0
