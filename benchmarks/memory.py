"""How much memory a process takes, and processes of their own to see it in."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]
_CHILD = "from benchmarks.memory import _child; _child()"


def peak_mb() -> float:
    """The most memory that this process has held since it started, or since :func:`reset_peak`."""
    # Where there is VmHWM, it is better than ru_maxrss, in which a process inherits the peak of
    # the one that started it.
    kilobytes = _status("VmHWM")
    if kilobytes is None:
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if sys.platform == "darwin":
            kilobytes //= 1024
    return round(kilobytes / 1024, 1)


def now_mb() -> float | None:
    """The memory that this process holds; None where the system does not say."""
    kilobytes = _status("VmRSS")
    return None if kilobytes is None else round(kilobytes / 1024, 1)


def reset_peak() -> None:
    """Start anew with :func:`peak_mb`, on Linux."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def reset_gpu_peak(device: str) -> None:
    """Start anew with :func:`gpu_peak_mb`, with as little memory taken as can be."""
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def gpu_peak_mb(device: str) -> float | None:
    """The most memory that torch has taken of a GPU since :func:`reset_gpu_peak`."""
    if device != "cuda":
        return None
    import torch

    return round(torch.cuda.max_memory_allocated() / 2**20, 1)


def environment() -> dict[str, str]:
    """This process's variables, with which another one finds the benchmarks, too."""
    paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def apart(
    function: str, variables: Mapping[str, str] | None = None, **arguments: Any
) -> dict[str, Any]:
    """What a function returns in a process of its own.

    Args:
        function: "benchmarks.module:name"; takes and returns what JSON can hold.
        variables: of the environment, which the process has besides those of this one.
        arguments: for the function.

    Raises:
        RuntimeError: with the end of what the process said.
    """
    run = subprocess.run(
        [sys.executable, "-c", _CHILD, function, json.dumps(arguments)],
        capture_output=True,
        text=True,
        env={**environment(), **(variables or {})},
        cwd=_ROOT,
    )
    if run.returncode != 0:
        raise RuntimeError(f"{function} failed: {run.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return result


def _child() -> None:
    module, name = sys.argv[1].split(":")
    result = getattr(importlib.import_module(module), name)(**json.loads(sys.argv[2]))
    print("\n" + json.dumps(result), flush=True)


def _status(key: str) -> int | None:
    """A line of /proc/self/status, in kilobytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(key + ":"))
    except (OSError, StopIteration):
        return None
