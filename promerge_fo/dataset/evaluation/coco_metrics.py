"""COCO's average precision and recall, by pycocotools, without regard to classes.

pycocotools does all but the matching of predictions with ground truth, which takes it most of its
time: that is a compiled loop here. The tests hold every figure against pycocotools alone.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

__all__ = [
    "IOUS",
    "METRICS",
    "RECALLS",
    "ImageRecords",
    "IouType",
    "Match",
    "Scores",
    "Sweep",
    "bootstrap",
    "evaluate",
]

IouType: TypeAlias = Literal["segm", "bbox"]
Records: TypeAlias = "Sequence[dict[str, Any]]"

IOUS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())  #: at which AP is taken and averaged
RECALLS = np.linspace(0, 1, 101)  #: at which precision is

METRICS = (
    "AP", "AP50", "AP75", "APs", "APm", "APl",
    "AR1", "AR10", "AR100", "ARs", "ARm", "ARl",
)  # fmt: skip
"""In pycocotools' order: AP is the mean over the IoUs 0.50, 0.55, ..., 0.95, with at most 100
predictions an image; AR is the mean recall over them, with at most 1, 10 or 100. s, m and l: of
objects smaller than 32 x 32 pixels, up to 96 x 96, and larger."""


@dataclass(frozen=True)
class ImageRecords:
    """One image's ground truth and predictions, as ``annotation_of`` gives them.

    Attributes:
        number: the image's COCO id; images count in the order of these.
        truth: records, in stored order.
        found: records with ``score``, in stored order.
    """

    number: int
    truth: Records
    found: Records


@dataclass(frozen=True)
class Match:
    """What an image's predictions are at one IoU threshold, among all of its predictions.

    Attributes:
        found: (n,) int64: the index of the ground truth that each prediction is matched with, or
            -1.
        ious: (n,) float64: their IoU; NaN without a match.
        ignored: (n,) bool: predictions that count neither way, as they are matched with a crowd.
    """

    found: NDArray[np.int64]
    ious: NDArray[np.float64]
    ignored: NDArray[np.bool_]


@dataclass(frozen=True)
class Scores:
    """The figures of one kind of IoU.

    Attributes:
        metrics: by the names in :data:`METRICS`; 0 to 100, or -1 where there is no ground truth.
        precision: (10, 101) at :data:`IOUS` and :data:`RECALLS`, in [0, 1]; -1 without ground
            truth.
        thresholds: (10, 101): the scores at which they are reached.
        recall: (10,) highest recall at each IoU.
        matches: of each image, in the order given.
        sweeps: what the figures are made of, by range of areas: "all", "small", "medium", "large".
    """

    metrics: dict[str, float]
    precision: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    recall: NDArray[np.float64]
    matches: list[Match]
    sweeps: dict[str, Sweep]


@dataclass(frozen=True)
class Sweep:
    """All predictions of one range of areas, by falling score, and what became of them.

    Attributes:
        image: (d,) int64: the image of each, an index into the images given.
        rank: (d,) int64: how many of its image are ahead of it.
        hits: (10, d) bool: matched with an object that counts, at each IoU.
        alarms: (10, d) bool: matched with nothing, and not ignored.
        objects: (images,) int64: objects that count.
    """

    image: NDArray[np.int64]
    rank: NDArray[np.int64]
    hits: NDArray[np.bool_]
    alarms: NDArray[np.bool_]
    objects: NDArray[np.int64]


def evaluate(images: Sequence[ImageRecords], kind: IouType, match_iou: float = 0.5) -> Scores:
    """Score predictions on images.

    Args:
        images: with different numbers.
        kind: IoU of masks, for which every record needs a ``segmentation``, or of boxes.
        match_iou: the IoU at which :attr:`Scores.matches` is taken.
    """
    truth, found = _tables(images, kind)
    evaluation = _Evaluation(truth, found, kind)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = np.where(evaluation.stats < 0, -1, 100 * evaluation.stats)
    results = evaluation.eval
    return Scores(
        dict(zip(METRICS, stats.tolist(), strict=True)),
        results["precision"][:, :, 0, 0, -1],
        results["scores"][:, :, 0, 0, -1],
        results["recall"][:, 0, 0, -1],
        _matches(images, evaluation.ious, match_iou),
        _sweeps(images, evaluation),
    )


def bootstrap(
    sweeps: dict[str, Sweep], draws: NDArray[np.integer[Any]]
) -> dict[str, NDArray[np.float64]]:
    """The figures of samples of the images, drawn with replacement.

    Args:
        sweeps: :attr:`Scores.sweeps`.
        draws: (b, images): how often each image was drawn; all 1 gives the figures themselves.

    Returns:
        (b,) values by the names in :data:`METRICS`; 0 to 100, or NaN where no object was drawn.
    """
    draws = np.ascontiguousarray(draws, dtype=np.float64)
    curves = {}
    for name, sweep in sweeps.items():
        flags = np.ascontiguousarray(sweep.hits), np.ascontiguousarray(sweep.alarms)
        curves[name] = _resample(sweep.image, *flags, sweep.objects, draws, RECALLS)
    figures = {
        "AP": curves["all"][0].mean(axis=1),
        "AP50": curves["all"][0][:, 0],
        "AP75": curves["all"][0][:, 5],
        "AR100": curves["all"][1].mean(axis=1),
    }
    for letter, name in (("s", "small"), ("m", "medium"), ("l", "large")):
        figures[f"AP{letter}"] = curves[name][0].mean(axis=1)
        figures[f"AR{letter}"] = curves[name][1].mean(axis=1)
    everything = sweeps["all"]
    objects = draws @ everything.objects
    for most in (1, 10):
        first = everything.rank < most
        hits = everything.hits[:, first].mean(axis=0)
        found = draws[:, everything.image[first]] @ hits
        with np.errstate(invalid="ignore", divide="ignore"):
            figures[f"AR{most}"] = np.where(objects > 0, found / objects, np.nan)
    return {name: 100 * figures[name] for name in METRICS}


@njit(cache=True, nogil=True)
def _resample(image, hits, alarms, objects, draws, recalls):  # type: ignore[no-untyped-def]
    """(b, 10) average precision and (b, 10) recall; NaN without objects.

    As pycocotools accumulates: precision is the best at this recall or a higher one, averaged over
    101 recalls. A prediction of an image that was drawn n times counts n times.
    """
    b, t, d = draws.shape[0], hits.shape[0], hits.shape[1]
    precisions = np.full((b, t), np.nan)
    highest = np.full((b, t), np.nan)
    recall, precision = np.empty(d), np.empty(d)
    for i in range(b):
        total = 0.0
        for k in range(objects.size):
            total += draws[i, k] * objects[k]
        if total == 0:
            continue
        for j in range(t):
            right, wrong, n = 0.0, 0.0, 0
            for k in range(d):
                times = draws[i, image[k]]
                if times > 0:
                    right += times * hits[j, k]
                    wrong += times * alarms[j, k]
                    recall[n] = right / total
                    precision[n] = right / (right + wrong + np.spacing(1.0))
                    n += 1
            for k in range(n - 2, -1, -1):
                precision[k] = max(precision[k], precision[k + 1])
            k, area = 0, 0.0
            for r in recalls:
                while k < n and recall[k] < r:
                    k += 1
                if k == n:
                    break
                area += precision[k]
            precisions[i, j] = area / recalls.size
            highest[i, j] = right / total
    return precisions, highest


def _sweeps(images: Sequence[ImageRecords], evaluation: Any) -> dict[str, Sweep]:
    parameters = evaluation._paramsEval
    place = {image.number: i for i, image in enumerate(images)}
    count = len(parameters.imgIds)
    sweeps = {}
    for a, name in enumerate(parameters.areaRngLbl):
        parts = [part for part in evaluation.evalImgs[a * count :][:count] if part is not None]
        objects = np.zeros(len(images), np.int64)
        for part in parts:
            objects[place[part["image_id"]]] = np.count_nonzero(part["gtIgnore"] == 0)
        none = np.zeros((len(parameters.iouThrs), 0), dtype=bool)
        scores = np.concatenate([np.zeros(0), *(part["dtScores"] for part in parts)])
        order = np.argsort(-scores, kind="mergesort")
        matched = np.concatenate([none, *(part["dtMatches"] > 0 for part in parts)], axis=1)
        ignored = np.concatenate([none, *(part["dtIgnore"] for part in parts)], axis=1)
        lengths = [len(part["dtScores"]) for part in parts]
        image = np.repeat([place[part["image_id"]] for part in parts], lengths).astype(np.int64)
        rank = np.concatenate([np.zeros(0, np.int64), *(np.arange(n) for n in lengths)])
        sweeps[name] = Sweep(
            image[order],
            rank[order],
            (matched & ~ignored)[:, order],
            (~matched & ~ignored)[:, order],
            objects,
        )
    return sweeps


def _tables(images: Sequence[ImageRecords], kind: IouType) -> tuple[COCO, COCO]:
    """Ground truth and predictions as pycocotools keeps them."""
    # The sizes are asked for, but not looked at: each mask has its own.
    listed = [{"id": image.number, "height": None, "width": None} for image in images]
    tables = []
    for name in ("truth", "found"):
        annotations: list[dict[str, Any]] = []
        for image in images:
            for record in getattr(image, name):
                annotation = {
                    **record,
                    "id": len(annotations) + 1,
                    "image_id": image.number,
                    "category_id": 1,
                }
                if name == "found":
                    annotation["iscrowd"] = 0
                if kind == "bbox" and name == "found":
                    # as loadRes gives predictions of boxes their areas
                    annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
                annotations.append(annotation)
        table = COCO()
        table.dataset = {
            "images": listed,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "fg"}],
        }
        with contextlib.redirect_stdout(io.StringIO()):
            table.createIndex()
        tables.append(table)
    return tables[0], tables[1]


class _Evaluation(COCOeval):  # type: ignore[misc]
    """pycocotools' evaluation with a compiled loop in the place of its slowest one."""

    def __init__(self, truth: COCO, found: COCO, kind: IouType) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            super().__init__(truth, found, kind)

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802
        """(d, g) IoUs of all predictions, by falling score: matches are made of more than 100."""
        truth, found = self._gts[imgId, catId], self._dts[imgId, catId]
        what = "segmentation" if self.params.iouType == "segm" else "bbox"
        return coco_mask.iou(
            [found[i][what] for i in _ranked(found)],
            [record[what] for record in truth],
            [int(record["iscrowd"]) for record in truth],
        )

    def evaluateImg(  # noqa: N802
        self, imgId: int, catId: int, aRng: Sequence[float], maxDet: int
    ) -> dict[str, Any] | None:
        truth, found = self._gts[imgId, catId], self._dts[imgId, catId]
        if not truth and not found:
            return None
        areas = np.array([record["area"] for record in truth])
        ignored = np.array([bool(record["ignore"]) for record in truth], dtype=bool)
        ignored |= (areas < aRng[0]) | (areas > aRng[1])
        order = np.argsort(ignored, kind="mergesort")
        truth, ignored = [truth[i] for i in order], ignored[order]
        found = [found[i] for i in _ranked(found)[:maxDet]]
        ious = self.ious[imgId, catId]
        ious = ious[:maxDet, order] if len(ious) else np.zeros((len(found), len(truth)))
        crowd = np.array([bool(record["iscrowd"]) for record in truth], dtype=bool)
        matched, taken = match(np.ascontiguousarray(ious), ignored, crowd, self.params.iouThrs)
        truth_ids = np.array([record["id"] for record in truth] + [0])
        found_ids = np.array([record["id"] for record in found] + [0])
        # Predictions out of the range of areas are ignored where nothing matches them.
        areas = np.array([record["area"] for record in found])
        outside = (areas < aRng[0]) | (areas > aRng[1])
        of_ignored = np.append(ignored, False)[matched]
        return {
            "image_id": imgId,
            "category_id": catId,
            "aRng": aRng,
            "maxDet": maxDet,
            "dtIds": found_ids[:-1].tolist(),
            "gtIds": truth_ids[:-1].tolist(),
            "dtMatches": truth_ids[matched].astype(np.float64),
            "gtMatches": found_ids[taken].astype(np.float64),
            "dtScores": [record["score"] for record in found],
            "gtIgnore": ignored.astype(np.int64),
            "dtIgnore": np.where(matched < 0, outside, of_ignored),
        }


def _ranked(found: Records) -> NDArray[np.int64]:
    """Indices by falling score; equal ones in stored order."""
    return np.argsort([-record["score"] for record in found], kind="mergesort")


@njit(cache=True, nogil=True)
def match(ious, ignored, crowd, thresholds):  # type: ignore[no-untyped-def]
    """COCO's greedy matching, at each threshold.

    A prediction, the best ones first, takes the free object that it overlaps most, the last of
    equal ones; an ignored object only if there is no other. A crowd stays free.

    Args:
        ious: (d, g) float64: predictions by falling score, objects with the ignored ones last.
        ignored: (g,) bool.
        crowd: (g,) bool.
        thresholds: (t,) float64.

    Returns:
        (t, d) int64: the object of each prediction, or -1; (t, g) int64: the (last) prediction of
        each object, or -1.
    """
    d, g = ious.shape
    matched = np.full((len(thresholds), d), -1, np.int64)
    taken = np.full((len(thresholds), g), -1, np.int64)
    for t in range(len(thresholds)):
        for i in range(d):
            best = min(thresholds[t], 1 - 1e-10)
            chosen = -1
            for j in range(g):
                if taken[t, j] >= 0 and not crowd[j]:
                    continue
                if chosen >= 0 and not ignored[chosen] and ignored[j]:
                    break
                if ious[i, j] >= best:
                    best = ious[i, j]
                    chosen = j
            if chosen >= 0:
                matched[t, i] = chosen
                taken[t, chosen] = i
    return matched, taken


def _matches(
    images: Sequence[ImageRecords], overlaps: dict[tuple[int, int], Any], iou: float
) -> list[Match]:
    """All predictions of an image take part, however many there are."""
    results = []
    for image in images:
        count = len(image.found)
        ious = overlaps[image.number, 1]
        of_found = np.full(count, -1, np.int64)
        at_match = np.full(count, np.nan)
        ignored = np.zeros(count, dtype=bool)
        if len(ious):
            crowd = np.array([bool(record["iscrowd"]) for record in image.truth], dtype=bool)
            order = np.argsort(crowd, kind="mergesort")
            ranked = _ranked(image.found)
            ious = np.ascontiguousarray(ious[:, order])
            (chosen,), _ = match(ious, crowd[order], crowd[order], np.array([iou]))
            some = chosen >= 0
            of_found[ranked[some]] = order[chosen[some]]
            at_match[ranked[some]] = ious[some, chosen[some]]
            ignored[ranked[some]] = crowd[order][chosen[some]]
        results.append(Match(of_found, at_match, ignored))
    return results
