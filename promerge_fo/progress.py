"""The one way in which long functions show how far they are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias

__all__ = ["Bar", "ShowProgress", "progress_bar"]


class Bar(Protocol):
    """A progress bar, such as ``tqdm``'s."""

    def update(self, n: int, /) -> Any:
        """Move on by ``n`` steps; what it raises ends the work."""

    def close(self) -> Any:
        """End the bar; called once, whether or not all steps were done."""


ShowProgress: TypeAlias = "bool | Callable[[int], Bar] | None"
"""True shows a bar, False none, and None does as FiftyOne's ``show_progress_bars`` says. A function
is given the number of steps and makes the bar."""


class _Hidden:
    def update(self, n: int, /) -> None:
        """Nothing is shown."""

    def close(self) -> None:
        """Nothing was shown."""


@contextmanager
def progress_bar(progress: ShowProgress, total: int, unit: str = "images") -> Iterator[Bar]:
    """A bar for the duration of some work.

    Args:
        progress: what the caller of a long function asked for.
        total: the number of steps.
        unit: what a step is, in the plural.

    Examples:
        >>> with progress_bar(False, total=2) as bar:
        ...     bar.update(2)
    """
    if callable(progress):
        bar = progress(total)
    elif _is_shown(progress):
        from tqdm import tqdm

        bar = tqdm(total=total, unit=f" {unit}", dynamic_ncols=True)
    else:
        bar = _Hidden()
    try:
        yield bar
    finally:
        bar.close()


def _is_shown(progress: bool | None) -> bool:
    if progress is not None:
        return progress
    # FiftyOne connects to its database when it is imported: it is asked only where it is there.
    fiftyone = sys.modules.get("fiftyone")
    return bool(fiftyone.config.show_progress_bars) if fiftyone is not None else True
