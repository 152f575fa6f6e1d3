"""COCO's average precision and recall, class-agnostic, computed by pycocotools.

Only the matching of predictions with ground truth, the slowest part of pycocotools, is replaced: by
a compiled loop. The tests compare every metric with pycocotools alone.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from promerge_fo.kernels import kernel

__all__ = [
    "IOUS",
    "KINDS",
    "METRICS",
    "RECALLS",
    "ImageRecords",
    "IouType",
    "Match",
    "RankedPredictions",
    "Scores",
    "bootstrap",
    "evaluate",
]

IouType: TypeAlias = Literal["segm", "bbox"]
Records: TypeAlias = "Sequence[dict[str, Any]]"

KINDS: dict[IouType, str] = {"segm": "masks", "bbox": "boxes"}  #: what is measured, in words
IOUS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())  #: IoU thresholds that AP averages over
RECALLS = np.linspace(0, 1, 101)  #: recalls at which precision is measured

METRICS = (
    "AP", "AP50", "AP75", "APs", "APm", "APl",
    "AR1", "AR10", "AR100", "ARs", "ARm", "ARl",
)  # fmt: skip
"""The metrics in pycocotools' order. AP is the mean over the IoUs 0.50, 0.55, ..., 0.95, with at
most 100 predictions an image. AR is the mean recall over these IoUs, with at most 1, 10 or 100
predictions an image. s, m and l stand for objects smaller than 32 x 32 pixels, up to 96 x 96, and
larger."""


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
        truth_index: (n,) int64: the index of the ground truth that each prediction is matched with,
            or -1.
        ious: (n,) float64: the IoU of each prediction with its match; NaN without a match.
        ignored: (n,) bool: predictions that are matched with a crowd; they count neither as true
            nor as false positives.
    """

    truth_index: NDArray[np.int64]
    ious: NDArray[np.float64]
    ignored: NDArray[np.bool_]


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
    matches: list[Match]
    ranked: dict[str, RankedPredictions]


@dataclass(frozen=True)
class RankedPredictions:
    """The d predictions on all images by falling score, for objects in one range of areas.

    Attributes:
        image: (d,) int64: the index of each prediction's image, among the images given.
        rank: (d,) int64: the number of predictions of the same image that rank before it.
        true_positives: (10, d) bool: whether it is matched with an object that counts, at each IoU.
        false_positives: (10, d) bool: whether it is neither matched nor ignored, at each IoU.
        objects: (images,) int64: the number of objects of each image that count.
    """

    image: NDArray[np.int64]
    rank: NDArray[np.int64]
    true_positives: NDArray[np.bool_]
    false_positives: NDArray[np.bool_]
    objects: NDArray[np.int64]


def evaluate(images: Sequence[ImageRecords], kind: IouType, match_iou: float = 0.5) -> Scores:
    """Compute the metrics of the predictions on some images.

    Args:
        images: the records of each image; all numbers must differ.
        kind: "segm" for the IoU of masks, which needs a ``segmentation`` in every record, or
            "bbox" for that of boxes.
        match_iou: the IoU threshold of :attr:`Scores.matches`.
    """
    evaluation = _Evaluation(*_tables(images, kind), kind)
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
        _rank(images, evaluation),
    )


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
    draws = np.ascontiguousarray(draws, dtype=np.float64)
    curves = {}
    for name, part in ranked.items():
        curves[name] = _resample(
            part.image,
            np.ascontiguousarray(part.true_positives),
            np.ascontiguousarray(part.false_positives),
            part.objects,
            draws,
            RECALLS,
        )
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
        first = everything.rank < most
        hits = everything.true_positives[:, first].mean(axis=0)
        found = draws[:, everything.image[first]] @ hits
        with np.errstate(invalid="ignore", divide="ignore"):
            values[f"AR{most}"] = np.where(objects > 0, found / objects, np.nan)
    return {name: 100 * values[name] for name in METRICS}


@kernel
def _resample(  # type: ignore[no-untyped-def]
    image, true_positives, false_positives, objects, draws, recalls
):
    """(b, 10) average precision and (b, 10) recall; NaN without objects.

    Like pycocotools' accumulate: the precision at a recall is the highest precision at this recall
    or a higher one, and it is averaged over 101 recalls. A prediction of an image that was drawn n
    times counts n times.
    """
    b, t, d = draws.shape[0], true_positives.shape[0], true_positives.shape[1]
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
                    right += times * true_positives[j, k]
                    wrong += times * false_positives[j, k]
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


def _rank(images: Sequence[ImageRecords], evaluation: _Evaluation) -> dict[str, RankedPredictions]:
    """Sort the predictions on all images by score, as pycocotools' accumulate does."""
    parameters = evaluation._paramsEval
    index = {image.number: i for i, image in enumerate(images)}
    count = len(parameters.imgIds)
    ranked = {}
    for a, name in enumerate(parameters.areaRngLbl):
        parts = [part for part in evaluation.evalImgs[a * count :][:count] if part is not None]
        objects = np.zeros(len(images), np.int64)
        for part in parts:
            objects[index[part["image_id"]]] = np.count_nonzero(part["gtIgnore"] == 0)
        none = np.zeros((len(parameters.iouThrs), 0), dtype=bool)
        scores = np.concatenate([np.zeros(0), *(part["dtScores"] for part in parts)])
        order = np.argsort(-scores, kind="mergesort")
        matched = np.concatenate([none, *(part["dtMatches"] > 0 for part in parts)], axis=1)
        ignored = np.concatenate([none, *(part["dtIgnore"] for part in parts)], axis=1)
        lengths = [len(part["dtScores"]) for part in parts]
        image = np.repeat([index[part["image_id"]] for part in parts], lengths).astype(np.int64)
        rank = np.concatenate([np.zeros(0, np.int64), *(np.arange(n) for n in lengths)])
        ranked[name] = RankedPredictions(
            image[order],
            rank[order],
            (matched & ~ignored)[:, order],
            (~matched & ~ignored)[:, order],
            objects,
        )
    return ranked


def _tables(images: Sequence[ImageRecords], kind: IouType) -> tuple[COCO, COCO]:
    """Ground truth and predictions as pycocotools' tables."""
    # pycocotools requires the keys "height" and "width", but takes the size from each mask.
    listed = [{"id": image.number, "height": None, "width": None} for image in images]
    tables = []
    for name in ("truth", "predictions"):
        annotations: list[dict[str, Any]] = []
        for image in images:
            for record in getattr(image, name):
                annotation = {
                    **record,
                    "id": len(annotations) + 1,
                    "image_id": image.number,
                    "category_id": 1,
                }
                if name == "predictions":
                    annotation["iscrowd"] = 0
                if kind == "bbox" and name == "predictions":
                    # pycocotools' loadRes computes the areas of predicted boxes like this
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
    """pycocotools' evaluation, with a compiled loop instead of its slowest one."""

    def __init__(self, truth: COCO, predictions: COCO, kind: IouType) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            super().__init__(truth, predictions, kind)

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802
        """(d, g) IoUs of all predictions by falling score; :func:`_matches` needs more than 100."""
        truth, predictions = self._gts[imgId, catId], self._dts[imgId, catId]
        key = "segmentation" if self.params.iouType == "segm" else "bbox"
        return coco_mask.iou(
            [predictions[i][key] for i in _by_score(predictions)],
            [record[key] for record in truth],
            [int(record["iscrowd"]) for record in truth],
        )

    def evaluateImg(  # noqa: N802
        self, imgId: int, catId: int, aRng: Sequence[float], maxDet: int
    ) -> dict[str, Any] | None:
        truth, predictions = self._gts[imgId, catId], self._dts[imgId, catId]
        if not truth and not predictions:
            return None
        areas = np.array([record["area"] for record in truth])
        ignored = np.array([bool(record["ignore"]) for record in truth], dtype=bool)
        ignored |= (areas < aRng[0]) | (areas > aRng[1])
        order = np.argsort(ignored, kind="mergesort")
        truth, ignored = [truth[i] for i in order], ignored[order]
        predictions = [predictions[i] for i in _by_score(predictions)[:maxDet]]
        ious = self.ious[imgId, catId]
        ious = ious[:maxDet, order] if len(ious) else np.zeros((len(predictions), len(truth)))
        crowd = np.array([bool(record["iscrowd"]) for record in truth], dtype=bool)
        matched, taken = match(np.ascontiguousarray(ious), ignored, crowd, self.params.iouThrs)
        truth_ids = np.array([record["id"] for record in truth] + [0])
        predicted_ids = np.array([record["id"] for record in predictions] + [0])
        # Predictions outside the range of areas are ignored if they are not matched.
        areas = np.array([record["area"] for record in predictions])
        outside = (areas < aRng[0]) | (areas > aRng[1])
        of_ignored = np.append(ignored, False)[matched]
        return {
            "image_id": imgId,
            "category_id": catId,
            "aRng": aRng,
            "maxDet": maxDet,
            "dtIds": predicted_ids[:-1].tolist(),
            "gtIds": truth_ids[:-1].tolist(),
            "dtMatches": truth_ids[matched].astype(np.float64),
            "gtMatches": predicted_ids[taken].astype(np.float64),
            "dtScores": [record["score"] for record in predictions],
            "gtIgnore": ignored.astype(np.int64),
            "dtIgnore": np.where(matched < 0, outside, of_ignored),
        }


def _by_score(predictions: Records) -> NDArray[np.int64]:
    """Indices of predictions by falling score; those with equal scores stay in stored order."""
    return np.argsort([-record["score"] for record in predictions], kind="mergesort")


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
        (t, d) int64, the object of each prediction, or -1; and (t, g) int64, the (last) prediction
        of each object, or -1.
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
    """The matches of each image at one IoU, of all predictions, even if they are more than 100."""
    results = []
    for image in images:
        count = len(image.predictions)
        ious = overlaps[image.number, 1]
        truth_index = np.full(count, -1, np.int64)
        matched_ious = np.full(count, np.nan)
        ignored = np.zeros(count, dtype=bool)
        if len(ious):
            crowd = np.array([bool(record["iscrowd"]) for record in image.truth], dtype=bool)
            order = np.argsort(crowd, kind="mergesort")
            by_score = _by_score(image.predictions)
            ious = np.ascontiguousarray(ious[:, order])
            (chosen,), _ = match(ious, crowd[order], crowd[order], np.array([iou]))
            hit = chosen >= 0
            truth_index[by_score[hit]] = order[chosen[hit]]
            matched_ious[by_score[hit]] = ious[hit, chosen[hit]]
            ignored[by_score[hit]] = crowd[order][chosen[hit]]
        results.append(Match(truth_index, matched_ious, ignored))
    return results
