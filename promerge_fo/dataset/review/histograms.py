"""Histograms for a review: labels by score and area, images by their number of labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import fiftyone as fo
import numpy as np
from fiftyone import ViewField as F
from numpy.typing import NDArray

from promerge_fo.dataset.database import aggregate
from promerge_fo.dataset.review.decisions import ACCEPTED, REJECTED, Progress
from promerge_fo.dataset.review.updates import (
    LARGEST,
    area_of,
    each_label,
    is_finite,
    reviewed_path,
)
from promerge_fo.dataset.samples import images_of

__all__ = ["STATES", "Histogram", "Quantity", "review_histograms", "select_between"]

Quantity: TypeAlias = Literal["score", "area", "masks"]
Json = dict[str, Any]

STATES = ("undecided", ACCEPTED, REJECTED)
_SCORES = np.linspace(0, 1, 21).round(2)
_DECADES, _PER_DECADE = 5, 4  # from 0.001 % of the image to all of it, with 4 bars per decade
_AREAS = 10 ** np.linspace(-_DECADES, 0, _DECADES * _PER_DECADE + 1)
_MASKS = 25  # images with this many masks or more share the last bar


@dataclass(frozen=True)
class Histogram:
    """The histogram of one quantity.

    Attributes:
        quantity: "score", "area" (share of the image) or "masks" (the number of masks per image).
        edges: (n + 1,) float64, the edges of the n bars. A bar counts values from its lower edge
            up to, but not including, its upper edge. The first and the last bar also count the
            values below and above all edges.
        counts: arrays (n,) int64. For "score" and "area", the number of labels for each state:
            "undecided", "accepted" and "rejected". For "masks", the number of "images".
        missing: the number of labels that are in no bar because they have no score.
    """

    quantity: Quantity
    edges: NDArray[np.float64]
    counts: dict[str, NDArray[np.int64]]
    missing: int = 0

    def progress(self) -> Progress:
        """How far the review of the labels in the bars has come; for "area", these are all labels.

        Not for "masks", which counts images.
        """
        counts = [int(self.counts[state].sum()) for state in STATES]
        return Progress(sum(counts), *counts[1:])

    def bounds(self, bar: int) -> tuple[float | None, float | None]:
        """The ``low`` and ``high`` with which :func:`select_between` selects what a bar counts."""
        last = len(self.edges) - 2
        return (
            None if bar == 0 else float(self.edges[bar]),
            None if bar == last else float(self.edges[bar + 1]),
        )


def review_histograms(samples: Any, label_field: str) -> dict[Quantity, Histogram]:
    """Count the labels by score and by area, and the images by their number of labels.

    Args:
        samples: a dataset or a view.
        label_field: a field with detections.

    Returns:
        The histograms by quantity: "score", "area" and "masks".

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images.
        ValueError: the field does not hold detections.
    """
    path = reviewed_path(samples, label_field)
    shape = len(STATES), len(_AREAS) - 1, len(_SCORES)  # one more bar, for labels without a score
    bar_of_score = _bar("$$label.confidence", _SCORES)
    score = {"$cond": [is_finite("$$label.confidence"), bar_of_score, shape[2] - 1]}
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
) -> fo.DatasetView:
    """Select the labels, or images, whose value lies between two limits, like a histogram's bar.

    Args:
        samples: a dataset or a view.
        label_field: a field with detections.
        quantity: "score" or "area" of the labels, or "masks", the number of labels per image.
        low: the lowest value to select; None for no lower limit.
        high: select values below this one; None for no upper limit.

    Returns:
        A view of the images with only the selected labels; for "masks", with all their labels.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images.
        ValueError: the field does not hold detections, or there is no such quantity.

    Examples:
        >>> from promerge_fo.dataset import reject
        >>> doubtful = select_between(dataset, "promerge", "score", high=0.5)
        >>> reject(doubtful, "promerge", reviewer="Ada")
        4
    """
    samples = images_of(samples)
    reviewed_path(samples, label_field)
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
    is_number = ~value.is_null() & (value >= -LARGEST) & (value <= LARGEST)
    return samples.filter_labels(label_field, is_number & _between(value, low, high))


def _between(value: Any, low: float | None, high: float | None) -> Any:
    within = value >= low if low is not None else ~value.is_null()
    return within if high is None else within & (value < high)


def _bar(value: Any, edges: NDArray[np.float64]) -> Json:
    """The database expression for the index of the bar that counts a value, found by bisection."""

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
