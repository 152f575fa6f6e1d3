"""Times that can be compared: warmed up, taking turns, as medians and interquartile ranges."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np


def take_turns(
    functions: Mapping[str, Callable[[], object]], repetitions: int
) -> dict[str, list[float]]:
    """Seconds of each repetition of functions that run one after the other, again and again.

    What else the machine does then falls on all of them alike. The first round does not count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for repetition in range(repetitions + 1):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            if repetition:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def quartiles(seconds: list[float]) -> dict[str, float]:
    """Median and interquartile range, in seconds."""
    low, middle, high = np.percentile(seconds, [25, 50, 75])
    return {"median_s": round(float(middle), 5), "iqr_s": round(float(high - low), 5)}
