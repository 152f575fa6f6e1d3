"""Fields of instances on the same images: which is better, by how much, how sure, and where."""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fiftyone import ViewExpression
from fiftyone import ViewField as F
from numpy.typing import NDArray

from promerge_fo.dataset.evaluation.coco_metrics import METRICS, IouType, Scores, bootstrap
from promerge_fo.dataset.evaluation.evaluate import score_field
from promerge_fo.dataset.evaluation.intervals import draw_images, interval
from promerge_fo.dataset.labels import masks_of
from promerge_fo.dataset.samples import require_detections, require_images
from promerge_fo.dataset.stored_labels import ImageLabels, read_labels
from promerge_fo.images import ImageError, load_image
from promerge_fo.progress import ShowProgress

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
    """Compare the instances of two or more fields with the ground truth, and so with each other.

    How sure a figure is, and a difference to the first field, is told by a bootstrap over images:
    all fields are scored on the same samples of the images, drawn with replacement (Efron and
    Tibshirani, 1993, percentile intervals). A difference whose interval does not hold 0 is unlikely
    to be luck in the choice of the images.

    Args:
        samples: a dataset or a view of images.
        fields: with predictions; the first is the one that the others are compared with.
        gt_field: the field with the ground truth.
        resamples: samples of the images.
        confidence: of the intervals, in (0, 1).
        seed: of the bootstrap.
        progress: whether to show a bar (None: as FiftyOne's config says), or what makes one; see
            :data:`promerge_fo.progress.ShowProgress`.

    Returns:
        The comparison: figures, views and a report.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples have no images.
        ValueError: fewer than two fields, one of them twice, a field that does not hold
            detections, or no image that can be read.

    Examples:
        >>> comparison = compare_fields(dataset, ["maskcut", "promerge"])  # doctest: +SKIP
        >>> print(comparison)  # doctest: +SKIP
        >>> session.view = comparison.gains("promerge")  # doctest: +SKIP
        >>> comparison.report("comparison/")  # doctest: +SKIP
    """
    fields = list(fields)
    if len(fields) < 2 or len(set(fields)) < len(fields):
        raise ValueError(f"fields are {fields}, but must be two or more different ones")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, but must lie between 0 and 1")
    require_images(samples)
    for field in (*fields, gt_field):
        require_detections(samples, field)
    read = read_labels(samples, (*fields, gt_field), progress)
    images = [image for image in read if image.size is not None]
    if not images:
        raise ValueError("there is no image to compare on; take another view")
    scores = {field: score_field(images, field, gt_field) for field in fields}
    kind: IouType = "segm" if all("segm" in score for score in scores.values()) else "bbox"
    leading = {field: score[kind] for field, score in scores.items()}
    draws = draw_images(len(images), resamples, seed)
    drawn = {field: bootstrap(score.sweeps, draws) for field, score in leading.items()}
    return Comparison(samples, fields, gt_field, kind, images, leading, drawn, confidence)


def recall_gain(eval_key: str, baseline: str) -> ViewExpression:
    """What one evaluation's recall of a sample at IoU 0.5 has over another's, in [-1, 1].

    For views and aggregations: the database counts, and no label is read.

    Args:
        eval_key: of :func:`promerge_fo.dataset.evaluate_instances`.
        baseline: of another one, with the same ground truth.
    """
    found, objects = F(f"{eval_key}_tp"), F(f"{eval_key}_tp") + F(f"{eval_key}_fn")
    return (objects > 0).if_else((found - F(f"{baseline}_tp")) / objects, 0)


def samples_by_gain(
    samples: Any, eval_key: str, baseline: str, most: int = 100, losses: bool = False
) -> Any:
    """A view of the samples on which one evaluation's recall beats another's, most first.

    Args:
        samples: a dataset or a view.
        eval_key: of :func:`promerge_fo.dataset.evaluate_instances`.
        baseline: of another one, with the same ground truth.
        most: samples.
        losses: those on which it falls behind instead, furthest first.
    """
    gain = recall_gain(eval_key, baseline)
    apart = samples.match(gain < 0 if losses else gain > 0)
    return apart.sort_by(gain, reverse=not losses).limit(most)


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare_fields` found.

    Attributes:
        samples: the dataset or view.
        fields: with predictions, the first of them the baseline.
        gt_field: with the ground truth.
        kind: "segm" or "bbox": what is compared; masks where every label has one.
        images: what was read.
        scores: of each field.
        drawn: the figures of each field on the bootstrap's samples, by metric.
        confidence: of the intervals.
    """

    samples: Any
    fields: list[str]
    gt_field: str
    kind: IouType
    images: list[ImageLabels]
    scores: dict[str, Scores]
    drawn: dict[str, dict[str, NDArray[np.float64]]]
    confidence: float

    def metrics(self) -> dict[str, dict[str, float]]:
        """The figures of each field, 0 to 100, or -1 where there is no ground truth."""
        return {field: dict(self.scores[field].metrics) for field in self.fields}

    def interval(self, field: str, metric: str) -> tuple[float, float]:
        """The bootstrap's interval of a figure."""
        return interval(self.drawn[field][metric], self.confidence)

    def difference(self, field: str, metric: str) -> tuple[float, float, float]:
        """What a field has over the first one, and the interval of that."""
        first = self.fields[0]
        figures = self.scores[field].metrics[metric], self.scores[first].metrics[metric]
        apart = self.drawn[field][metric] - self.drawn[first][metric]
        return (figures[0] - figures[1], *interval(apart, self.confidence))

    def recalls(self, field: str) -> NDArray[np.float64]:
        """(images,) recall of each image, averaged over the IoUs; NaN without ground truth."""
        sweep = self.scores[field].sweeps["all"]
        hits = np.bincount(sweep.image, sweep.hits.mean(axis=0), len(self.images))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(sweep.objects > 0, hits / sweep.objects, np.nan)

    def gains(self, field: str, most: int = 100) -> Any:
        """A view of the images whose recall a field raises over the first field's, most first."""
        return self._by_gain(field, most, 1)

    def losses(self, field: str, most: int = 100) -> Any:
        """A view of the images whose recall is lower than the first field's, lowest first."""
        return self._by_gain(field, most, -1)

    def _by_gain(self, field: str, most: int, sign: int) -> Any:
        gain = sign * (self.recalls(field) - self.recalls(self.fields[0]))
        better = [i for i in np.argsort(-gain, kind="stable") if gain[i] > 0][:most]
        return self.samples.select([self.images[i].sample_id for i in better], ordered=True)

    def found_only_by(self, field: str, other: str) -> Any:
        """A view of the objects of the ground truth that one field finds and another misses.

        Found is what a prediction overlaps by an IoU of at least 0.5.
        """
        found, missed = self._found(field), self._found(other)
        ids = [i for image, more in zip(found, missed, strict=True) for i in sorted(image - more)]
        return self.samples.select_labels(ids=ids, fields=self.gt_field)

    def _found(self, field: str) -> list[set[str]]:
        pairs = zip(self.images, self.scores[field].matches, strict=True)
        return [
            {image.ids[self.gt_field][j] for j in match.found[~match.ignored & (match.found >= 0)]}
            for image, match in pairs
        ]

    def table(self) -> str:
        """Figures and intervals as a Markdown table."""
        lines = [
            "| | " + " | ".join(METRICS) + " |",
            "| --- |" + " --- |" * len(METRICS),
        ]
        for field in self.fields:
            cells = [
                _cell(self.scores[field].metrics[name], *self.interval(field, name))
                for name in METRICS
            ]
            lines.append(f"| {field} | " + " | ".join(cells) + " |")
        for field in self.fields[1:]:
            cells = [_cell(*self.difference(field, name), sign="+") for name in METRICS]
            lines.append(f"| {field} - {self.fields[0]} | " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def __str__(self) -> str:
        what = "masks" if self.kind == "segm" else "boxes"
        return (
            f"{len(self.images)} images, {what} against {self.gt_field}; in brackets, "
            f"{self.confidence:.0%} intervals\n\n{self.table()}"
        )

    def report(self, folder: str | os.PathLike[str], pictures: int = 4) -> Path:
        """Write a report: tables, plots, and pictures of the fields side by side.

        Args:
            folder: for ``report.md``, ``metrics.csv``, ``samples.csv`` and the PNG files.
            pictures: images shown of the greatest gains, and of the greatest losses.

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
            only, others = self.found_only_by(field, first), self.found_only_by(first, field)
            recalls = {name: self.recalls(name) for name in (first, field)}
            plots.plot_gains(recalls, target / f"gains_{field}.png")
            parts += [
                f"## {field} against {first}",
                f"{only.count(f'{self.gt_field}.detections')} objects are found by {field} alone, "
                f"{others.count(f'{self.gt_field}.detections')} by {first} alone (IoU 0.5).",
                f"![Gain in recall of each image](gains_{field}.png)",
            ]
            for title, view in (("gains", self.gains(field)), ("losses", self.losses(field))):
                name = f"{title}_{field}_pictures.png"
                if self._draw(view.limit(pictures), target / name):
                    parts.append(f"The greatest {title}:\n\n![The greatest {title}]({name})")
        path = target / "report.md"
        path.write_text("\n\n".join(parts) + "\n")
        return path

    def _write_metrics(self, path: Path) -> None:
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(
                ["field", "metric", "value", "low", "high", "difference", "diff_low", "diff_high"]
            )
            for field in self.fields:
                for name in METRICS:
                    value = self.scores[field].metrics[name]
                    apart = self.difference(field, name) if field != self.fields[0] else ("",) * 3
                    writer.writerow([field, name, value, *self.interval(field, name), *apart])

    def _write_samples(self, path: Path) -> None:
        paths = dict(zip(*self.samples.values(["id", "filepath"]), strict=True))
        recalls = [self.recalls(field) for field in self.fields]
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(
                ["filepath", "sample_id", "objects", *(f"recall_{field}" for field in self.fields)]
            )
            objects = self.scores[self.fields[0]].sweeps["all"].objects
            for i, image in enumerate(self.images):
                row = [paths[image.sample_id], image.sample_id, int(objects[i])]
                writer.writerow([*row, *(round(float(recall[i]), 4) for recall in recalls)])

    def _draw(self, view: Any, path: Path) -> bool:
        """Each image with the masks of all fields beside it; False where there is none."""
        from promerge_fo.dataset.evaluation import comparison_plots as plots

        if self.kind != "segm" or len(view) == 0:
            return False
        rows = []
        for sample in view:
            try:
                pixels = load_image(sample.filepath)
            except ImageError as error:
                logger.warning("left out of the pictures: %s", error)
                continue
            size = pixels.shape[0], pixels.shape[1]
            masks = [masks_of(sample[f], size) for f in (self.gt_field, *self.fields)]
            rows.append((pixels, masks))
        if rows:
            plots.plot_side_by_side(rows, [self.gt_field, *self.fields], path)
        return bool(rows)


def _cell(value: float, low: float, high: float, sign: str = "") -> str:
    if value == -1 or not np.isfinite(low):
        return "-"
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"
