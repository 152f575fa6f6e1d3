"""Times that can be compared: warmed up, taking turns, as medians and interquartile ranges."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch


def take_turns(
    functions: Mapping[str, Callable[[], object]],
    repetitions: int,
    device: str = "cpu",
) -> dict[str, list[float]]:
    """Seconds of each repetition of functions that run one after the other, again and again.

    What else the machine does then falls on all of them alike. The first round does not count.

    Args:
        functions: by name.
        repetitions: rounds that count.
        device: what is waited for before the clock is read.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for repetition in range(repetitions + 1):
        for name, function in functions.items():
            synchronise(device)
            started = time.perf_counter()
            function()
            synchronise(device)
            if repetition:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def measure(
    function: Callable[[], object], repetitions: int, device: str = "cpu"
) -> dict[str, float]:
    """Median and interquartile range of a function that runs alone."""
    return quartiles(take_turns({"": function}, repetitions, device)[""])


def quartiles(seconds: list[float]) -> dict[str, float]:
    """Median and interquartile range, in seconds."""
    low, middle, high = np.percentile(seconds, [25, 50, 75])
    return {"median_s": round(float(middle), 6), "iqr_s": round(float(high - low), 6)}


def synchronise(device: str) -> None:
    """Wait until a GPU has done what it was told."""
    if device == "cuda":
        torch.cuda.synchronize()


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch calculates on one thread meanwhile."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
