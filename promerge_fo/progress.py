"""Progress bars: the one way in which long functions show their progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias

__all__ = ["Bar", "ShowProgress", "progress_bar"]


class Bar(Protocol):
    """A progress bar, such as ``tqdm``'s."""

    def update(self, n: int, /) -> Any:
        """Advance by ``n`` steps; an exception raised here ends the work."""

    def close(self) -> Any:
        """Remove the bar; called once, whether or not all steps were done."""


ShowProgress: TypeAlias = "bool | Callable[[int], Bar] | None"
"""True shows a bar, and False shows none. None shows one if FiftyOne's ``show_progress_bars`` is
set. A function gets the number of steps and returns the bar."""


class _HiddenBar:
    def update(self, n: int, /) -> None:
        """Show nothing."""

    def close(self) -> None:
        """There is nothing to remove."""


@contextmanager
def progress_bar(progress: ShowProgress, total: int, unit: str = "images") -> Iterator[Bar]:
    """A progress bar for the duration of some work.

    Args:
        progress: the ``progress`` argument of a long function.
        total: the number of steps.
        unit: the name of a step, in the plural.

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
        bar = _HiddenBar()
    try:
        yield bar
    finally:
        bar.close()


def _is_shown(progress: bool | None) -> bool:
    if progress is not None:
        return progress
    # Importing FiftyOne connects to its database, so its config is used only if it is imported.
    fiftyone = sys.modules.get("fiftyone")
    return bool(fiftyone.config.show_progress_bars) if fiftyone is not None else True
