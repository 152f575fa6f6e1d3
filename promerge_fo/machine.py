"""What this machine has: its CPU cores, its memory, and versions of Python and of packages."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from threading import Condition

__all__ = ["AtOnce", "__version__", "available_cpus", "package_versions"]

try:
    __version__ = version("promerge-fo")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"

_PACKAGES = ("torch", "timm", "numpy", "fiftyone")


def package_versions() -> dict[str, str]:
    """Versions of this package, of Python and of the packages that influence results."""
    return dict(_package_versions())


@cache
def _package_versions() -> dict[str, str]:
    found = {"promerge_fo": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def available_cpus() -> int:
    """CPU cores that this process may use; a scheduler may allow it only some of the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class AtOnce:
    """Bounds what threads take of something together, such as memory.

    A thread waits until there is room for what it takes. What is more than the bound is taken
    alone, when nothing else is.

    Args:
        most: what all threads may take together.

    Examples:
        >>> memory = AtOnce(1000)
        >>> with memory.taking(700):
        ...     pass  # another thread may take 300 now
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._changed = Condition()

    @contextmanager
    def taking(self, amount: int) -> Iterator[None]:
        """Wait until there is room, and hold it for the block; not to be nested."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + amount <= self._most)
            self._taken += amount
        try:
            yield
        finally:
            with self._changed:
                self._taken -= amount
                self._changed.notify_all()
