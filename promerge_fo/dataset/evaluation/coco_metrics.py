"""COCO's average precision and recall, class-agnostic, exactly as pycocotools computes them.

Images are taken one at a time, and a few bytes for each prediction are kept of them. The tests
compare every metric with pycocotools.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promerge_fo.dataset.evaluation.matching import (
    AREAS,
    MOST,
    THRESHOLDS,
    ImageBatch,
    IouType,
    MatchedBatch,
    Records,
)
from promerge_fo.kernels import kernel
from promerge_fo.machine import available_cpus

__all__ = [
    "IOUS",
    "KINDS",
    "METRICS",
    "RECALLS",
    "ImageRecords",
    "Match",
    "Matches",
    "RankedPredictions",
    "Scores",
    "Tally",
    "bootstrap",
    "evaluate",
]

KINDS: dict[IouType, str] = {"segm": "masks", "bbox": "boxes"}  #: what is measured, in words
IOUS = tuple(THRESHOLDS.round(2).tolist())  #: IoU thresholds that AP averages over
RECALLS = np.linspace(0, 1, 101)  #: recalls at which precision is measured

METRICS = (
    "AP", "AP50", "AP75", "APs", "APm", "APl",
    "AR1", "AR10", "AR100", "ARs", "ARm", "ARl",
)  # fmt: skip
"""The metrics in pycocotools' order. AP is the mean over the IoUs 0.50, 0.55, ..., 0.95, with at
most 100 predictions an image. AR is the mean recall over these IoUs, with at most 1, 10 or 100
predictions an image. s, m and l stand for objects smaller than 32 x 32 pixels, up to 96 x 96, and
larger."""

# the share of the IoUs whose bits are set in a number
_SHARES = (np.arange(1 << len(IOUS))[:, None] >> np.arange(len(IOUS)) & 1).mean(axis=1)


@dataclass(frozen=True)
class ImageRecords:
    """The ground truth and the predictions of one image.

    Records are those of :func:`promerge_fo.dataset.stored_labels.annotation_of`.

    Attributes:
        number: the COCO id of the image; pycocotools processes images in the order of their ids.
        truth: the records of the ground truth, in stored order.
        predictions: the records of the predictions, each with a ``score``, in stored order.
    """

    number: int
    truth: Records
    predictions: Records


@dataclass(frozen=True)
class Match:
    """The matches of all predictions of an image at one IoU threshold.

    Attributes:
        truth_index: (n,) int32: the index of the ground truth that each prediction is matched with,
            or -1.
        ious: (n,) float64: the IoU of each prediction with its match; NaN without a match.
        ignored: (n,) bool: predictions that are matched with a crowd; they count neither as true
            nor as false positives.
    """

    truth_index: NDArray[np.int32]
    ious: NDArray[np.float64]
    ignored: NDArray[np.bool_]


@dataclass(frozen=True)
class Matches(Match):
    """The matches on all images, one image after the other; ``matches[i]`` is one image's.

    Attributes:
        first: (images + 1,) int64: where the predictions of each image begin.
    """

    first: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.first) - 1

    def __getitem__(self, i: int) -> Match:
        if not 0 <= i < len(self):
            raise IndexError(i)
        part = slice(self.first[i], self.first[i + 1])
        return Match(self.truth_index[part], self.ious[part], self.ignored[part])


@dataclass(frozen=True)
class Scores:
    """The results of an evaluation, of masks or of boxes.

    Attributes:
        metrics: the value of each metric in :data:`METRICS`, 0 to 100; -1 without ground truth.
        precision: (10, 101) float64: the precision at :data:`IOUS` and :data:`RECALLS`, in [0, 1];
            -1 without ground truth.
        thresholds: (10, 101) float64: the scores at which these precisions are reached.
        recall: (10,) float64: the highest recall at each IoU.
        matches: the matches of each image, in the order given.
        ranked: the predictions from which the metrics are computed, by range of areas: "all",
            "small", "medium", "large".
    """

    metrics: dict[str, float]
    precision: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    recall: NDArray[np.float64]
    matches: Matches
    ranked: dict[str, RankedPredictions]


@dataclass(frozen=True)
class RankedPredictions:
    """The d predictions on all images by falling score, for objects in one range of areas.

    Bit t of a number stands for the IoU ``IOUS[t]``.

    Attributes:
        image: (d,) int32: the index of each prediction's image, among the images given.
        rank: (d,) uint8: the number of predictions of the same image that rank before it.
        hits: (d,) uint16: the IoUs at which it is matched with an object that counts.
        alarms: (d,) uint16: the IoUs at which it is neither matched nor ignored.
        objects: (images,) int32: the number of objects of each image that count.
    """

    image: NDArray[np.int32]
    rank: NDArray[np.uint8]
    hits: NDArray[np.uint16]
    alarms: NDArray[np.uint16]
    objects: NDArray[np.int32]

    def found(self, most: int | None = None) -> NDArray[np.float64]:
        """(images,) the number of objects found, averaged over the IoUs.

        Args:
            most: count only this number of predictions of an image, those with the highest scores.
        """
        chosen = slice(None) if most is None else self.rank < most
        shares = _SHARES[self.hits[chosen]]
        return np.bincount(self.image[chosen], shares, len(self.objects)).astype(np.float64)


class Tally:
    """Matches the predictions of one image after the other, and gives the scores of all.

    It keeps some 40 bytes for each prediction, and 30 for each image.

    Args:
        kind: "segm" for the IoU of masks, which needs a ``segmentation`` in every record, or
            "bbox" for that of boxes.
        match_iou: the IoU threshold of :attr:`Scores.matches`.
    """

    def __init__(self, kind: IouType, match_iou: float = 0.5) -> None:
        self._kind, self._match_iou = kind, match_iou
        self._numbers: list[int] = []
        self._batch = ImageBatch(kind)
        self._parts: list[MatchedBatch] = []

    def add(self, image: ImageRecords) -> None:
        """Take an image; its number must differ from all others."""
        self._numbers.append(image.number)
        self._batch.add(image.truth, image.predictions)
        if self._batch.is_full:
            self._finish_batch()

    def _finish_batch(self) -> None:
        self._parts.append(self._batch.match(self._match_iou))
        self._batch = ImageBatch(self._kind)

    def scores(self) -> Scores:
        """The scores of all images; nothing can be added any more."""
        self._finish_batch()
        columns = {
            field.name: np.concatenate([getattr(part, field.name) for part in self._parts], axis=-1)
            for field in fields(MatchedBatch)
        }
        self._parts.clear()
        first = np.concatenate([[0], np.cumsum(columns["counts"])])
        matches = Matches(columns["truth_index"], columns["ious"], columns["ignored"], first)
        counting = np.minimum(columns["counts"], MOST)
        image = np.repeat(np.arange(len(counting), dtype=np.int32), counting)
        # the order of pycocotools: by score, then by image number, then as stored
        position = np.empty(len(self._numbers), np.int32)
        position[np.argsort(self._numbers)] = np.arange(len(position), dtype=np.int32)
        scores = columns["scores"]
        order = np.lexsort((position[image], -scores))
        image, rank, scores = image[order], columns["ranks"][order], scores[order]
        ranked = {
            name: RankedPredictions(image, rank, hits[order], alarms[order], objects)
            for name, hits, alarms, objects in zip(
                AREAS, columns["hits"], columns["alarms"], columns["objects"], strict=True
            )
        }
        curves = {name: _curves(part, scores) for name, part in ranked.items()}
        return Scores(_metrics(ranked, curves, scores), *curves["all"], matches, ranked)


def evaluate(images: Iterable[ImageRecords], kind: IouType, match_iou: float = 0.5) -> Scores:
    """Compute the metrics of the predictions on some images.

    Args:
        images: the records of each image; all numbers must differ.
        kind: "segm" for the IoU of masks, which needs a ``segmentation`` in every record, or
            "bbox" for that of boxes.
        match_iou: the IoU threshold of :attr:`Scores.matches`.
    """
    tally = Tally(kind, match_iou)
    for image in images:
        tally.add(image)
    return tally.scores()


def bootstrap(
    ranked: dict[str, RankedPredictions], draws: NDArray[np.integer[Any]]
) -> dict[str, NDArray[np.float64]]:
    """The metrics on samples of the images, drawn with replacement.

    Args:
        ranked: the predictions, from :attr:`Scores.ranked`.
        draws: (b, images) int: how often each image was drawn into each of b samples; with 1 for
            all images, the metrics are those of the images themselves.

    Returns:
        (b,) values of each metric in :data:`METRICS`, 0 to 100; NaN if no object was drawn.
    """
    counts = np.ascontiguousarray(draws, dtype=np.uint16)

    def curves_of(part: RankedPredictions) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        chosen = np.flatnonzero(part.hits | part.alarms)
        precision, recall = _resample(
            part.image[chosen], part.hits[chosen], part.alarms[chosen], draws @ part.objects,
            counts, RECALLS, len(IOUS),
        )  # fmt: skip
        return precision, recall

    with ThreadPoolExecutor(available_cpus()) as pool:
        curves = dict(zip(ranked, pool.map(curves_of, ranked.values()), strict=True))
    values = {
        "AP": curves["all"][0].mean(axis=1),
        "AP50": curves["all"][0][:, 0],
        "AP75": curves["all"][0][:, 5],
        "AR100": curves["all"][1].mean(axis=1),
    }
    for letter, name in (("s", "small"), ("m", "medium"), ("l", "large")):
        values[f"AP{letter}"] = curves[name][0].mean(axis=1)
        values[f"AR{letter}"] = curves[name][1].mean(axis=1)
    everything = ranked["all"]
    objects = draws @ everything.objects
    for most in (1, 10):
        with np.errstate(invalid="ignore", divide="ignore"):
            found = draws @ everything.found(most) / objects
        values[f"AR{most}"] = np.where(objects > 0, found, np.nan)
    return {name: 100 * values[name] for name in METRICS}


@kernel
def _resample(  # type: ignore[no-untyped-def]
    image, hits, alarms, totals, draws, recalls, thresholds
):
    """(b, t) average precision and (b, t) recall at t thresholds; NaN without objects.

    Like pycocotools' accumulate: the precision at a recall is the highest precision at this recall
    or a higher one, and it is averaged over 101 recalls. A prediction of an image that was drawn n
    times counts n times.

    Args:
        image: (d,) int: the image of each prediction, by falling score.
        hits: (d,) uint16: see :class:`RankedPredictions`.
        alarms: (d,) uint16: see :class:`RankedPredictions`.
        totals: (b,) int64 numbers of objects in the samples.
        draws: (b, images) int: how often each image was drawn.
        recalls: (r,) float64, ascending from 0.
        thresholds: t.
    """
    b, last = draws.shape[0], recalls.size - 1
    precisions = np.full((b, thresholds), np.nan)
    highest = np.full((b, thresholds), np.nan)
    for i in range(b):
        total = totals[i]
        if total == 0:
            continue
        needed = np.empty(last + 1, np.int64)  # true positives that reach a recall
        for n in range(last + 1):
            needed[n] = int(recalls[n] * total)
            while needed[n] > 0 and (needed[n] - 1) / total >= recalls[n]:
                needed[n] -= 1
            while needed[n] / total < recalls[n]:
                needed[n] += 1
        right, wrong = np.zeros(thresholds, np.int64), np.zeros(thresholds, np.int64)
        reached = np.zeros(thresholds, np.int64)  # the highest of the recalls
        # the highest precision while this recall is the highest one, as a fraction
        above = np.zeros((thresholds, last + 1), np.int64)
        below = np.ones((thresholds, last + 1), np.int64)
        for k in range(image.size):
            times = np.int64(draws[i, image[k]])
            if times == 0:
                continue
            hit, alarm = np.int64(hits[k]), np.int64(alarms[k])
            for t in range(thresholds):
                if hit >> t & 1:
                    right[t] += times
                    n = reached[t]
                    while n < last and right[t] >= needed[n + 1]:
                        n += 1
                    reached[t] = n
                    if right[t] * below[t, n] >= above[t, n] * (right[t] + wrong[t]):
                        above[t, n], below[t, n] = right[t], right[t] + wrong[t]
                elif alarm >> t & 1:
                    wrong[t] += times
        for t in range(thresholds):
            area, best = 0.0, np.zeros(last + 1)
            for n in range(last, -1, -1):
                best[n] = above[t, n] / (below[t, n] + np.spacing(1.0))
                if n < last:
                    best[n] = max(best[n], best[n + 1])
            for n in range(last + 1):
                area += best[n]
            precisions[i, t] = area / recalls.size
            highest[i, t] = right[t] / total
    return precisions, highest


def _curves(
    ranked: RankedPredictions, scores: NDArray[np.float64], most: int = MOST
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Precision, thresholds and recall, as in :class:`Scores`, like pycocotools' accumulate.

    Args:
        ranked: the predictions.
        scores: (d,) their scores.
        most: the number of predictions of an image that count.
    """
    curve = len(IOUS), len(RECALLS)
    precision, thresholds, recall = (
        np.full(curve, -1.0),
        np.full(curve, -1.0),
        np.full(curve[0], -1.0),
    )
    total = ranked.objects.sum()
    if total == 0:
        return precision, thresholds, recall
    chosen = ranked.rank < most
    hits, alarms, scores = ranked.hits[chosen], ranked.alarms[chosen], scores[chosen]
    for t in range(len(IOUS)):
        right = np.cumsum(hits >> t & 1, dtype=np.float64)
        wrong = np.cumsum(alarms >> t & 1, dtype=np.float64)
        reached = right / total
        highest = right / (wrong + right + np.spacing(1))
        highest = np.maximum.accumulate(highest[::-1])[::-1]
        places = np.searchsorted(reached, RECALLS, side="left")
        is_reached = places < len(reached)
        precision[t], thresholds[t] = 0, 0
        precision[t, is_reached] = highest[places[is_reached]]
        thresholds[t, is_reached] = scores[places[is_reached]]
        recall[t] = reached[-1] if len(reached) else 0
    return precision, thresholds, recall


def _metrics(
    ranked: dict[str, RankedPredictions],
    curves: Mapping[str, tuple[NDArray[np.float64], ...]],
    scores: NDArray[np.float64],
) -> dict[str, float]:
    """The value of each metric, like pycocotools' summarize."""
    precision, _, recall = curves["all"]
    values = {"AP": precision, "AP50": precision[0], "AP75": precision[5], "AR100": recall}
    for letter, name in (("s", "small"), ("m", "medium"), ("l", "large")):
        values[f"AP{letter}"], _, values[f"AR{letter}"] = curves[name]
    for most in (1, 10):
        _, _, values[f"AR{most}"] = _curves(ranked["all"], scores, most)
    return {name: _mean(values[name]) for name in METRICS}


def _mean(values: NDArray[np.float64]) -> float:
    """The mean in percent of what could be measured; -1 if nothing could."""
    measured = values[values > -1]
    return 100 * float(np.mean(measured)) if measured.size else -1
