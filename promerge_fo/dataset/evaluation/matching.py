"""COCO's matching of predictions with objects: compiled, for many images at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from promerge_fo.kernels import kernel

__all__ = ["AREAS", "MOST", "THRESHOLDS", "ImageBatch", "IouType", "MatchedBatch", "Records"]

IouType: TypeAlias = Literal["segm", "bbox"]
Records: TypeAlias = "Sequence[dict[str, Any]]"

THRESHOLDS = np.linspace(0.5, 0.95, 10)  #: pycocotools' IoUs, of which not all are round
AREAS = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}  #: the smallest and the largest area in pixels, by range
MOST = 100  #: predictions of an image that count
_IMAGES = 256  # of a batch
_IOUS = 1 << 20  # of a batch


@dataclass(frozen=True)
class MatchedBatch:
    """The matches of some images, with d predictions in all. Bit t of a number is the t-th IoU.

    Attributes:
        truth_index: (d,) int32: in stored order, the index of the object of the same image that
            each prediction is matched with at one IoU, or -1.
        ious: (d,) float64: the IoU with this object; NaN without a match.
        ignored: (d,) bool: predictions that are matched with a crowd.
        counts: (images,) int64: the number of predictions of each image.
        scores: (k,) float64: the predictions that count, image by image, by falling score.
        ranks: (k,) uint8: the number of predictions of the same image before each.
        hits: (4, k) uint16: the IoUs at which each is matched with an object that counts, by range
            of areas.
        alarms: (4, k) uint16: the IoUs at which each is neither matched nor ignored.
        objects: (4, images) int32: the number of objects that count.
    """

    truth_index: NDArray[np.int32]
    ious: NDArray[np.float64]
    ignored: NDArray[np.bool_]
    counts: NDArray[np.int64]
    scores: NDArray[np.float64]
    ranks: NDArray[np.uint8]
    hits: NDArray[np.uint16]
    alarms: NDArray[np.uint16]
    objects: NDArray[np.int32]


class ImageBatch:
    """Takes the records of a few hundred images, and matches them together.

    Args:
        kind: "segm" for the IoU of masks, "bbox" for that of boxes.
    """

    def __init__(self, kind: IouType) -> None:
        self._kind = kind
        self._key = "segmentation" if kind == "segm" else "bbox"
        self._counts: list[tuple[int, int]] = []
        self._scores: list[float] = []
        self._areas: list[float] = []
        self._truth_areas: list[float] = []
        self._crowds: list[bool] = []
        self._ious: list[NDArray[np.float64]] = []
        self._size = 0

    @property
    def is_full(self) -> bool:
        """Whether it should be matched before more is added."""
        return len(self._counts) >= _IMAGES or self._size >= _IOUS

    def add(self, truth: Records, predictions: Records) -> None:
        """Take the records of an image: the objects and the predictions, in stored order."""
        self._counts.append((len(predictions), len(truth)))
        self._scores += [record["score"] for record in predictions]
        if self._kind == "bbox":  # pycocotools computes the areas of predicted boxes like this
            self._areas += [record["bbox"][2] * record["bbox"][3] for record in predictions]
        else:
            self._areas += [record["area"] for record in predictions]
        self._truth_areas += [record["area"] for record in truth]
        crowds = [bool(record["iscrowd"]) for record in truth]
        self._crowds += crowds
        if truth and predictions:
            ious = coco_mask.iou(
                [record[self._key] for record in predictions],
                [record[self._key] for record in truth],
                crowds,
            )
            self._ious.append(np.ravel(ious))
            self._size += ious.size

    def match(self, iou: float) -> MatchedBatch:
        """Match the predictions of all images.

        Args:
            iou: the threshold of ``truth_index``.
        """
        counts = np.array(self._counts, np.int64).reshape(-1, 2)
        first = np.zeros((len(counts) + 1, 2), np.int64)
        np.cumsum(counts, axis=0, out=first[1:])
        scores = np.array(self._scores, np.float64)
        image = np.repeat(np.arange(len(counts)), counts[:, 0])
        order = np.lexsort((-scores, image))  # stable: equal scores stay in stored order
        rank = np.arange(len(order)) - first[image, 0]
        matched = _match_images(
            first, order, np.array(self._areas, np.float64),
            np.array(self._truth_areas, np.float64), np.array(self._crowds, np.bool_),
            np.concatenate([np.zeros(0), *self._ious]), THRESHOLDS,
            np.array(list(AREAS.values())), MOST, np.array([iou]),
        )  # fmt: skip
        truth_index, ious, ignored, hits, alarms, objects = matched
        shown = rank < MOST
        return MatchedBatch(
            truth_index, ious, ignored, counts[:, 0], scores[order][shown],
            rank[shown].astype(np.uint8), hits[:, shown], alarms[:, shown], objects,
        )  # fmt: skip


@kernel
def _match_images(  # type: ignore[no-untyped-def]
    first, order, area, truth_area, crowd, ious, thresholds, areas, most, at
):
    """Match the predictions of each image, for all ranges of areas and thresholds.

    Args:
        first: (n + 1, 2) int64: where the predictions and the objects of each image begin.
        order: (d,) int64: the predictions, image by image, by falling score.
        area: (d,) float64: of the predictions, in pixels.
        truth_area: (g,) float64: of the objects.
        crowd: (g,) bool: whether an object is a crowd.
        ious: the (predictions, objects) float64 IoUs of each image, all in one row.
        thresholds: (t,) float64 IoUs.
        areas: (r, 2) float64 ranges.
        most: the number of predictions of an image that count.
        at: (1,) float64: the threshold for all predictions, regardless of areas.
    """
    n, d = len(first) - 1, order.size
    truth_index = np.full(d, -1, np.int32)
    matched_ious = np.full(d, np.nan)
    in_crowd = np.zeros(d, np.bool_)
    hits = np.zeros((len(areas), d), np.uint16)
    alarms = np.zeros((len(areas), d), np.uint16)
    objects = np.zeros((len(areas), n), np.int32)
    start = 0
    for i in range(n):
        p, a = first[i]
        count, g = first[i + 1, 0] - p, first[i + 1, 1] - a
        table = ious[start : start + count * g].reshape(count, g)
        start += count * g
        ignored = crowd[a : a + g]
        columns, _ = _ignored_last(ignored)
        crowds = ignored[columns]
        chosen = match(_ordered(table, order[p : p + count] - p, columns), crowds, crowds, at)
        for k in range(count):
            if chosen[0, k] >= 0:
                row, column = order[p + k], columns[chosen[0, k]]
                truth_index[row] = column
                matched_ious[row] = table[row - p, column]
                in_crowd[row] = ignored[column]
        shown = min(count, most)
        rows = order[p : p + shown] - p
        for r in range(len(areas)):
            low, high = areas[r]
            sizes = truth_area[a : a + g]
            ignored = crowd[a : a + g] | (sizes < low) | (sizes > high)
            columns, objects[r, i] = _ignored_last(ignored)
            is_ignored = ignored[columns]
            crowds = crowd[a : a + g][columns]
            chosen = match(_ordered(table, rows, columns), is_ignored, crowds, thresholds)
            for k in range(shown):
                outside = area[p + rows[k]] < low or area[p + rows[k]] > high
                for t in range(len(thresholds)):
                    if chosen[t, k] >= 0:
                        if not is_ignored[chosen[t, k]]:
                            hits[r, p + k] |= np.uint16(1 << t)
                    elif not outside:
                        alarms[r, p + k] |= np.uint16(1 << t)
    return truth_index, matched_ious, in_crowd, hits, alarms, objects


@kernel
def _ignored_last(ignored):  # type: ignore[no-untyped-def]
    """Indices (g,) of objects, the ignored ones last, and the number of the others."""
    columns = np.empty(ignored.size, np.int64)
    n = 0
    for last in (False, True):
        for j in range(ignored.size):
            if ignored[j] == last:
                columns[n] = j
                n += 1
    return columns, ignored.size - np.count_nonzero(ignored)


@kernel
def _ordered(table, rows, columns):  # type: ignore[no-untyped-def]
    """(d, g): a table with its rows and columns in another order."""
    ordered = np.empty((rows.size, columns.size))
    for i in range(rows.size):
        for j in range(columns.size):
            ordered[i, j] = table[rows[i], columns[j]]
    return ordered


@kernel
def match(ious, ignored, crowd, thresholds):  # type: ignore[no-untyped-def]
    """COCO's greedy matching, at each IoU threshold.

    In the order of their scores, predictions are matched with the free object that they overlap
    most (the last one, if several IoUs are equal). An ignored object is matched only if no other
    object fits. A crowd stays free after a match.

    Args:
        ious: (d, g) float64: d predictions by falling score, and g objects, the ignored ones last.
        ignored: (g,) bool: whether an object is ignored.
        crowd: (g,) bool: whether an object is a crowd.
        thresholds: (t,) float64: the IoU thresholds.

    Returns:
        (t, d) int64, the object of each prediction, or -1.
    """
    d, g = ious.shape
    matched = np.full((len(thresholds), d), -1, np.int64)
    for t in range(len(thresholds)):
        taken = np.zeros(g, np.bool_)
        for i in range(d):
            best = min(thresholds[t], 1 - 1e-10)
            chosen = -1
            for j in range(g):
                if taken[j] and not crowd[j]:
                    continue
                if chosen >= 0 and not ignored[chosen] and ignored[j]:
                    break
                if ious[i, j] >= best:
                    best = ious[i, j]
                    chosen = j
            if chosen >= 0:
                matched[t, i] = chosen
                taken[chosen] = True
    return matched
