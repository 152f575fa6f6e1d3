"""How scores, areas and numbers of labels are distributed, as the database counts them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from fiftyone import ViewField as F
from numpy.typing import NDArray

from promerge_fo.dataset.database import aggregate
from promerge_fo.dataset.review.decisions import ACCEPTED, REJECTED, Progress
from promerge_fo.dataset.review.updates import area_of, each_label, label_path

__all__ = ["STATES", "Histogram", "Quantity", "review_histograms", "select_between"]

Quantity: TypeAlias = Literal["score", "area", "masks"]
Json = dict[str, Any]

STATES = ("undecided", ACCEPTED, REJECTED)
_SCORES = np.linspace(0, 1, 21).round(2)
_DECADES, _PER_DECADE = 5, 4  # areas from 0.001 % of the image to all of it
_AREAS = 10 ** np.linspace(-_DECADES, 0, _DECADES * _PER_DECADE + 1)
_MASKS = 25  # images with as many masks or more are counted together


@dataclass(frozen=True)
class Histogram:
    """How a quantity is distributed.

    Attributes:
        quantity: "score", "area" (share of the image) or "masks" (their number in an image).
        edges: (n + 1,) float64. A bar counts what is at least its lower edge and below its upper
            one; the first and the last also what lies beyond.
        counts: (n,) int64: the labels by state, "undecided", "accepted" and "rejected"; of
            "masks", all "images".
        missing: labels that have no score and are in no bar.
    """

    quantity: Quantity
    edges: NDArray[np.float64]
    counts: dict[str, NDArray[np.int64]]
    missing: int = 0

    def progress(self) -> Progress:
        """How far the review of the labels in the bars is: of areas, that of all labels."""
        counts = [int(self.counts[state].sum()) for state in STATES]
        return Progress(sum(counts), *counts[1:])

    def bounds(self, bar: int) -> tuple[float | None, float | None]:
        """The limits that :func:`select_between` takes to select what a bar counts."""
        last = len(self.edges) - 2
        return (
            None if bar == 0 else float(self.edges[bar]),
            None if bar == last else float(self.edges[bar + 1]),
        )


def review_histograms(samples: Any, label_field: str) -> dict[Quantity, Histogram]:
    """Distributions of the labels' scores and areas, and of the images' numbers of labels.

    Args:
        samples: a dataset or a view.
        label_field: a field with detections.

    Returns:
        By quantity.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples have no images.
        ValueError: a field that does not hold detections.
    """
    path = label_path(samples, label_field)
    shape = len(STATES), len(_AREAS) - 1, len(_SCORES)  # the last bar of scores is of those without
    has_score = {"$ne": [{"$ifNull": ["$$label.confidence", None]}, None]}
    score = {"$cond": [has_score, _bar("$$label.confidence", _SCORES), shape[2] - 1]}
    area = _bar(area_of("$$label"), _AREAS)
    state = {"$max": [0, {"$indexOfArray": [STATES, "$$label.review"]}]}
    bar = {
        "$add": [
            score,
            {"$multiply": [shape[2], area]},
            {"$multiply": [shape[1] * shape[2], state]},
        ]
    }
    pipeline: list[Json] = [
        {"$project": {"bar": each_label(path, bar)}},
        {"$unwind": "$bar"},
        {"$group": {"_id": "$bar", "count": {"$sum": 1}}},
    ]
    table = np.zeros(math.prod(shape), np.int64)
    for row in aggregate(samples, pipeline):
        table[row["_id"]] = row["count"]
    table = table.reshape(shape)
    scores, areas = table.sum(axis=1), table.sum(axis=2)
    by_score = {name: scores[i, :-1] for i, name in enumerate(STATES)}
    by_area = {name: areas[i] for i, name in enumerate(STATES)}
    return {
        "score": Histogram("score", _SCORES, by_score, int(scores[:, -1].sum())),
        "area": Histogram("area", _AREAS, by_area),
        "masks": _masks_per_image(samples, path),
    }


def select_between(
    samples: Any,
    label_field: str,
    quantity: Quantity,
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """A view of what lies between two values, as a bar of a histogram counts it.

    Args:
        samples: a dataset or a view.
        label_field: a field with detections.
        quantity: "score" or "area" of labels, or "masks", their number, of images.
        low: the lowest value; None for no limit.
        high: the first value above; None for no limit.

    Returns:
        A view of the images with only these labels; of "masks", with all of theirs.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples have no images.
        ValueError: a field that does not hold detections, or another quantity.

    Examples:
        >>> doubtful = select_between(dataset, "promerge", "score", high=0.2)  # doctest: +SKIP
        >>> reject(doubtful, "promerge", reviewer="Ada")  # doctest: +SKIP
        41207
    """
    label_path(samples, label_field)
    if quantity == "masks":
        return samples.match(_between(F(f"{label_field}.detections").length(), low, high))
    if quantity == "score":
        value = F("confidence")
    elif quantity == "area":
        box = F("bounding_box")
        value = F("area").is_null().if_else(box[2] * box[3], F("area"))
    else:
        known = ", ".join(get_args(Quantity))
        raise ValueError(f"the quantity is {quantity!r}, but must be one of {known}")
    return samples.filter_labels(label_field, ~value.is_null() & _between(value, low, high))


def _between(value: Any, low: float | None, high: float | None) -> Any:
    within = value >= low if low is not None else ~value.is_null()
    return within if high is None else within & (value < high)


def _bar(value: Any, edges: NDArray[np.float64]) -> Json:
    """The number of the bar that counts a value, by bisection of the inner edges."""

    def search(first: int, last: int) -> Any:
        if first == last:
            return first
        middle = (first + last) // 2
        above = {"$gte": ["$$value", float(edges[middle + 1])]}
        return {"$cond": [above, search(middle + 1, last), search(first, middle)]}

    return {"$let": {"vars": {"value": value}, "in": search(0, len(edges) - 2)}}


def _masks_per_image(samples: Any, path: str) -> Histogram:
    size = {"$size": {"$ifNull": [f"${path}._id", []]}}
    pipeline = [{"$group": {"_id": {"$min": [size, _MASKS]}, "count": {"$sum": 1}}}]
    counts = np.zeros(_MASKS + 1, np.int64)
    for row in aggregate(samples, pipeline):
        counts[row["_id"]] = row["count"]
    return Histogram("masks", np.arange(_MASKS + 2, dtype=np.float64), {"images": counts})
