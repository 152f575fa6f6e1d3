"""Compare fields of instances on the same images: which is better, by how much, and where."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone import ViewExpression
from fiftyone import ViewField as F
from numpy.typing import NDArray

from promerge_fo.dataset.database import aggregate, chosen_labels
from promerge_fo.dataset.evaluation.coco_metrics import KINDS, METRICS, Scores
from promerge_fo.dataset.evaluation.evaluate import FieldScorer
from promerge_fo.dataset.evaluation.intervals import percentile_interval, resampled_metrics
from promerge_fo.dataset.evaluation.label_table import LabelTable
from promerge_fo.dataset.evaluation.matching import IouType
from promerge_fo.dataset.faults import Faults
from promerge_fo.dataset.samples import images_of, require_detections
from promerge_fo.dataset.stored_labels import read_labels, usable_masks
from promerge_fo.images import ImageError, load_image
from promerge_fo.progress import ShowProgress
from promerge_fo.words import markdown_table

__all__ = ["Comparison", "compare_fields", "recall_gain", "samples_by_gain"]

logger = logging.getLogger("fiftyone.promerge")


def compare_fields(
    samples: Any,
    fields: Sequence[str],
    gt_field: str = "ground_truth",
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    progress: ShowProgress = None,
) -> Comparison:
    """Compare the instances of two or more fields, by their AP and AR against the ground truth.

    A bootstrap over images gives the uncertainty of each metric, and of its difference to the
    first field: all fields are scored on the same samples of the images, drawn with replacement
    (Efron and Tibshirani, 1993, percentile intervals). If the interval of a difference does not
    contain 0, the difference is unlikely to be due to the choice of the images.

    Args:
        samples: a dataset or a view of images.
        fields: the fields with predictions; the others are compared with the first one.
        gt_field: the field with the ground truth.
        resamples: the number of samples of the images.
        confidence: the confidence of the intervals, in (0, 1).
        seed: the seed of the bootstrap.
        progress: whether to show a progress bar (None: as FiftyOne's config says), or a function
            that makes one; see :data:`promerge_fo.progress.ShowProgress`.

    Returns:
        The comparison, with metrics, views and a report.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images.
        ValueError: there are fewer than two fields, a field is given twice or does not hold
            detections, or no image can be read.

    Examples:
        >>> comparison = compare_fields(dataset, ["maskcut", "promerge"])
        >>> print(comparison)
        >>> session.view = comparison.gains("promerge")
        >>> comparison.report("comparison/")
    """
    fields = list(fields)
    if len(fields) < 2 or len(set(fields)) < len(fields):
        raise ValueError(f"fields are {fields}, but must be two or more different ones")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, but must lie between 0 and 1")
    samples = images_of(samples)
    for field in (*fields, gt_field):
        require_detections(samples, field)
    table = LabelTable([gt_field])
    scorers = {field: FieldScorer(field, gt_field) for field in fields}
    faults = Faults()
    read = read_labels(samples, (*fields, gt_field), progress, faults)
    for image in table.noting(image for image in read if image.size is not None):
        for scorer in scorers.values():
            scorer.add(image)
    if not len(table):
        raise ValueError(
            "none of the images can be read, so there is nothing to compare; take another view"
        )
    scores = {field: scorer.scores() for field, scorer in scorers.items()}
    kind: IouType = "segm" if all("segm" in score for score in scores.values()) else "bbox"
    leading = {field: score[kind] for field, score in scores.items()}
    ranked = {field: score.ranked for field, score in leading.items()}
    drawn = resampled_metrics(ranked, len(table), resamples, seed, progress)
    left_out = dict(faults.counts)
    return Comparison(samples, fields, gt_field, kind, table, leading, drawn, confidence, left_out)


def recall_gain(eval_key: str, baseline: str) -> ViewExpression:
    """The difference of a sample's recall at IoU 0.5 between two evaluations, in [-1, 1].

    An expression for views and aggregations: the database computes it from counts on the samples,
    and reads no labels.

    Args:
        eval_key: the key of an evaluation by :func:`promerge_fo.dataset.evaluate_instances`.
        baseline: the key of another one with the same ground truth, whose recall is subtracted.
    """
    found, objects = F(f"{eval_key}_tp"), F(f"{eval_key}_tp") + F(f"{eval_key}_fn")
    return (objects > 0).if_else((found - F(f"{baseline}_tp")) / objects, 0)


def samples_by_gain(
    samples: Any, eval_key: str, baseline: str, most: int = 100, losses: bool = False
) -> fo.DatasetView:
    """A view of the samples with higher recall in one evaluation than in another, best first.

    Args:
        samples: a dataset or a view.
        eval_key: the key of an evaluation by :func:`promerge_fo.dataset.evaluate_instances`.
        baseline: the key of another one with the same ground truth.
        most: the maximum number of samples.
        losses: show the samples with lower recall instead, worst first.
    """
    gain = recall_gain(eval_key, baseline)
    differing = samples.match(gain < 0 if losses else gain > 0)
    return differing.sort_by(gain, reverse=not losses).limit(most)


@dataclass(frozen=True)
class Comparison:
    """The results of :func:`compare_fields`.

    Attributes:
        samples: the dataset or view.
        fields: the fields with predictions; the first one is the baseline.
        gt_field: the field with the ground truth.
        kind: "segm" if masks are compared, "bbox" for boxes; masks if every label has one.
        images: the images that can be read, and the ids of their objects.
        scores: the scores of each field.
        drawn: for each field, the values of each metric on the bootstrap's samples, (resamples,).
        confidence: the confidence of the intervals.
        left_out: the numbers of labels that cannot be used, by
            :data:`~promerge_fo.dataset.faults.FAULTS`.
    """

    samples: Any
    fields: list[str]
    gt_field: str
    kind: IouType
    images: LabelTable
    scores: dict[str, Scores]
    drawn: dict[str, dict[str, NDArray[np.float64]]]
    confidence: float
    left_out: Mapping[str, int]

    def metrics(self) -> dict[str, dict[str, float]]:
        """The metrics of each field, 0 to 100, or -1 without ground truth."""
        return {field: dict(self.scores[field].metrics) for field in self.fields}

    def interval(self, field: str, metric: str) -> tuple[float, float]:
        """The bootstrap interval of a field's metric."""
        return percentile_interval(self.drawn[field][metric], self.confidence)

    def difference(self, field: str, metric: str) -> tuple[float, float, float]:
        """The difference of a metric to the first field, and its interval (low, high)."""
        first = self.fields[0]
        value, baseline = self.scores[field].metrics[metric], self.scores[first].metrics[metric]
        differences = self.drawn[field][metric] - self.drawn[first][metric]
        return (value - baseline, *percentile_interval(differences, self.confidence))

    def recalls(self, field: str) -> NDArray[np.float64]:
        """(images,) recall of each image, averaged over the IoUs; NaN without ground truth."""
        ranked = self.scores[field].ranked["all"]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(ranked.objects > 0, ranked.found() / ranked.objects, np.nan)

    def gains(self, field: str, most: int = 100) -> fo.DatasetView:
        """A view of the images with higher recall than with the first field, best first."""
        return self._by_gain(field, most, 1)

    def losses(self, field: str, most: int = 100) -> fo.DatasetView:
        """A view of the images with lower recall than with the first field, worst first."""
        return self._by_gain(field, most, -1)

    def _by_gain(self, field: str, most: int, sign: int) -> fo.DatasetView:
        gain = sign * (self.recalls(field) - self.recalls(self.fields[0]))
        better = [i for i in np.argsort(-gain, kind="stable") if gain[i] > 0][:most]
        return self.samples.select([self.images[i].sample_id for i in better], ordered=True)

    def found_only_by(self, field: str, other: str) -> fo.DatasetView:
        """A view of the ground truth's objects that one field finds and another one misses.

        An object is found if a prediction is matched with it at an IoU of at least 0.5. The view
        lasts as long as this session of FiftyOne.
        """
        truth = self.images.labels[self.gt_field]
        labels = truth.recorded[self._found(field) & ~self._found(other)]
        image = np.searchsorted(truth.first, labels, side="right") - 1
        rows = zip(self.images.object_ids(image), truth.object_ids(labels), strict=True)
        return chosen_labels(self.samples, self.gt_field, rows)

    def _found(self, field: str) -> NDArray[np.bool_]:
        """(records,) bool: which objects a field finds."""
        truth, matches = self.images.labels[self.gt_field], self.scores[field].matches
        image = np.repeat(np.arange(len(matches)), np.diff(matches.first))
        is_hit = ~matches.ignored & (matches.truth_index >= 0)
        found = np.zeros(len(truth.recorded), np.bool_)
        found[(truth.first_record[image] + matches.truth_index)[is_hit]] = True
        return found

    def table(self) -> str:
        """Metrics and their intervals as a Markdown table."""
        first = self.fields[0]
        rows = []
        for field in self.fields:
            values = self.scores[field].metrics
            rows.append([field, *(_cell(values[m], *self.interval(field, m)) for m in METRICS)])
        for field in self.fields[1:]:
            differences = (_cell(*self.difference(field, m), sign="+") for m in METRICS)
            rows.append([f"{field} - {first}", *differences])
        return markdown_table(["", *METRICS], rows)

    def __str__(self) -> str:
        text = (
            f"{len(self.images)} images, {KINDS[self.kind]} against {self.gt_field}; in brackets, "
            f"{self.confidence:.0%} intervals"
        )
        if self.left_out:
            counts = (f"{n} {what.replace('_', ' ')}" for what, n in self.left_out.items())
            text += f"; labels left out: {', '.join(counts)}"
        return f"{text}\n\n{self.table()}"

    def report(self, folder: str | os.PathLike[str], pictures: int = 4) -> Path:
        """Write a report with tables, plots, and images that show the fields side by side.

        Args:
            folder: the folder for ``report.md``, ``metrics.csv``, ``samples.csv`` and the PNG
                files.
            pictures: the number of images to show with the largest gains, and as many with the
                largest losses.

        Returns:
            The path of ``report.md``.
        """
        from promerge_fo.dataset.evaluation import comparison_plots as plots

        target = Path(folder).expanduser()
        target.mkdir(parents=True, exist_ok=True)
        self._write_metrics(target / "metrics.csv")
        self._write_samples(target / "samples.csv")
        plots.plot_metrics(self.scores, self.interval, self.confidence, target / "metrics.png")
        plots.plot_curves(self.scores, target / "curves.png")
        parts = [
            "# Comparison of " + ", ".join(self.fields),
            str(self),
            "![Metrics](metrics.png)",
            "![Precision and recall at IoU 0.5 and 0.75](curves.png)",
        ]
        for field in self.fields[1:]:
            first = self.fields[0]
            found, before = self._found(field), self._found(first)
            recalls = {name: self.recalls(name) for name in (first, field)}
            plots.plot_gains(recalls, target / f"gains_{field}.png")
            parts += [
                f"## {field} against {first}",
                f"{np.count_nonzero(found & ~before)} objects are found by {field} alone, "
                f"{np.count_nonzero(before & ~found)} by {first} alone (IoU 0.5).",
                f"![Gain in recall of each image](gains_{field}.png)",
            ]
            for title, view in (("gains", self.gains(field)), ("losses", self.losses(field))):
                name = f"{title}_{field}_pictures.png"
                if self._plot_images(view.limit(pictures), target / name):
                    parts.append(f"The greatest {title}:\n\n![The greatest {title}]({name})")
        path = target / "report.md"
        path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
        return path

    def _write_metrics(self, path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(
                ["field", "metric", "value", "low", "high", "difference", "diff_low", "diff_high"]
            )
            for field in self.fields:
                for name in METRICS:
                    value = self.scores[field].metrics[name]
                    is_first = field == self.fields[0]
                    difference = ("",) * 3 if is_first else self.difference(field, name)
                    row = [field, name, value, *self.interval(field, name), *difference]
                    writer.writerow(row)

    def _write_samples(self, path: Path) -> None:
        recalls = [self.recalls(field) for field in self.fields]
        position = {sample_id: i for i, sample_id in enumerate(self.images.sample_ids())}
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(
                ["filepath", "sample_id", "objects", *(f"recall_{field}" for field in self.fields)]
            )
            objects = self.scores[self.fields[0]].ranked["all"].objects
            for document in aggregate(self.samples, [{"$project": {"filepath": True}}]):
                sample_id = str(document["_id"])
                i = position.get(sample_id)
                if i is not None:
                    row = [document["filepath"], sample_id, int(objects[i])]
                    writer.writerow([*row, *(round(float(recall[i]), 4) for recall in recalls)])

    def _plot_images(self, view: fo.DatasetView, path: Path) -> bool:
        """Plot images with the masks of all fields side by side; False if nothing was plotted."""
        from promerge_fo.dataset.evaluation import comparison_plots as plots

        if self.kind != "segm" or len(view) == 0:
            return False
        rows = []
        for sample in view:
            try:
                pixels = load_image(sample.filepath)
            except ImageError as error:
                logger.warning("an image is missing from the report's pictures: %s", error)
                continue
            size = pixels.shape[0], pixels.shape[1]
            masks = [usable_masks(sample[f], size) for f in (self.gt_field, *self.fields)]
            rows.append((pixels, masks))
        if rows:
            plots.plot_side_by_side(rows, [self.gt_field, *self.fields], path)
        return bool(rows)


def _cell(value: float, low: float, high: float, sign: str = "") -> str:
    if value == -1 or not np.isfinite(low):
        return "-"
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"
