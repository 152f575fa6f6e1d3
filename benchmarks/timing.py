"""Times that can be compared: warmed up, taking turns, as medians and interquartile ranges."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np

T = TypeVar("T")


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
    for function in functions.values():
        function()
    taken = take_turns_by({"wall": time.perf_counter}, functions, repetitions, device)
    return {name: seconds["wall"] for name, seconds in taken.items()}


def take_turns_by(
    clocks: Mapping[str, Callable[[], float]],
    functions: Mapping[str, Callable[[], object]],
    repetitions: int,
    device: str = "cpu",
) -> dict[str, dict[str, list[float]]]:
    """The same by several clocks, all rounds: seconds by function and clock."""
    seconds: dict[str, dict[str, list[float]]] = {
        name: {clock: [] for clock in clocks} for name in functions
    }
    for _ in range(repetitions):
        for name, function in functions.items():
            synchronise(device)
            started = {clock: now() for clock, now in clocks.items()}
            function()
            synchronise(device)
            for clock, now in clocks.items():
                seconds[name][clock].append(now() - started[clock])
    return seconds


def measure(
    function: Callable[[], object], repetitions: int, device: str = "cpu"
) -> dict[str, float]:
    """Median and interquartile range of a function that runs alone."""
    return quartiles(take_turns({"": function}, repetitions, device)[""])


def timed(function: Callable[[], T]) -> tuple[T, float]:
    """What a function returns, and the seconds that it took, once."""
    started = time.perf_counter()
    result = function()
    return result, time.perf_counter() - started


def summarise(*taken: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    """Medians and interquartile ranges of functions, over the repetitions of all subjects."""
    return {name: quartiles([s for each in taken for s in each[name]]) for name in taken[0]}


def quartiles(seconds: Sequence[float]) -> dict[str, float]:
    """Median and interquartile range, in seconds."""
    low, middle, high = np.percentile(seconds, [25, 50, 75])
    return {"median_s": round(float(middle), 6), "iqr_s": round(float(high - low), 6)}


def rates(images: int, seconds: float) -> dict[str, float]:
    """What so many images in so many seconds come to."""
    return {
        "seconds": round(seconds, 3),
        "images_per_s": round(images / seconds, 3),
        "ms_per_image": round(1000 * seconds / images, 3),
    }


def synchronise(device: str) -> None:
    """Wait until a GPU has done what it was told."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch calculates on one thread meanwhile."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
