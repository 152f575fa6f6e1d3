"""The paper's tables and figures, run again: what it found beside what this machine finds.

``definitions``, beside this file, holds each table as data: which methods with which settings, on
which benchmarks, and what the paper found.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from promerge_fo.config import METHODS, Config
from promerge_fo.dataset.database import root_dataset
from promerge_fo.dataset.evaluation.benchmark_sets import load_benchmark
from promerge_fo.dataset.evaluation.coco_metrics import IouType
from promerge_fo.dataset.evaluation.evaluate import evaluate_instances
from promerge_fo.dataset.experiments.ablation import ablate
from promerge_fo.dataset.experiments.ablation_plots import plot_settings, plot_sweeps, plot_times
from promerge_fo.dataset.experiments.ablation_result import KINDS, Ablation
from promerge_fo.dataset.experiments.settings import settings_of
from promerge_fo.dataset.runs.model import ProMergeModel, load_model
from promerge_fo.dataset.runs.segment import segment_dataset
from promerge_fo.encoder import load_encoder
from promerge_fo.encoder.base import Encoder
from promerge_fo.pipeline import Pipeline
from promerge_fo.progress import ShowProgress

__all__ = ["Reproduction", "list_experiments", "load_experiment", "reproduce"]

_FOLDER = resources.files("promerge_fo.dataset.experiments").joinpath("definitions")

_DETECTOR = (
    "a detector, which is trained and run by itself: promerge train (or its authors' weights), "
    "promerge predict and promerge import, then evaluate the imported field"
)


def list_experiments() -> list[str]:
    """Names of the stored experiments."""
    files = _FOLDER.iterdir()
    return sorted(file.name[:-5] for file in files if file.name.endswith(".json"))


def load_experiment(name: str) -> dict[str, Any]:
    """A stored experiment.

    Raises:
        ValueError: none of this name.
    """
    if name not in list_experiments():
        known = ", ".join(list_experiments())
        raise ValueError(f"there is no experiment {name!r}; the experiments are: {known}")
    file = _FOLDER.joinpath(f"{name}.json")
    loaded: dict[str, Any] = json.loads(file.read_text())
    return loaded


@dataclass
class Reproduction:
    """What came out.

    Attributes:
        experiment: the stored definition.
        figures: of each method on each benchmark, in the order of the experiment's metrics.
        left_out: methods and benchmarks that were not run, and why.
        differences: what is unlike the paper's conditions.
        ablation: of what was run as one, with intervals; None where benchmarks were run.
    """

    experiment: dict[str, Any]
    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    ablation: Ablation | None = None

    def table(self) -> str:
        """The paper's figures and ours, as a Markdown table."""
        if self.ablation is not None:
            return _side_by_side(self.experiment, self.ablation)
        metrics, benchmarks = self.experiment["metrics"], self.experiment["benchmarks"]
        heads = [f"{name} {metric}" for name in benchmarks for metric in metrics]
        lines = ["| | " + " | ".join(heads) + " |", "| --- |" + " --- |" * len(heads)]
        for method, published in self.experiment["paper"].items():
            ours = self.figures.get(method, {})
            rows = {f"{method}, paper": published, **({f"{method}, here": ours} if ours else {})}
            for title, figures in rows.items():
                cells = [
                    f"{figures[name][k]:.2f}" if name in figures else "-"
                    for name in benchmarks
                    for k in range(len(metrics))
                ]
                lines.append(f"| {title} | " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def __str__(self) -> str:
        parts = [f"# {self.experiment['title']}", self.table()]
        if self.ablation is not None:
            parts.append(
                f"In brackets, {self.ablation.confidence:.0%} intervals over "
                f"{self.ablation.images} images."
            )
        parts.append(f"The paper's conditions: {self.experiment['conditions']}.")
        parts += self.experiment.get("notes", [])
        if self.differences:
            parts.append(
                "Different here:\n\n" + "\n".join(f"- {text}" for text in self.differences)
            )
        if self.left_out:
            reasons = (f"- {name}: {reason}" for name, reason in self.left_out.items())
            parts.append("Left out:\n\n" + "\n".join(reasons))
        return "\n\n".join(parts) + "\n"

    def plots(self, folder: str | os.PathLike[str], stem: str) -> list[Path]:
        """Draw what was run as an ablation.

        Args:
            folder: for the PNG files.
            stem: that their names start with.

        Returns:
            Their paths; none where benchmarks were run.
        """
        if self.ablation is None:
            return []
        target = Path(folder).expanduser()
        target.mkdir(parents=True, exist_ok=True)
        paths = [target / f"{stem}_{kind}.png" for kind in ("settings", "times", "sweeps")]
        plot_settings(self.ablation, paths[0])
        plot_times(self.ablation, paths[1])
        return paths if plot_sweeps(self.ablation, paths[2]) else paths[:2]


def reproduce(
    name: str,
    data: str | os.PathLike[str] | Any,
    *,
    gt_field: str = "ground_truth",
    folder: str | os.PathLike[str] = "promerge-ablation",
    limit: int | None = None,
    methods: Sequence[str] | None = None,
    encoder: str | Encoder | None = None,
    checkpoint: str | Path | None = None,
    device: str | None = None,
    progress: ShowProgress = None,
) -> Reproduction:
    """Run what the paper ran, on the benchmarks or on images of your own.

    On benchmarks, the datasets, and for Tables 1 and 2 masks and evaluations, stay in FiftyOne.
    The ablations (Tables 3 to 6, Figures 5 and 6), and Table 1 on a dataset, keep features and
    results in a folder, and nothing in the dataset; see :func:`promerge_fo.dataset.ablate`. What
    is there already is not computed again.

    Args:
        name: one of :func:`list_experiments`: ``"table1"``, ..., ``"fig6"``.
        data: a folder with a folder for each benchmark, of its name (``coco2017``, ...); or a
            dataset or a view of images with ground truth (see
            :func:`promerge_fo.dataset.load_coco`).
        gt_field: the field with the ground truth, in such a dataset.
        folder: where an ablation keeps features and results.
        limit: only the first so many images of each benchmark, or of the dataset.
        methods: some of the experiment's, by name; by default all that need no training.
        encoder: in place of the paper's.
        checkpoint: a file with the encoder's weights.
        device: a torch device.
        progress: whether to show a bar (None: as FiftyOne's config says), or what makes one; see
            :data:`promerge_fo.progress.ShowProgress`.

    Returns:
        The paper's figures beside ours; ``str()`` of it is a Markdown page.

    Raises:
        ValueError: an unknown experiment or method, or a detector, which needs training; a
            dataset without ground truth.
        FileNotFoundError: the root holds none of the benchmarks.
        ImportError: a method that was asked for wants a package that is not installed.
    """
    experiment = load_experiment(name)
    outcome = Reproduction(experiment)
    chosen = _choose(experiment, methods, outcome)
    datasets: dict[str, Any] = {}
    if isinstance(data, (str, os.PathLike)):
        own = None
        for benchmark in experiment["benchmarks"]:
            place = Path(data).expanduser() / benchmark
            try:
                datasets[benchmark] = load_benchmark(benchmark, place, limit=limit)
            except FileNotFoundError as error:
                outcome.left_out[benchmark] = str(error)
    else:
        own = str(data.name or root_dataset(data).name)
        datasets[own] = data if limit is None else data.limit(limit)
    if not datasets:
        raise FileNotFoundError("; ".join(outcome.left_out.values()))
    if not isinstance(encoder, Encoder):
        encoder = load_encoder(encoder or experiment["encoder"], checkpoint, device=device)
    _note_differences(outcome, encoder)
    if own is not None:
        outcome.differences.append(f"{len(datasets[own])} images of your own, not the paper's")
    elif limit is not None:
        outcome.differences.append(f"the first {limit} images of each benchmark alone")
    if experiment["kind"] == "ablation" or (own and experiment["kind"] == "accuracy"):
        (samples,) = datasets.values()
        wanted = settings_of({method: experiment["methods"][method] for method in chosen})
        outcome.left_out.update(_impossible(wanted, encoder, methods is not None))
        possible = {each: c for each, c in wanted.items() if each not in outcome.left_out}
        outcome.ablation = ablate(
            samples, possible, gt_field, encoder=encoder, folder=folder, progress=progress
        )
        return outcome
    if own is not None:  # its speed, beside the paper's columns
        experiment["benchmarks"][own] = "segm"
    for method in chosen:
        settings = dict(experiment["methods"][method])
        key = settings["method"]
        model = load_model(**settings, encoder=encoder)
        outcome.figures[method] = {}
        for benchmark, dataset in datasets.items():
            if experiment["kind"] == "speed":
                figures = [_images_per_second(dataset, model, experiment, outcome)]
            else:
                segment_dataset(dataset, model, key, progress=progress)
                results = evaluate_instances(dataset, key, eval_key=f"{name}_{key}")
                measured = results.metrics()
                kind = experiment["benchmarks"][benchmark]
                if kind not in measured:
                    outcome.differences.append(f"{benchmark}: boxes, as its files have no masks")
                    kind = "bbox"
                figures = [measured[kind][metric] for metric in experiment["metrics"]]
            outcome.figures[method][benchmark] = figures
    return outcome


def _impossible(settings: dict[str, Config], encoder: Encoder, asked_for: bool) -> dict[str, str]:
    """The settings that cannot be run here, and why.

    Raises:
        ValueError, ImportError: for settings that were asked for.
    """
    reasons = {}
    for name, config in settings.items():
        try:
            Pipeline(encoder, config, crf_device="cpu")
        except (ValueError, ImportError) as error:
            if asked_for:
                raise
            reasons[name] = str(error)
    return reasons


def _side_by_side(experiment: dict[str, Any], ablation: Ablation) -> str:
    """A row a setting, a pair of columns a metric: the paper's and ours."""
    columns = [_column(metric, ablation) for metric in experiment["metrics"]]
    titles = [
        "seconds an image" if kind is None else f"{metric} ({KINDS[kind]})"
        for kind, metric in columns
    ]
    heads = [f"{title}, {whose}" for title in titles for whose in ("paper", "here")]
    lines = ["| | " + " | ".join(heads) + " |", "| --- |" + " --- |" * len(heads)]
    for name, outcome in ablation.outcomes.items():
        published = experiment["paper"].get(name, {}).get("coco2017", [None] * len(columns))
        cells = []
        for (kind, metric), value in zip(columns, published, strict=True):
            seconds = f"{outcome.image_seconds:.3f}"
            cells.append("-" if value is None else f"{value:.1f}")
            cells.append(seconds if kind is None else ablation.cell(name, kind, metric))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _column(metric: str, ablation: Ablation) -> tuple[IouType | None, str]:
    """What a metric of an experiment is of, and its name; None is a time.

    Boxes take the place of masks that the ground truth lacks.
    """
    if metric == "seconds":
        return None, metric
    *kind, name = metric.split()
    return ("bbox" if kind == ["bbox"] or ablation.kind == "bbox" else "segm"), name


def _choose(
    experiment: dict[str, Any], methods: Sequence[str] | None, outcome: Reproduction
) -> list[str]:
    """The methods to run: those that were asked for, or all that need no training."""
    stored = experiment["methods"]
    runnable = [name for name, settings in stored.items() if settings["method"] in METHODS]
    for name in methods or ():
        if name not in stored:
            raise ValueError(
                f"there is no method {name!r} in {experiment['title']!r}; its methods are: "
                + ", ".join(stored)
            )
        if name not in runnable:
            raise ValueError(f"{name} is {_DETECTOR}. Methods that run here: {', '.join(runnable)}")
    if methods is None:
        detectors = [name for name in stored if name not in runnable]
        outcome.left_out.update(dict.fromkeys(detectors, _DETECTOR))
    return list(methods or runnable)


def _note_differences(outcome: Reproduction, encoder: Encoder) -> None:
    wanted = outcome.experiment["encoder"]
    if encoder.name != wanted:
        outcome.differences.append(f"the encoder is {encoder.name}, not {wanted}")
    elif encoder.weights_sha256 is not None:
        outcome.differences.append(
            f"weights from {Path(encoder.weights_source).name} "
            f"(SHA-256 {encoder.weights_sha256[:16]}...)"
        )
    if encoder.image_size != 480:
        outcome.differences.append(f"images at {encoder.image_size} pixels, not 480")
    if encoder.device.type == "cuda":
        device = torch.cuda.get_device_name(encoder.device)
    else:
        device = f"a CPU, {torch.get_num_threads()} threads"
    outcome.differences.append(f"run on {device}")


def _images_per_second(
    dataset: Any, model: ProMergeModel, experiment: dict[str, Any], outcome: Reproduction
) -> float:
    """One image after the other, from its file to refined masks; the first half warm up."""
    paths = dataset.limit(experiment["images"]).values("filepath")
    warm_up = int(experiment["warm_up"])
    if len(paths) < experiment["images"]:
        warm_up = len(paths) // 2
        outcome.differences.append(f"{len(paths)} images, of which {warm_up} warm up")
    for path in paths[:warm_up]:
        model.pipeline([path])
    started = time.perf_counter()
    for path in paths[warm_up:]:
        model.pipeline([path])
    return float(len(paths) - warm_up) / (time.perf_counter() - started)
