"""What a benchmark's figures were taken on: written beside them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
PACKAGES = (
    "torch", "timm", "numpy", "numba", "scipy", "pillow", "scikit-image", "pydensecrf2", "fiftyone",
    "ray", "pyarrow",
)  # fmt: skip


def conditions() -> dict[str, Any]:
    """Hardware, versions, command and commit; null where there is none."""
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "command": _command(),
        "cpu": _or_none(_cpu) or platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": _or_none(_memory_gb),
        **_torch(),
        "python": platform.python_version(),
        **{name: _or_none(partial(version, name)) for name in PACKAGES},
    }


def write(path: str | Path, results: dict[str, Any]) -> None:
    """Results with their conditions, as JSON."""
    text = json.dumps({"conditions": conditions(), **results}, indent=2)
    Path(path).write_text(text + "\n")


def _command() -> str:
    """The command line, with files by their names: it is nobody's business where they lie."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    program = Path(sys.argv[0]).name
    if spec is not None:
        program = f"python -m {spec.name.removesuffix('.__main__')}"
    return " ".join([program, *(Path(argument).name for argument in sys.argv[1:])])


def _torch() -> dict[str, Any]:
    import torch

    gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    return {
        "torch_threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "gpu": gpu and gpu.name,
        "gpu_memory_gb": gpu and round(gpu.total_memory / 2**30, 1),
        "driver": _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
    }


def _commit() -> str | None:
    commit = _output("git", "rev-parse", "HEAD")
    if commit is None:
        return None
    measured = ":/promerge_fo", ":/benchmarks/*.py"
    return commit + (" (modified)" if _output("git", "status", "-s", "--", *measured) else "")


def _output(*command: str) -> str | None:
    """What a program says; None without it, or where it fails."""
    return _or_none(
        lambda: subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent
        ).stdout.strip()
    )


def _memory_gb() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))


def _or_none(look: Callable[[], T]) -> T | None:
    """What is found; None where this machine does not tell."""
    try:
        return look()
    except (
        OSError, ValueError, AttributeError, StopIteration, PackageNotFoundError,
        subprocess.SubprocessError,
    ):  # fmt: skip
        return None
