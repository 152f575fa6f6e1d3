"""The benchmarks: python -m benchmarks says what there is, python -m benchmarks NAME runs one.

Results are written as JSON, with the machine, the versions and the commit that they were taken on.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_HERE = Path(__file__).parent


class Benchmark(NamedTuple):
    """What a benchmark measures, how long it takes on two CPU cores, and how it is run.

    Attributes:
        measures: for the list.
        minutes: for the list.
        in_all: whether it is part of ``all``.
        is_script: whether it has a command line of its own, with ``--output``.
    """

    measures: str
    minutes: str
    in_all: bool = True
    is_script: bool = False


BENCHMARKS = {
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
    "writing": Benchmark("labels into FiftyOne's database, up to 10,000 images", "4"),
    "exporting": Benchmark("pseudo-labels out, predictions in, up to 100,000 images", "8"),
    "evaluation": Benchmark("evaluate_instances on 5,000 images, database and all", "3"),
    "review": Benchmark("what a reviewer of a million labels waits for", "3"),
    "panels": Benchmark("forms and panels over a million labels: until they are there", "4"),
    "precision": Benchmark("what bf16 does to features, masks and time", "10", is_script=True),
    "presets": Benchmark('what the preset "fast" saves', "2", is_script=True),
    "gpu": Benchmark("all that a GPU can do, in one run", "8, on a GPU", in_all=False),
    "coco_accuracy": Benchmark(
        "AP and AR on images with COCO annotations", "by the images", in_all=False, is_script=True
    ),
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run benchmarks; the exit status is 0, or 2 for what cannot be done here."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a benchmark, or all")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="cpu; for gpu: cuda")
    parser.add_argument("--quick", action="store_true", help="see that it runs, in seconds")
    parser.add_argument("--full", action="store_true", help="also what takes long")
    parser.add_argument("--images", type=Path, help="crf: a folder of images to compare masks on")
    parser.add_argument("--output-dir", type=Path, default=_HERE / "results")
    parser.add_argument("--list", action="store_true", help="say what there is")
    arguments = parser.parse_args(argv)
    unknown = [name for name in arguments.names if name not in (*BENCHMARKS, "all")]
    if unknown:
        print(f"there is no benchmark {', '.join(unknown)}\n\n{table()}", file=sys.stderr)
        return 2
    if arguments.list or not arguments.names:
        print(table())
        return 0
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    for name in arguments.names:
        if name == "all":
            status = _run_all(arguments)
        elif BENCHMARKS[name].is_script:
            status = _run_script(name, arguments)
        else:
            status = _run(name, arguments)
        if status != 0:
            return status
    return 0


def table() -> str:
    """What there is, for people to read."""
    rows = [("name", "minutes on 2 cores", "measures")]
    rows += [(name, b.minutes, b.measures) for name, b in BENCHMARKS.items()]
    outside = ", ".join(name for name, b in BENCHMARKS.items() if not b.in_all)
    lines = [f"{name:14} {minutes:19} {measures}" for name, minutes, measures in rows]
    return "\n".join([*lines, "", f"all: one after the other, without {outside}"])


def _run(name: str, arguments: argparse.Namespace) -> int:
    import torch

    from benchmarks.record import write
    from benchmarks.settings import Settings

    device = arguments.device or ("cuda" if name == "gpu" else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        print(
            f"{name}: torch {torch.__version__} finds no CUDA device here. On a machine with one: "
            f"python -m benchmarks {name} --device cuda; to see it run: --device cpu --quick",
            file=sys.stderr,
        )
        return 2
    if name == "gpu" and device == "cpu" and not arguments.quick:
        print("gpu: on a CPU only with --quick, to see it run", file=sys.stderr)
        return 2
    settings = Settings(device, arguments.quick, arguments.full, arguments.images)
    print(f"{name}: {BENCHMARKS[name].measures}", flush=True)
    results = importlib.import_module(f"benchmarks.{name}").run(settings)
    # Figures of a GPU lie beside those of a CPU, not in their place.
    suffix = "-cuda" if device == "cuda" and name != "gpu" else ""
    path = arguments.output_dir / f"{name}{suffix}.json"
    write(
        path,
        {
            "benchmark": name,
            "device": device,
            "quick": arguments.quick,
            "full": arguments.full,
            "results": results,
        },
    )
    print(f"{name}: {path.name} is written", flush=True)
    failed = [k for k, v in results.items() if isinstance(v, dict) and "error" in v]
    if failed:
        print(f"{name}: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _run_script(name: str, arguments: argparse.Namespace) -> int:
    if name == "coco_accuracy":
        print(
            "coco_accuracy needs images: python -m benchmarks.coco_accuracy ANNOTATIONS.json "
            "IMAGES --output OUTPUT.json",
            file=sys.stderr,
        )
        return 2
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    command += ["--output", str(arguments.output_dir.resolve() / f"{name}.json")]
    if arguments.device:
        command += ["--device", arguments.device]
    if arguments.quick:
        command += ["--repetitions", "1"]
    return subprocess.run(command, cwd=_HERE.parent).returncode


def _run_all(arguments: argparse.Namespace) -> int:
    """Each in a process of its own, in which no other has left threads, memory or a database."""
    options = ["--output-dir", str(arguments.output_dir.resolve())]
    options += ["--device", arguments.device] if arguments.device else []
    options += ["--images", str(arguments.images.resolve())] if arguments.images else []
    options += [f"--{name}" for name in ("quick", "full") if getattr(arguments, name)]
    failed = []
    for name in (name for name, b in BENCHMARKS.items() if b.in_all):
        command = [sys.executable, "-m", "benchmarks", name, *options]
        if subprocess.run(command, cwd=_HERE.parent).returncode != 0:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
