"""COCO's AP and AR of each class of the ground truth, where labels have names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np

from promerge_fo.dataset.evaluation.coco_metrics import METRICS, ImageRecords, Tally
from promerge_fo.dataset.evaluation.matching import IouType, Records
from promerge_fo.dataset.stored_labels import ImageLabels

__all__ = ["ClassScorer", "class_mean"]

Figures = dict[str, dict[str, float]]
"""Each of METRICS for masks ("segm") and boxes ("bbox")."""


class ClassScorer:
    """Measures the labels of each name alone, one image after the other.

    Args:
        pred_field: the field with predictions.
        gt_field: the field with the ground truth.
    """

    def __init__(self, pred_field: str, gt_field: str) -> None:
        self._pred_field, self._gt_field = pred_field, gt_field
        self._tallies: dict[str, dict[IouType, Tally]] = {}
        self._truth: set[str] = set()

    def noting(self, images: Iterable[ImageLabels]) -> Iterator[ImageLabels]:
        """Take each image, and hand it on."""
        for image in images:
            truth, found = (_by_name(image, field) for field in (self._gt_field, self._pred_field))
            self._truth |= truth.keys()
            for name in truth.keys() | found.keys():
                if name not in self._tallies:
                    self._tallies[name] = {"segm": Tally("segm"), "bbox": Tally("bbox")}
                records = ImageRecords(image.number, truth.get(name, []), found.get(name, []))
                tallies = self._tallies[name]
                if any("segmentation" not in r for r in (*records.truth, *records.predictions)):
                    tallies.pop("segm", None)
                for tally in tallies.values():
                    tally.add(records)
            yield image

    def figures(self, kinds: Iterable[IouType]) -> dict[str, Figures]:
        """The metrics of each name in the ground truth, sorted.

        Args:
            kinds: what all labels can be measured by: "segm" if every label has a mask, and "bbox".
        """
        return {
            name: {kind: self._tallies[name][kind].scores().metrics for kind in kinds}
            for name in sorted(self._truth)
        }


def class_mean(classes: dict[str, Figures]) -> Figures:
    """The mean of each metric over the classes that have it, as pycocotools takes it; else -1.

    Examples:
        >>> class_mean({c: {"segm": dict.fromkeys(METRICS, v)} for c, v in (("a", 30), ("b", -1))})[
        ...     "segm"
        ... ]["AP"]
        30.0
    """
    kinds = next(iter(classes.values()), {})
    return {
        kind: {
            name: float(np.mean(found)) if found else -1.0
            for name in METRICS
            for found in [[f[kind][name] for f in classes.values() if f[kind][name] >= 0]]
        }
        for kind in kinds
    }


def _by_name(image: ImageLabels, field: str) -> dict[str, Records]:
    """The records of a field by the names of the labels, in stored order."""
    found: defaultdict[str, list[dict[str, object]]] = defaultdict(list)
    for name, record in zip(image.names[field], image.records[field], strict=True):
        found[name].append(record)
    return dict(found)
