"""What a benchmark's figures were taken on: written beside them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any


def conditions() -> dict[str, Any]:
    """Hardware, versions, command and commit."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD") + (" (modified)" if _git("status", "-s") else ""),
        "command": _command(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "gpu": gpu,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "timm", "numpy", "numba")},
    }


def write(path: str | Path, results: dict[str, Any]) -> None:
    """Results with their conditions, as JSON."""
    text = json.dumps({"conditions": conditions(), **results}, indent=2)
    Path(path).write_text(text + "\n")


def _command() -> str:
    """The command line, with files by their names: where they lie is nobody's business."""
    return " ".join(["python", *(Path(argument).name for argument in sys.argv)])


def _git(*arguments: str) -> str:
    run = subprocess.run(
        ["git", *arguments], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    return run.stdout.strip()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
