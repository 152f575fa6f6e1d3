"""The labels that most need a look: found by the database, page by page.

Of a million labels, those of one page are read and cut out.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias, get_args

from promerge_fo.dataset.database import aggregate, is_patches, storage_of
from promerge_fo.dataset.review.updates import (
    area_of,
    declare,
    each_label,
    is_undecided,
    label_path,
    only,
)

__all__ = ["ORDERS", "Order", "review_queue"]

Order: TypeAlias = Literal["score", "disagreement", "size"]
ORDERS: tuple[Order, ...] = get_args(Order)

Json = dict[str, Any]

_STEPS = 100  # of the logarithm of areas: the median is one of them, so right to 1 % of an area


def review_queue(
    samples: Any,
    label_field: str,
    order: Order = "score",
    other_field: str | None = None,
    limit: int = 48,
) -> Any:
    """The labels that most need a look, among those that nobody has decided on.

    Only these are cut out as patches, so that the first page of a million labels is there at once:
    when it is decided on, ask for the next.

    Args:
        samples: a dataset, a view or patches.
        label_field: a field with detections.
        order: what doubt is. "score": the lowest ``confidence`` first. "disagreement": those first
            whose masks have the smallest IoU with the best fitting mask of the other field.
            "size": those first whose area is the most times larger or smaller than the median of
            all labels. What has no score, or cannot be measured, comes last.
        other_field: for "disagreement": see :func:`~promerge_fo.dataset.measure_agreement`, which
            is called where labels were not measured yet.
        limit: the most labels.

    Returns:
        A view of patches, most doubtful first; it is empty when everything is decided.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples have no images.
        ValueError: a field that does not hold detections, another order, a limit below 1, or
            "disagreement" without another field.

    Examples:
        >>> session.view = review_queue(dataset, "promerge")  # doctest: +SKIP
        >>> accept(session.view, "promerge", session.selected, "Ada")  # doctest: +SKIP
        3
    """
    path = label_path(samples, label_field)
    if order not in ORDERS:
        raise ValueError(f"the order is {order!r}, but must be one of {', '.join(ORDERS)}")
    if limit < 1:
        raise ValueError(f"the limit is {limit}, but must be at least 1")
    declare(samples, label_field)
    attributes: tuple[str, ...]
    doubt: Json | str
    if order == "score":
        attributes, doubt = ("confidence",), "$$label.confidence"
    elif order == "size":
        distance = {"$subtract": [{"$ln": area_of("$$label")}, _median_log_area(samples, path)]}
        attributes, doubt = ("area", "bounding_box"), {"$multiply": [-1, {"$abs": distance}]}
    else:
        attribute = _measured(samples, path, label_field, other_field)
        attributes, doubt = (attribute,), f"$$label.{attribute}"
    found = _most_doubtful(samples, path, attributes, doubt, limit)
    if is_patches(samples):
        return samples.select([row for row, _ in found], ordered=True)
    ids = [label for _, label in found]
    images = list(dict.fromkeys(row for row, _ in found))
    chosen = samples.select(images).select_labels(ids=ids, fields=label_field)
    return chosen.to_patches(label_field).select(ids, ordered=True)


def _most_doubtful(
    samples: Any, path: str, attributes: tuple[str, ...], doubt: Json | str, limit: int
) -> list[tuple[str, str]]:
    """The ids of samples, or patches, and of their labels.

    The first n labels are in the n samples whose own first labels come first: the labels of no
    other sample are taken apart.
    """
    known = {"$ifNull": [doubt, math.inf]}
    doubts = each_label(path, {"$cond": [is_undecided("$$label"), known, None]})
    label = {"id": "$$label._id", "doubt": known, "undecided": is_undecided("$$label")}
    pipeline: list[Json] = [
        only(path, "review", *attributes),
        {"$project": {"first": {"$min": doubts}, "labels": each_label(path, label)}},
        {"$match": {"first": {"$ne": None}}},
        {"$sort": {"first": 1, "_id": 1}},
        {"$limit": limit},
        {"$unwind": "$labels"},
        {"$match": {"labels.undecided": True}},
        {"$sort": {"labels.doubt": 1, "_id": 1, "labels.id": 1}},
        {"$limit": limit},
    ]
    return [(str(row["_id"]), str(row["labels"]["id"])) for row in aggregate(samples, pipeline)]


def _measured(samples: Any, path: str, label_field: str, other_field: str | None) -> str:
    """The attribute with the agreement, after measuring it where that was not done yet."""
    # What reads masks takes seconds to import, and the App's first page waits for this module.
    from promerge_fo.dataset.review.agreement import (
        agreement_attribute,
        measure_agreement,
        require_other,
    )

    require_other(label_field, other_field)
    attribute = agreement_attribute(str(other_field))
    absent = {"$eq": [{"$type": f"$$label.{attribute}"}, "missing"]}
    missing: list[Json] = [
        {"$project": {"missing": each_label(path, {"$and": [is_undecided("$$label"), absent]})}},
        {"$match": {"missing": True}},
        {"$limit": 1},
    ]
    if next(iter(aggregate(samples, missing)), None) is not None:
        source = storage_of(samples) if is_patches(samples) else samples
        measure_agreement(source, label_field, str(other_field))
        if is_patches(samples):
            samples.reload()
    return attribute


def _median_log_area(samples: Any, path: str) -> float:
    """The median of the natural logarithm of the labels' areas; 0 where there are none."""
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
