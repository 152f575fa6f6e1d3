"""COCO's AP and AR of a field of instances, stored as an evaluation run of FiftyOne."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import numpy as np
from fiftyone.utils.eval.coco import (
    COCODetectionResults,
    COCOEvaluation,
    COCOEvaluationConfig,
)

from promerge_fo.dataset.database import load_results, replaced_run
from promerge_fo.dataset.evaluation.by_class import ClassScorer, class_mean
from promerge_fo.dataset.evaluation.coco_metrics import (
    IOUS,
    KINDS,
    METRICS,
    RECALLS,
    ImageRecords,
    Scores,
    Tally,
)
from promerge_fo.dataset.evaluation.label_table import LabelTable
from promerge_fo.dataset.evaluation.matched_labels import MatchedLabels
from promerge_fo.dataset.evaluation.matching import IouType
from promerge_fo.dataset.evaluation.replaced_run import replaced_matches
from promerge_fo.dataset.faults import Faults
from promerge_fo.dataset.labels import LABEL
from promerge_fo.dataset.samples import images_of, require_detections
from promerge_fo.dataset.stored_labels import ImageLabels, read_labels
from promerge_fo.progress import ShowProgress

__all__ = [
    "FieldScorer",
    "InstanceEvaluationConfig",
    "InstanceResults",
    "evaluate_instances",
    "list_evaluations",
    "score_field",
]

logger = logging.getLogger("fiftyone.promerge")

METHOD = "promerge"  #: FiftyOne's name for the evaluation method of :func:`evaluate_instances`
_CURVE_IOUS = (0.5, 0.75)  # IoUs whose curves are stored in the config, for quick access


def evaluate_instances(
    samples: Any,
    pred_field: str,
    gt_field: str = "ground_truth",
    eval_key: str | None = None,
    *,
    classwise: bool = False,
    progress: ShowProgress = None,
) -> InstanceResults:
    """Measure class-agnostic COCO AP and AR, exactly as pycocotools does.

    The metrics are those of pycocotools on the files that
    :func:`~promerge_fo.dataset.export_pseudo_labels` writes for the same samples with
    ``min_area=0``. All labels are of one class. The labels of an image count in stored order. The
    images count in the order of their COCO ids (``coco_id``, or the importer's ``*_coco_id``) if
    all ids are known, else in the order of the samples. Labels with ``iscrowd`` are COCO's crowds.
    Boxes are always measured; the box of a label with a mask is the tight box of the mask. Masks
    are measured if every label of both fields has one. Images that cannot be read, and whose size
    is not known, are left out, and so are labels that cannot be used (without a box, with NaN, with
    a broken or lost mask), which the log names.

    With an ``eval_key``, the results become an evaluation run of FiftyOne. Matches at IoU 0.5 are
    written to the labels: "tp", "fp" or "fn" as ``{eval_key}``, and the id of the matched label and
    the IoU as ``{eval_key}_id`` and ``{eval_key}_iou``. They are counted on the samples
    (``{eval_key}_tp``, ``_fp``, ``_fn``); a prediction that is matched with a crowd is not counted.
    The App's Model Evaluation panel shows the metrics, and FiftyOne's ``list_evaluations``,
    ``load_evaluation_results``, ``rename_evaluation`` and ``delete_evaluation`` work. Nothing is
    written before all metrics are computed. If writing fails or is interrupted by Ctrl-C, nothing
    of the new run is left, and an earlier one of its key is as it was.

    Args:
        samples: a dataset or a view of images.
        pred_field: the field with predictions; one without ``confidence`` has the score 1.
        gt_field: the field with the ground truth.
        eval_key: the key of the run, which replaces a run of the same key; None writes nothing.
        classwise: also measure the labels of each name in the ground truth alone, against the
            predictions of that name; ``results.class_metrics`` has the figures. Matches stay those
            of all labels.
        progress: whether to show a progress bar (None: as FiftyOne's config says), or a function
            that makes one; see :data:`promerge_fo.progress.ShowProgress`.

    Returns:
        The results; ``results.metrics()`` returns AP and AR, and FiftyOne's metrics beside them.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images.
        ValueError: a field does not hold detections, there are no samples, or ``eval_key`` is not
            a valid name of a field.

    Examples:
        >>> results = evaluate_instances(
        ...     dataset, "promerge", gt_field="ground_truth", eval_key="promerge"
        ... )
        >>> round(results.metrics()["segm"]["AP50"], 1)
        50.5
    """
    samples = images_of(samples)
    for field in (pred_field, gt_field):
        require_detections(samples, field)
    if len(samples) == 0:
        raise ValueError("there are no samples to evaluate; take another view")
    config = InstanceEvaluationConfig(pred_field, gt_field)
    method = config.build()
    if eval_key is not None:
        method.validate_run(samples, eval_key)
    table = LabelTable((pred_field, gt_field))
    faults = Faults()
    images = table.noting(read_labels(samples, (pred_field, gt_field), progress, faults))
    by_class = ClassScorer(pred_field, gt_field)
    if classwise:
        images = by_class.noting(images)
    scores = score_field(images, pred_field, gt_field)
    leading = next(iter(scores.values()))
    config.left_out = dict(faults.counts)
    config.images = len(table.readable)
    config.class_figures = by_class.figures(scores)
    config.figures = {kind: score.metrics for kind, score in scores.items()}
    config.curves = {
        f"{iou:.2f}": leading.precision[IOUS.index(iou)].tolist() for iou in _CURVE_IOUS
    }
    matched = MatchedLabels(table, leading.matches, gt_field, pred_field)
    results = InstanceResults(
        samples,
        config,
        eval_key,
        matched.columns(),
        leading.precision[:, None],
        RECALLS,
        IOUS,
        [LABEL],
        recall_sweep=leading.recall[:, None],
        thresholds=leading.thresholds[:, None],
        custom_metrics=_panel_metrics(scores),
        coco_metrics=config.figures,
        backend=method,
    )
    if eval_key is not None:
        _save_run(samples, method, eval_key, matched, results, progress)
    return results


def list_evaluations(dataset: Any) -> dict[str, InstanceEvaluationConfig]:
    """The evaluations of a dataset that :func:`evaluate_instances` made, by key, oldest first.

    Fast for any size of evaluation: metrics and curves are stored in the configurations.
    """
    infos = [dataset.get_evaluation_info(key) for key in dataset.list_evaluations(method=METHOD)]
    return {info.key: info.config for info in sorted(infos, key=lambda info: info.timestamp)}


def score_field(
    images: Iterable[ImageLabels], pred_field: str, gt_field: str
) -> dict[IouType, Scores]:
    """Measure the predictions of one field.

    Args:
        images: the labels of each image, from
            :func:`~promerge_fo.dataset.stored_labels.read_labels`; images that cannot be read are
            left out.
        pred_field: the field with predictions.
        gt_field: the field with the ground truth.

    Returns:
        The scores of masks ("segm"), if every label has a mask, and then those of boxes ("bbox").
    """
    scorer = FieldScorer(pred_field, gt_field)
    for image in images:
        scorer.add(image)
    return scorer.scores()


class FieldScorer:
    """Measures the predictions of one field, one image after the other; see :func:`score_field`."""

    def __init__(self, pred_field: str, gt_field: str) -> None:
        self._pred_field, self._gt_field = pred_field, gt_field
        self._tallies: dict[IouType, Tally] = {"segm": Tally("segm"), "bbox": Tally("bbox")}
        self._maskless = 0
        self._example = ""

    def add(self, image: ImageLabels) -> None:
        """Take the labels of an image; those of one that cannot be read are left out."""
        if image.size is None:
            return
        truth, predictions = image.records[self._gt_field], image.records[self._pred_field]
        self._maskless += sum("segmentation" not in record for record in (*truth, *predictions))
        if self._maskless and self._tallies.pop("segm", None) is not None:
            self._example = next(
                f"{name} of the sample {image.sample_id}"
                for field in (self._gt_field, self._pred_field)
                for name, record in zip(image.ids[field], image.records[field], strict=True)
                if "segmentation" not in record
            )
        for tally in self._tallies.values():
            tally.add(ImageRecords(image.number, truth, predictions))

    def scores(self) -> dict[IouType, Scores]:
        """The scores of all images."""
        if self._maskless:
            logger.warning(
                "%d labels of %s and %s have no mask, such as %s, so only boxes are measured",
                self._maskless, self._gt_field, self._pred_field, self._example,
            )  # fmt: skip
        return {kind: tally.scores() for kind, tally in self._tallies.items()}


class InstanceEvaluationConfig(COCOEvaluationConfig):  # type: ignore[misc]
    """The stored configuration of an evaluation by :func:`evaluate_instances`.

    Besides the settings it holds the metrics, to show many evaluations at once: FiftyOne's results
    contain every match, and take long to load. Its attributes are stored in databases, so their
    names stay.

    Attributes:
        images: the number of images measured.
        left_out: the numbers of labels that cannot be used, by
            :data:`~promerge_fo.dataset.faults.FAULTS`.
        figures: the metrics, see :attr:`InstanceResults.coco_metrics`.
        class_figures: the metrics of each class, see :attr:`InstanceResults.class_metrics`.
        curves: (101,) precisions at :data:`~promerge_fo.dataset.evaluation.coco_metrics.RECALLS`,
            by IoU ("0.50", "0.75").
    """

    def __init__(
        self,
        pred_field: str,
        gt_field: str,
        images: int = 0,
        figures: dict[str, dict[str, float]] | None = None,
        curves: dict[str, list[float]] | None = None,
        left_out: dict[str, int] | None = None,
        class_figures: dict[str, dict[str, dict[str, float]]] | None = None,
        **kwargs: Any,
    ) -> None:
        settings = {"iou": 0.5, "classwise": False, "use_masks": True, **kwargs}
        super().__init__(pred_field, gt_field, **settings)
        self.images = images
        self.figures = figures or {}
        self.curves = curves or {}
        self.left_out = left_out or {}
        self.class_figures = class_figures or {}

    @property
    def method(self) -> str:
        """The name of the method in FiftyOne and its App."""
        return METHOD


class InstanceEvaluation(COCOEvaluation):  # type: ignore[misc]
    """The method of :func:`evaluate_instances`; FiftyOne requires such a class for each method."""


class InstanceResults(COCODetectionResults):  # type: ignore[misc]
    """The results of :func:`evaluate_instances`, with all the methods of FiftyOne's results.

    Attributes:
        coco_metrics: for masks ("segm") and boxes ("bbox") each of
            :data:`~promerge_fo.dataset.evaluation.coco_metrics.METRICS`: 0 to 100, or -1 without
            ground truth.
    """

    def __init__(
        self,
        samples: Any,
        config: Any,
        eval_key: str | None,
        columns: dict[str, list[Any]] | list[Any],
        *args: Any,
        coco_metrics: dict[str, dict[str, float]],
        **kwargs: Any,
    ) -> None:
        super().__init__(samples, config, eval_key, [], *args, **kwargs)
        self.coco_metrics = coco_metrics
        self._fill(dict(columns))

    def _fill(self, columns: dict[str, Any]) -> None:
        """Take the matches by columns: FiftyOne's rows take ten times as much memory."""
        for name, values in columns.items():
            setattr(self, name, np.asarray(values))

    def metrics(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """AP and AR of masks and boxes, beside FiftyOne's metrics of the matches at IoU 0.5.

        The arguments are those of FiftyOne's ``metrics``: ``classes``, ``average``, ``beta``.

        Returns:
            :attr:`coco_metrics`; ``accuracy``, ``precision``, ``recall`` and ``fscore`` in [0, 1];
            ``support``, the number of objects; and what stands in ``custom_metrics``.
        """
        return {**super().metrics(*args, **kwargs), **copy.deepcopy(self.coco_metrics)}

    @property
    def class_metrics(self) -> dict[str, dict[str, dict[str, float]]]:
        """As :attr:`coco_metrics` for each name in the ground truth, if they were measured.

        The mean over the classes is :func:`~promerge_fo.dataset.evaluation.by_class.class_mean`.
        """
        return copy.deepcopy(self.config.class_figures)

    def print_metrics(self, *args: Any, digits: int = 2, **kwargs: Any) -> None:
        """Print AP and AR as a table, of all labels and then of each class, if it was measured."""
        classes = self.class_metrics
        tables = {"": self.coco_metrics}
        if classes:
            tables |= {f"mean of {len(classes)} classes": class_mean(classes), **classes}
        width = max(map(len, tables)) + bool(classes)
        print(" " * (width + 6) + "".join(f"{name:>7}" for name in METRICS))
        for title, figures in tables.items():
            for kind, metrics in figures.items():
                values = "".join(f"{metrics[name]:7.{digits}f}" for name in METRICS)
                print(f"{title:{width}}{kind:6}{values}")

    @classmethod
    def _from_dict(
        cls, d: dict[str, Any], samples: Any, config: Any, eval_key: str, **kwargs: Any
    ) -> InstanceResults:
        columns = {name: d[name] for name in MatchedLabels.COLUMNS}
        empty = {**d, **{name: [] for name in columns}}
        results = load_results(
            InstanceResults, empty, samples, config, eval_key, coco_metrics=d["coco_metrics"],
            **kwargs,
        )  # fmt: skip
        results._fill(columns)
        return results


def _panel_metrics(scores: dict[IouType, Scores]) -> dict[str, dict[str, Any]]:
    """AP and AR in the format of the App's Model Evaluation panel."""
    return {
        f"@promerge/promerge/{kind}_{name}": {
            "key": f"{kind}_{name}",
            "value": round(value, 2),
            "label": f"{name} ({KINDS[kind]}, %)",  # FiftyOne's own mAP beside it is a share
            "lower_is_better": False,
        }
        for kind, score in scores.items()
        for name, value in score.metrics.items()
    }


def _save_run(
    samples: Any,
    method: InstanceEvaluation,
    eval_key: str,
    matched: MatchedLabels,
    results: InstanceResults,
    progress: ShowProgress,
) -> None:
    """Write an evaluation run; if that fails, an earlier one of the key is as it was."""
    with ExitStack() as stack, replaced_matches(samples, method, eval_key):
        matched.write(samples, eval_key, progress)
        stack.enter_context(replaced_run(samples, method, eval_key))
        method.register_run(samples, eval_key)
        method.save_run_results(samples, eval_key, results)
