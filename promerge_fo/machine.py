"""What this machine has: its CPU cores, and the versions of Python and of packages."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__", "available_cpus", "package_versions"]

try:
    __version__ = version("promerge-fo")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"

_PACKAGES = ("torch", "timm", "numpy", "fiftyone")


def package_versions() -> dict[str, str]:
    """Versions of this package, of Python and of the packages that influence results."""
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
