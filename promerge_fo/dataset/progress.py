"""FiftyOne's progress, shown by bars of other makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["Progress", "steps_of"]

Progress: TypeAlias = "bool | Callable[[Any], None] | None"
"""Whether FiftyOne shows its own bar, None for its default; or what it calls at every step."""


def steps_of(make: Callable[[int], Any]) -> Callable[[Any], None]:
    """What FiftyOne is to call at every step of its progress, to move another bar.

    Args:
        make: given the number of steps, makes a bar with ``update(n)``.
    """
    bar: Any = None
    shown = 0

    def step(progress: Any) -> None:
        nonlocal bar, shown
        if bar is None:
            bar = make(int(progress.total))
        bar.update(progress.iteration - shown)
        shown = progress.iteration

    return step
