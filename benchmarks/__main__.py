"""The benchmarks: python -m benchmarks says what there is, python -m benchmarks NAME runs one.

Results are written as JSON, with the machine, the versions and the commit that they were taken on.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.memory import environment
from benchmarks.settings import Settings, UsageError


class Benchmark(NamedTuple):
    """What a benchmark measures, how long it takes on two CPU cores, and how it is run.

    Attributes:
        measures: for the list.
        minutes: for the list.
        in_all: whether it is part of ``all``.
    """

    measures: str
    minutes: str
    in_all: bool = True


PIPELINE = {
    "segmentation": Benchmark("features to merged masks, against the product that bounds it", "1"),
    "normalized_cut": Benchmark(
        "MaskCut's cuts against scipy's dense eigh, one thread", "6; --full 10"
    ),
    "crf": Benchmark("refinement against pydensecrf: time, agreement, large images", "6"),
    "encoder": Benchmark("the encoder alone: images/s, and its share of the arithmetic", "3"),
    "end_to_end": Benchmark("Pipeline.run: overlap of the stages, images/s, memory", "3"),
    "prompts": Benchmark("segmentation and refinement against the number of prompts", "1"),
    "table2": Benchmark("seconds an image by the protocol of the paper's Table 2", "5"),
    "count": Benchmark("images/s and memory against the number of images", "3; --full 20"),
    "precision": Benchmark("what bf16 does to features, masks and time", "10"),
    "presets": Benchmark('what the preset "fast" saves', "2"),
    "gpu": Benchmark("all that a GPU can do, in one run", "8, on a GPU", in_all=False),
}
DATASET = {
    "writing": Benchmark("labels into FiftyOne's database, up to 10,000 images", "4"),
    "exporting": Benchmark("pseudo-labels out, predictions in, up to 100,000 images", "8"),
    "evaluation": Benchmark("evaluate_instances on 5,000 images, database and all", "3"),
    "review": Benchmark("what a reviewer of a million labels waits for", "3"),
    "panels": Benchmark("forms and panels over a million labels: until they are there", "4"),
    "million": Benchmark(
        "evaluation, comparison and export of a million samples", "50", in_all=False
    ),
    "embeddings": Benchmark("vectors of masks: their cost, and 200,000 of them", "3"),
    "scale": Benchmark("the whole way on Ray, up to 100,000 images", "10", in_all=False),
    "soak": Benchmark(
        "fifty kills of workers, driver and database in a run on Ray", "15", in_all=False
    ),
    "coco_accuracy": Benchmark(
        "AP and AR on images with COCO annotations", "by the images", in_all=False
    ),
    "groups": Benchmark("groups of masks against COCO's classes", "20 for 48 images", in_all=False),
    "encoders": Benchmark(
        "calibration and proposals against a search with labels", "60 for 48 images", in_all=False
    ),
}
#: By their names: those of the pipeline alone, and those that need FiftyOne.
BENCHMARKS = {**PIPELINE, **DATASET}


def main(argv: Sequence[str] | None = None) -> int:
    """Run benchmarks; the exit status is 0, or 2 for what cannot be done here."""
    argv = sys.argv[1:] if argv is None else argv
    given = vars(_parser().parse_args(argv))
    names, folder = given.pop("names"), given.pop("output_dir")
    unknown = [name for name in names if name not in (*BENCHMARKS, "all")]
    if unknown:
        print(f"there is no benchmark {', '.join(unknown)}\n\n{table()}", file=sys.stderr)
        return 2
    if given.pop("list") or not names:
        print(table())
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        status = _run_all(names, argv) if name == "all" else _run(name, given, folder)
        if status != 0:
            return status
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, argument_default=argparse.SUPPRESS
    )
    add = parser.add_argument
    add("names", nargs="*", default=[], metavar="NAME", help="a benchmark, or all")
    add("--device", choices=("cpu", "cuda"), help="cpu; for gpu: cuda")
    add("--quick", action="store_true", help="see that it runs, in seconds")
    add("--full", action="store_true", help="also what takes long")
    add("--images", type=Path, help="crf, coco_accuracy, encoders: a folder of images")
    add(
        "--annotations",
        type=Path,
        help="coco_accuracy, encoders: a file in COCO's format for the images",
    )
    add("--encoder", help="coco_accuracy, encoders: the encoder's name")
    add("--presets", nargs="+", help="coco_accuracy: presets of ProMerge")
    add("--models", nargs="+", help="precision: names of vision transformers")
    add("--checkpoint", type=Path, help="coco_accuracy, encoders, precision: its weights")
    add("--samples", type=int, nargs="+", help="million: how many, one size after the other")
    add("--photographs", type=int, help="precision: how many, up to 4")
    add("--seeds", type=int, help="precision: draws of noise for each image")
    add("--repetitions", type=int, help="precision, presets: rounds that count")
    results = Path(__file__).parent / "results"
    add("--output-dir", type=Path, default=results, help="for the results")
    add("--list", action="store_true", default=False, help="say what there is")
    return parser


def table() -> str:
    """What there is, for people to read."""
    rows = [("name", "minutes on 2 cores", "measures")]
    rows += [(name, b.minutes, b.measures) for name, b in BENCHMARKS.items()]
    outside = ", ".join(name for name, b in BENCHMARKS.items() if not b.in_all)
    lines = [f"{name:14} {minutes:19} {measures}" for name, minutes, measures in rows]
    return "\n".join([*lines, "", f"all: one after the other, without {outside}"])


def _run(name: str, given: dict[str, Any], folder: Path) -> int:
    from benchmarks.record import write

    def save(results: dict[str, Any]) -> None:
        how = {"device": settings.device, "quick": settings.quick, "full": settings.full}
        write(path, {"benchmark": name, **how, "results": results})

    settings = Settings(**{"device": "cuda" if name == "gpu" else "cpu", **given}, save=save)
    # Figures of a GPU lie beside those of a CPU, not in their place.
    path = folder / f"{name}{'-cuda' if settings.on_gpu and name != 'gpu' else ''}.json"
    if path.is_file():
        settings = replace(settings, earlier=json.loads(path.read_text()).get("results", {}))
    print(f"{name}: {BENCHMARKS[name].measures}", flush=True)
    try:
        results = _measure(name, settings)
    except UsageError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    save(results)
    print(f"{name}: {path.name} is written", flush=True)
    failed = [k for k, v in results.items() if isinstance(v, dict) and "error" in v]
    if failed:
        print(f"{name}: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _measure(name: str, settings: Settings) -> dict[str, Any]:
    import torch

    if settings.on_gpu and not torch.cuda.is_available():
        raise UsageError(
            f"torch {torch.__version__} finds no CUDA device here. On a machine with one: "
            f"python -m benchmarks {name} --device cuda; to see it run: --device cpu --quick"
        )
    if name in PIPELINE:
        return dict(importlib.import_module(f"benchmarks.pipeline.{name}").run(settings))
    from benchmarks.database import why_not

    missing = why_not()
    run = importlib.import_module(f"benchmarks.dataset.{name}").run
    return {"fiftyone_missing": missing, **({} if missing else run(settings))}


def _run_all(names: Sequence[str], argv: Sequence[str]) -> int:
    """Each in a process of its own, in which no other has left threads, memory or a database."""
    options = list(argv)
    for name in names:
        options.remove(name)
    failed = []
    for name in (name for name, b in BENCHMARKS.items() if b.in_all):
        command = [sys.executable, "-m", "benchmarks", name, *options]
        if subprocess.run(command, env=environment()).returncode != 0:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
