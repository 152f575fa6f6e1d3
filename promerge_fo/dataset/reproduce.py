"""The paper's tables, run again: its figures beside those of this machine.

What a table consists of is stored as data, in ``promerge_fo/experiments``: which methods with which
settings, on which benchmarks, and what the paper found.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from promerge_fo.dataset.evaluation import evaluate_instances
from promerge_fo.dataset.model import METHODS, ProMergeModel, load_model
from promerge_fo.dataset.protocols import load_benchmark
from promerge_fo.dataset.segment import segment_dataset
from promerge_fo.encoder import Encoder, load_encoder

__all__ = ["Reproduction", "list_experiments", "load_experiment", "reproduce"]

_FOLDER = "experiments"


def list_experiments() -> list[str]:
    """Names of the stored experiments."""
    files = resources.files("promerge_fo").joinpath(_FOLDER).iterdir()
    return sorted(file.name[:-5] for file in files if file.name.endswith(".json"))


def load_experiment(name: str) -> dict[str, Any]:
    """A stored experiment.

    Raises:
        ValueError: none of this name.
    """
    if name not in list_experiments():
        known = ", ".join(list_experiments())
        raise ValueError(f"there is no experiment {name!r}; the experiments are: {known}")
    file = resources.files("promerge_fo").joinpath(_FOLDER, f"{name}.json")
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
    """

    experiment: dict[str, Any]
    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)

    def table(self) -> str:
        """The paper's figures and ours, as a Markdown table."""
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
        parts.append(f"The paper's conditions: {self.experiment['conditions']}.")
        if self.differences:
            parts.append(
                "Different here:\n\n" + "\n".join(f"- {text}" for text in self.differences)
            )
        if self.left_out:
            reasons = (f"- {name}: {reason}" for name, reason in self.left_out.items())
            parts.append("Left out:\n\n" + "\n".join(reasons))
        return "\n\n".join(parts) + "\n"


def reproduce(
    name: str,
    root: str | os.PathLike[str],
    *,
    limit: int | None = None,
    methods: Sequence[str] | None = None,
    encoder: str | Encoder | None = None,
    checkpoint: str | Path | None = None,
    device: str | None = None,
    progress: Callable[[int], Any] | None = None,
) -> Reproduction:
    """Run what the paper ran.

    Datasets, masks and evaluations stay in FiftyOne: what is there already is not computed again.

    Args:
        name: ``"table1"`` or ``"table2"``.
        root: a folder with a folder for each benchmark, of its name (``coco2017``, ...).
        limit: only the first so many images of each benchmark.
        methods: of the experiment's, by its names; those that are there by default.
        encoder: in place of the paper's.
        checkpoint: a file with the encoder's weights.
        device: a torch device.
        progress: given a number of images, makes a bar with ``update(n)`` and ``close()``.

    Returns:
        The paper's figures beside ours; ``str()`` of it is a Markdown page.

    Raises:
        ValueError: another experiment or method, or a method that is not there yet.
        FileNotFoundError: not one of the benchmarks is in the root.
    """
    experiment = load_experiment(name)
    outcome = Reproduction(experiment)
    chosen = _choose(experiment, methods, outcome)
    folder = Path(root).expanduser()
    datasets = {}
    for benchmark in experiment["benchmarks"]:
        try:
            datasets[benchmark] = load_benchmark(benchmark, folder / benchmark, limit=limit)
        except FileNotFoundError as error:
            outcome.left_out[benchmark] = str(error)
    if not datasets:
        raise FileNotFoundError("; ".join(outcome.left_out.values()))
    if not isinstance(encoder, Encoder):
        encoder = load_encoder(encoder or experiment["encoder"], checkpoint, device=device)
    _note_differences(outcome, encoder, limit)
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


def _choose(
    experiment: dict[str, Any], methods: Sequence[str] | None, outcome: Reproduction
) -> list[str]:
    """The methods that are run; of those asked for, all must be there."""
    stored = experiment["methods"]
    there = [name for name, settings in stored.items() if settings["method"] in METHODS]
    for name in methods or ():
        if name not in stored:
            raise ValueError(
                f"there is no method {name!r} in {experiment['title']!r}; its methods are: "
                + ", ".join(stored)
            )
        if name not in there:
            raise ValueError(f"the method {name} is not there yet; those that are: {there}")
    if methods is None:
        outcome.left_out.update(
            {name: "the method is not there yet" for name in stored if name not in there}
        )
    return list(methods or there)


def _note_differences(outcome: Reproduction, encoder: Encoder, limit: int | None) -> None:
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
    if limit is not None:
        outcome.differences.append(f"the first {limit} images of each benchmark alone")
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
