"""Reproduce the paper's tables and figures: its results beside those of this machine.

The folder ``definitions`` beside this file describes each table in JSON: the methods and their
settings, the benchmarks, and the paper's results.
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

from promerge_fo.config import METHODS, Config
from promerge_fo.dataset.database import root_dataset
from promerge_fo.dataset.evaluation.benchmark_sets import load_benchmark
from promerge_fo.dataset.evaluation.coco_metrics import KINDS
from promerge_fo.dataset.evaluation.evaluate import evaluate_instances
from promerge_fo.dataset.evaluation.matching import IouType
from promerge_fo.dataset.experiments.ablation import ablate
from promerge_fo.dataset.experiments.ablation_plots import plot_settings, plot_sweeps, plot_times
from promerge_fo.dataset.experiments.ablation_result import Ablation
from promerge_fo.dataset.experiments.settings import settings_of
from promerge_fo.dataset.runs.model import ProMergeModel, load_model
from promerge_fo.dataset.runs.resume import failures
from promerge_fo.dataset.runs.segment import segment_dataset
from promerge_fo.dataset.samples import require_objects
from promerge_fo.encoder import load_encoder
from promerge_fo.encoder.base import Encoder
from promerge_fo.encoder.device import describe_device
from promerge_fo.pipeline import Pipeline
from promerge_fo.progress import ShowProgress
from promerge_fo.words import markdown_table

__all__ = ["Reproduction", "list_experiments", "load_experiment", "reproduce"]

_FOLDER = resources.files("promerge_fo.dataset.experiments").joinpath("definitions")

_DETECTOR = (
    "a detector, which is trained and run by itself: promerge train (or its authors' weights), "
    "promerge predict and promerge import, then evaluate the imported field"
)


def list_experiments() -> list[str]:
    """The names of the stored experiments."""
    files = _FOLDER.iterdir()
    return sorted(file.name[:-5] for file in files if file.name.endswith(".json"))


def load_experiment(name: str) -> dict[str, Any]:
    """The definition of a stored experiment.

    Raises:
        ValueError: there is no experiment of this name.
    """
    if name not in list_experiments():
        known = ", ".join(list_experiments())
        raise ValueError(f"there is no experiment {name!r}; the experiments are: {known}")
    file = _FOLDER.joinpath(f"{name}.json")
    loaded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return loaded


@dataclass
class Reproduction:
    """The results of :func:`reproduce`.

    Attributes:
        experiment: the stored definition.
        figures: the results of each method on each benchmark, in the order of the experiment's
            metrics (numbers; the public name is kept for users).
        left_out: the methods and benchmarks that were not run, with the reasons.
        differences: how the conditions differ from the paper's.
        ablation: the results of an experiment that was run as an ablation, else None.
        failed: the number of images that failed, over all methods and benchmarks.
    """

    experiment: dict[str, Any]
    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    ablation: Ablation | None = None
    failed: int = 0

    def table(self) -> str:
        """The paper's results and ours, as a Markdown table."""
        if self.ablation is not None:
            return _side_by_side(self.experiment, self.ablation)
        metrics, benchmarks = self.experiment["metrics"], self.experiment["benchmarks"]
        heads = [f"{name} {metric}" for name in benchmarks for metric in metrics]
        rows = []
        for method, published in self.experiment["paper"].items():
            ours = self.figures.get(method, {})
            sources = {"paper": published, **({"here": ours} if ours else {})}
            for source, values in sources.items():
                cells = [
                    f"{values[name][k]:.2f}" if name in values else "-"
                    for name in benchmarks
                    for k in range(len(metrics))
                ]
                rows.append([f"{method}, {source}", *cells])
        return markdown_table(["", *heads], rows)

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
        """Plot the results of an experiment that was run as an ablation.

        Args:
            folder: the folder for the PNG files.
            stem: the start of their names.

        Returns:
            The paths of the files; an empty list if the experiment was not run as an ablation.
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
    """Repeat an experiment of the paper, on the benchmarks or on your own images.

    With benchmarks, their datasets stay in FiftyOne; so do the masks and evaluations of Tables 1
    and 2. The ablations (Tables 3 to 6, Figures 5 and 6), and Table 1 on a dataset of your own,
    store features and results in a folder, and nothing in the dataset; see
    :func:`promerge_fo.dataset.ablate`. Results that are stored already are not computed again.

    Args:
        name: the name of the experiment, from :func:`list_experiments`: ``"table1"``, ...,
            ``"fig6"``.
        data: a folder that holds a folder for each benchmark, of the same name (``coco2017``, ...);
            or a dataset or a view of images with ground truth (see
            :func:`promerge_fo.dataset.load_coco`).
        gt_field: the field with the ground truth, if ``data`` is a dataset or view.
        folder: the folder for the features and results of an ablation.
        limit: use only this number of images of each benchmark, or of the dataset: the first ones.
        methods: the names of the experiment's methods to run; by default all that need no training.
        encoder: the encoder to use instead of the paper's.
        checkpoint: a file with the encoder's weights.
        device: a torch device.
        progress: whether to show a progress bar (None: as FiftyOne's config says), or a function
            that makes one; see :data:`promerge_fo.progress.ShowProgress`.

    Returns:
        The paper's results and ours; ``str()`` of it is a Markdown page.

    Raises:
        ValueError: the experiment or a method is unknown, a method is a detector, which needs
            training, or the dataset has no ground truth.
        FileNotFoundError: the folder holds none of the benchmarks.
        ImportError: a method in ``methods`` needs a package that is not installed.
    """
    experiment = load_experiment(name)
    result = Reproduction(experiment)
    chosen = _choose_methods(experiment, methods, result)
    datasets: dict[str, Any] = {}
    if isinstance(data, (str, os.PathLike)):
        own = None
        for benchmark in experiment["benchmarks"]:
            root = Path(data).expanduser() / benchmark
            try:
                datasets[benchmark] = load_benchmark(benchmark, root, limit=limit)
            except FileNotFoundError as error:
                result.left_out[benchmark] = str(error)
    else:
        own = str(data.name or root_dataset(data).name)
        datasets[own] = data if limit is None else data.limit(limit)
    if not datasets:
        raise FileNotFoundError("; ".join(result.left_out.values()))
    if experiment["kind"] != "speed":
        for each in datasets.values():
            require_objects(each, gt_field)
    if not isinstance(encoder, Encoder):
        encoder = load_encoder(encoder or experiment["encoder"], checkpoint, device=device)
    _note_differences(result, encoder)
    if own is not None:
        result.differences.append(f"{len(datasets[own])} images of your own, not the paper's")
    elif limit is not None:
        result.differences.append(f"the first {limit} images of each benchmark alone")
    if experiment["kind"] == "ablation" or (own and experiment["kind"] == "accuracy"):
        (samples,) = datasets.values()
        wanted = settings_of({method: experiment["methods"][method] for method in chosen})
        result.left_out.update(_find_impossible(wanted, encoder, methods is not None))
        possible = {each: c for each, c in wanted.items() if each not in result.left_out}
        result.ablation = ablate(
            samples, possible, gt_field, encoder=encoder, folder=folder, progress=progress
        )
        result.failed = result.ablation.failed
        return result
    if own is not None:  # one more column for the speed on this dataset
        experiment["benchmarks"][own] = "segm"
    for method in chosen:
        settings = dict(experiment["methods"][method])
        key = settings["method"]
        model = load_model(**settings, encoder=encoder)
        result.figures[method] = {}
        for benchmark, dataset in datasets.items():
            if experiment["kind"] == "speed":
                values = [_images_per_second(dataset, model, experiment, result)]
            else:
                segment_dataset(dataset, model, key, progress=progress)
                result.failed += sum(1 for _ in failures(dataset, key, model.hash))
                results = evaluate_instances(dataset, key, eval_key=f"{name}_{key}")
                by_kind = results.coco_metrics
                kind = experiment["benchmarks"][benchmark]
                if kind not in by_kind:
                    result.differences.append(f"{benchmark}: boxes, as its files have no masks")
                    kind = "bbox"
                values = [by_kind[kind][metric] for metric in experiment["metrics"]]
            result.figures[method][benchmark] = values
    return result


def _find_impossible(
    settings: dict[str, Config], encoder: Encoder, is_requested: bool
) -> dict[str, str]:
    """The settings that cannot be run on this machine or with this encoder, and why.

    Raises:
        ValueError, ImportError: a setting cannot be run, and the user requested these settings.
    """
    reasons = {}
    for name, config in settings.items():
        try:
            Pipeline(encoder, config, crf_device="cpu")
        except (ValueError, ImportError) as error:
            if is_requested:
                raise
            reasons[name] = str(error)
    return reasons


def _side_by_side(experiment: dict[str, Any], ablation: Ablation) -> str:
    """A Markdown table: a row for each setting, and for each metric the paper's value and ours."""
    columns = [_column(metric, ablation) for metric in experiment["metrics"]]
    titles = [
        "seconds an image" if kind is None else f"{metric} ({KINDS[kind]})"
        for kind, metric in columns
    ]
    heads = [f"{title}, {whose}" for title in titles for whose in ("paper", "here")]
    rows = []
    for name, outcome in ablation.outcomes.items():
        published = experiment["paper"].get(name, {}).get("coco2017", [None] * len(columns))
        cells = []
        for (kind, metric), value in zip(columns, published, strict=True):
            seconds = f"{outcome.image_seconds:.3f}"
            cells.append("-" if value is None else f"{value:.1f}")
            cells.append(seconds if kind is None else ablation.cell(name, kind, metric))
        rows.append([name, *cells])
    return markdown_table(["", *heads], rows)


def _column(metric: str, ablation: Ablation) -> tuple[IouType | None, str]:
    """The kind (masks or boxes; None for a time) and the name of a metric in a definition.

    If the ground truth has no masks, boxes are measured instead.
    """
    if metric == "seconds":
        return None, metric
    *kind, name = metric.split()
    return ("bbox" if kind == ["bbox"] or ablation.kind == "bbox" else "segm"), name


def _choose_methods(
    experiment: dict[str, Any], methods: Sequence[str] | None, result: Reproduction
) -> list[str]:
    """The methods to run: those that the user requested, or all that need no training."""
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
        result.left_out.update(dict.fromkeys(detectors, _DETECTOR))
    return list(methods or runnable)


def _note_differences(result: Reproduction, encoder: Encoder) -> None:
    """Note how the encoder and the machine differ from the paper's."""
    wanted = result.experiment["encoder"]
    if encoder.name != wanted:
        result.differences.append(f"the encoder is {encoder.name}, not {wanted}")
    elif encoder.weights_sha256 is not None:
        result.differences.append(
            f"weights from {Path(encoder.weights_source).name} "
            f"(SHA-256 {encoder.weights_sha256[:16]}...)"
        )
    if encoder.image_size != 480:
        result.differences.append(f"images at {encoder.image_size} pixels, not 480")
    result.differences.append(f"run on {describe_device(encoder.device)}")


def _images_per_second(
    dataset: Any, model: ProMergeModel, experiment: dict[str, Any], result: Reproduction
) -> float:
    """The speed from image files to refined masks, one image at a time, after some to warm up."""
    paths = dataset.limit(experiment["images"]).values("filepath")
    warm_up = int(experiment["warm_up"])
    if len(paths) < experiment["images"]:
        warm_up = len(paths) // 2
        result.differences.append(f"{len(paths)} images, of which {warm_up} warm up")
    for path in paths[:warm_up]:
        model.pipeline([path])
    started = time.perf_counter()
    for path in paths[warm_up:]:
        result.failed += model.pipeline([path])[0].status == "failed"
    return float(len(paths) - warm_up) / (time.perf_counter() - started)
