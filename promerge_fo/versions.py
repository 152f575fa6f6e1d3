"""Versions of this package, of Python and of the packages that influence results."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__", "package_versions"]

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
