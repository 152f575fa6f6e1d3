"""COCO's AP and AR of a field of instances, as one of FiftyOne's evaluation runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from bson import ObjectId
from fiftyone.utils.eval.coco import (
    COCODetectionResults,
    COCOEvaluation,
    COCOEvaluationConfig,
)
from pymongo import UpdateOne

from promerge_fo.dataset.database import (
    bulk_update,
    dataset_of,
    is_generated,
    load_results,
    reload_samples,
    root_dataset,
)
from promerge_fo.dataset.evaluation.coco_metrics import (
    IOUS,
    METRICS,
    RECALLS,
    ImageRecords,
    IouType,
    Match,
    Scores,
    evaluate,
)
from promerge_fo.dataset.labels import LABEL
from promerge_fo.dataset.samples import require_detections, require_images
from promerge_fo.dataset.stored_labels import ImageLabels, read_labels
from promerge_fo.progress import ShowProgress

__all__ = [
    "InstanceEvaluationConfig",
    "InstanceResults",
    "evaluate_instances",
    "list_evaluations",
    "score_field",
]

logger = logging.getLogger("fiftyone.promerge")

METHOD = "promerge"  #: what FiftyOne calls evaluations by :func:`evaluate_instances`
CURVES = (0.5, 0.75)  # IoUs whose curves are kept where they are quick to read


def evaluate_instances(
    samples: Any,
    pred_field: str,
    gt_field: str = "ground_truth",
    eval_key: str | None = None,
    *,
    progress: ShowProgress = None,
) -> InstanceResults:
    """Measure class-agnostic COCO AP and AR, exactly as pycocotools does.

    The figures are those of pycocotools on what
    :func:`~promerge_fo.dataset.export_pseudo_labels` writes of the same samples with
    ``min_area=0``: every label is of one class, the labels of an image count in stored order, the
    images in the order of their COCO ids (``coco_id``, or the importer's ``*_coco_id``) where all
    are known, else in that of the samples. Labels with ``iscrowd`` count as COCO's crowds. Boxes
    are the tight ones of the masks, where there are masks. Masks are measured where every label of
    both fields has one, boxes always. Images that cannot be read, and whose size is not known, are
    left out.

    With an ``eval_key`` this is an evaluation run of FiftyOne: matches at IoU 0.5 are written to
    the labels (``eval_key``: "tp", "fp" or "fn"; ``{eval_key}_id`` and ``{eval_key}_iou`` of the
    other one) and counted on the samples (``{eval_key}_tp``, ``_fp``, ``_fn``), the figures stand
    in the App's Model Evaluation panel, and ``list_evaluations``, ``load_evaluation_results``,
    ``rename_evaluation`` and ``delete_evaluation`` know it. What is matched with a crowd counts
    neither way. Nothing is written before all figures are known, and a run that fails then is
    deleted.

    Args:
        samples: a dataset or a view of images.
        pred_field: the field with predictions; without ``confidence``, they count as 1.
        gt_field: the field with the ground truth.
        eval_key: the run's name; one that exists is replaced. None writes nothing.
        progress: whether to show a bar (None: as FiftyOne's config says), or what makes one; see
            :data:`promerge_fo.progress.ShowProgress`.

    Returns:
        The results; ``results.metrics()`` has the figures.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples have no images.
        ValueError: a field that does not hold detections, no samples, or an ``eval_key`` that is
            no name for a field.
        FileNotFoundError: a mask's file is gone.

    Examples:
        >>> results = evaluate_instances(  # doctest: +SKIP
        ...     dataset, "promerge", gt_field="ground_truth", eval_key="promerge"
        ... )
        >>> results.metrics()["segm"]["AP"]  # doctest: +SKIP
        1.39
    """
    require_images(samples)
    for field in (pred_field, gt_field):
        require_detections(samples, field)
    if len(samples) == 0:
        raise ValueError("there are no samples to evaluate; take another view")
    config = InstanceEvaluationConfig(pred_field, gt_field)
    method = config.build()
    if eval_key is not None:
        method.validate_run(samples, eval_key)
    images = list(read_labels(samples, (pred_field, gt_field), progress))
    scores = score_field(images, pred_field, gt_field)
    leading = next(iter(scores.values()))
    config.images = sum(image.size is not None for image in images)
    config.figures = {kind: score.metrics for kind, score in scores.items()}
    config.curves = {f"{iou:.2f}": leading.precision[IOUS.index(iou)].tolist() for iou in CURVES}
    outcome = _Outcome(images, leading, gt_field, pred_field)
    results = InstanceResults(
        samples,
        config,
        eval_key,
        outcome.matches,
        leading.precision[:, None],
        RECALLS,
        IOUS,
        [LABEL],
        recall_sweep=leading.recall[:, None],
        thresholds=leading.thresholds[:, None],
        custom_metrics=_for_the_panel(scores),
        coco_metrics=config.figures,
        backend=method,
    )
    if eval_key is not None:
        _save(samples, method, eval_key, images, outcome, results)
    return results


def list_evaluations(dataset: Any) -> dict[str, InstanceEvaluationConfig]:
    """The evaluations by :func:`evaluate_instances` on a dataset, oldest first, by key.

    Quick, whatever their size: figures and curves lie in the configurations.
    """
    infos = [dataset.get_evaluation_info(key) for key in dataset.list_evaluations(method=METHOD)]
    return {info.key: info.config for info in sorted(infos, key=lambda info: info.timestamp)}


def score_field(
    images: Sequence[ImageLabels], pred_field: str, gt_field: str
) -> dict[IouType, Scores]:
    """Scores of one field's predictions, for boxes, and before that for masks where all have one.

    Args:
        images: from :func:`~promerge_fo.dataset.stored_labels.read_labels`; unreadable ones are
            left out.
        pred_field: the predictions among their records.
        gt_field: the ground truth.
    """
    records = [
        ImageRecords(image.number, image.records[gt_field], image.records[pred_field])
        for image in images
        if image.size is not None
    ]
    maskless = sum(
        "segmentation" not in record for image in records for record in (*image.truth, *image.found)
    )
    if maskless:
        logger.warning(
            "%d labels of %s and %s have no mask: boxes alone are measured",
            maskless,
            gt_field,
            pred_field,
        )
        return {"bbox": evaluate(records, "bbox")}
    return {"segm": evaluate(records, "segm"), "bbox": evaluate(records, "bbox")}


class InstanceEvaluationConfig(COCOEvaluationConfig):  # type: ignore[misc]
    """What FiftyOne keeps of an evaluation by :func:`evaluate_instances`.

    Beside the settings it has what is shown of several evaluations at once, as FiftyOne's results
    hold every match and take long to load.

    Attributes:
        images: that were measured.
        figures: what :meth:`InstanceResults.metrics` gives.
        curves: precision at :data:`~promerge_fo.dataset.evaluation.coco_metrics.RECALLS`, by IoU.
    """

    def __init__(
        self,
        pred_field: str,
        gt_field: str,
        images: int = 0,
        figures: dict[str, dict[str, float]] | None = None,
        curves: dict[str, list[float]] | None = None,
        **kwargs: Any,
    ) -> None:
        settings = {"iou": 0.5, "classwise": False, "use_masks": True, **kwargs}
        super().__init__(pred_field, gt_field, **settings)
        self.images = images
        self.figures = figures or {}
        self.curves = curves or {}

    @property
    def method(self) -> str:
        """The name that the App shows."""
        return METHOD


class InstanceEvaluation(COCOEvaluation):  # type: ignore[misc]
    """The method of :func:`evaluate_instances`, as FiftyOne's runs have one."""


class InstanceResults(COCODetectionResults):  # type: ignore[misc]
    """Figures of :func:`evaluate_instances`, with all that FiftyOne's results can do beside.

    Attributes:
        coco_metrics: what :meth:`metrics` gives.
    """

    def __init__(
        self, *args: Any, coco_metrics: dict[str, dict[str, float]], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.coco_metrics = coco_metrics

    def metrics(self, *args: Any, **kwargs: Any) -> dict[str, dict[str, float]]:
        """AP and AR of masks ("segm") and boxes ("bbox").

        Returns:
            For each kind ``AP``, ``AP50``, ``AP75``, ``APs``, ``APm``, ``APl``, ``AR1``, ``AR10``,
            ``AR100``, ``ARs``, ``ARm``, ``ARl``: 0 to 100, or -1 where there is no ground truth.
        """
        return {kind: dict(figures) for kind, figures in self.coco_metrics.items()}

    def print_metrics(self, *args: Any, digits: int = 2, **kwargs: Any) -> None:
        """Print the figures as a table."""
        print("      " + "".join(f"{name:>7}" for name in METRICS))
        for kind, figures in self.coco_metrics.items():
            values = (f"{figures[name]:7.{digits}f}" for name in METRICS)
            print(f"{kind:6}" + "".join(values))

    @classmethod
    def _from_dict(
        cls, d: dict[str, Any], samples: Any, config: Any, eval_key: str, **kwargs: Any
    ) -> InstanceResults:
        figures = d["coco_metrics"]
        return load_results(
            InstanceResults, d, samples, config, eval_key, coco_metrics=figures, **kwargs
        )


class _Outcome:
    """Who matched whom, as FiftyOne writes it on labels and samples.

    Attributes:
        matches: (truth's class, prediction's class, IoU, confidence, truth's id, prediction's id)
            of everything that counts; None for what is missing.
        on_samples: true positives ("_tp"), false positives and false negatives of each sample.
        on_labels: by field and suffix ("", "_id", "_iou"), for each sample the values of its
            labels, in stored order.
    """

    def __init__(
        self, images: Sequence[ImageLabels], scores: Scores, truth: str, found: str
    ) -> None:
        self._truth, self._found = truth, found
        self.matches: list[tuple[Any, ...]] = []
        self.on_samples: dict[str, list[int]] = {"_tp": [], "_fp": [], "_fn": []}
        self.on_labels: dict[tuple[str, str], list[list[Any]]] = {
            (field, suffix): [] for field in (truth, found) for suffix in ("", "_id", "_iou")
        }
        matches = iter(scores.matches)
        for image in images:
            counts = dict.fromkeys(self.on_samples, 0)
            values: dict[tuple[str, str], list[Any]] = {
                key: [None] * len(image.all_ids[key[0]]) for key in self.on_labels
            }
            if image.size is not None:
                self._add(image, next(matches), counts, values)
            for suffix, count in counts.items():
                self.on_samples[suffix].append(count)
            for key, value in values.items():
                self.on_labels[key].append(value)

    def _add(
        self,
        image: ImageLabels,
        match: Match,
        counts: dict[str, int],
        values: dict[tuple[str, str], list[Any]],
    ) -> None:
        truth, found = self._truth, self._found
        truth_ids, found_ids = image.ids[truth], image.ids[found]
        missed = {i for i, record in enumerate(image.records[truth]) if not record["iscrowd"]}
        for i, record in enumerate(image.records[found]):
            place, j, score = image.places[found][i], int(match.found[i]), record["score"]
            if match.ignored[i]:
                continue
            if j < 0:
                counts["_fp"] += 1
                values[found, ""][place] = "fp"
                self.matches.append((None, LABEL, None, score, None, found_ids[i]))
                continue
            counts["_tp"] += 1
            missed.discard(j)
            iou = float(match.ious[i])
            self.matches.append((LABEL, LABEL, iou, score, truth_ids[j], found_ids[i]))
            for field, at, other in (
                (found, place, truth_ids[j]),
                (truth, image.places[truth][j], found_ids[i]),
            ):
                values[field, ""][at] = "tp"
                values[field, "_id"][at] = other
                values[field, "_iou"][at] = iou
        for j in sorted(missed):
            counts["_fn"] += 1
            values[truth, ""][image.places[truth][j]] = "fn"
            self.matches.append((LABEL, None, None, None, truth_ids[j], None))


def _for_the_panel(scores: dict[IouType, Scores]) -> dict[str, dict[str, Any]]:
    """The figures as the App's Model Evaluation panel lists them."""
    kinds = {"segm": "masks", "bbox": "boxes"}
    return {
        f"@promerge/promerge/{kind}_{name}": {
            "key": f"{kind}_{name}",
            "value": round(value, 2),
            "label": f"{name} ({kinds[kind]})",
            "lower_is_better": False,
        }
        for kind, score in scores.items()
        for name, value in score.metrics.items()
    }


def _save(
    samples: Any,
    method: Any,
    eval_key: str,
    images: Sequence[ImageLabels],
    outcome: _Outcome,
    results: InstanceResults,
) -> None:
    """Write a run, or nothing."""
    try:
        method.register_run(samples, eval_key)
        method.register_samples(samples, eval_key)
        _write(samples, eval_key, images, outcome)
        method.save_run_results(samples, eval_key, results)
        fields = results.config.pred_field, results.config.gt_field
        method.add_fields_to_sidebar_group(samples, eval_key, omit_fields=fields)
    except BaseException:
        if root_dataset(samples).has_evaluation(eval_key):
            root_dataset(samples).delete_evaluation(eval_key)
        raise


def _write(samples: Any, eval_key: str, images: Sequence[ImageLabels], outcome: _Outcome) -> None:
    """The outcome onto labels and samples."""
    if is_generated(samples):  # patches and frames hand on to their source what is set this way
        for (field, suffix), values in outcome.on_labels.items():
            samples.set_values(f"{field}.detections.{eval_key}{suffix}", values)
        for suffix, counts in outcome.on_samples.items():
            samples.set_values(f"{eval_key}{suffix}", counts)
        return
    # One update a sample: FiftyOne's own way takes one a label and attribute, and minutes.
    fields = {field for field, _ in outcome.on_labels}
    stored = dataset_of(samples).select([image.sample_id for image in images], ordered=True)
    places = {
        field: [
            {label: i for i, label in enumerate(ids or ())}
            for ids in stored.values(f"{field}.detections.id")
        ]
        for field in fields
    }
    now = datetime.now(timezone.utc)
    updates = []
    for k, image in enumerate(images):
        changes: dict[str, Any] = {"last_modified_at": now}
        for suffix, counts in outcome.on_samples.items():
            changes[f"{eval_key}{suffix}"] = counts[k]
        for (field, suffix), values in outcome.on_labels.items():
            for label, value in zip(image.all_ids[field], values[k], strict=True):
                place = places[field][k][label]
                changes[f"{field}.detections.{place}.{eval_key}{suffix}"] = value
        updates.append(UpdateOne({"_id": ObjectId(image.sample_id)}, {"$set": changes}))
    bulk_update(samples, updates)
    reload_samples(samples, [image.sample_id for image in images])
