"""Versions: of this package, of Python and of what decides results."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["package_versions"]

_PACKAGES = ("torch", "timm", "numpy", "fiftyone")


def package_versions() -> dict[str, str]:
    """Versions of this package, of Python and of what decides results."""
    import promerge_fo

    found = {"promerge_fo": promerge_fo.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
