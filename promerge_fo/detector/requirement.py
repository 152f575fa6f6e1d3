"""detectron2, which only training and running the detector needs."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version

__all__ = ["require_detectron2", "way_to_detectron2", "why_no_detectron2"]

SOURCE = "git+https://github.com/facebookresearch/detectron2"
WHEELS = "https://miropsota.github.io/torch_packages_builder/detectron2/"
_SYSTEMS = {"linux": "Linux", "darwin": "macOS", "win32": "Windows"}
_COMPILERS = {"linux": ("c++", "g++", "clang++"), "darwin": ("clang++",)}


def way_to_detectron2() -> str:
    """What to run, in one line, for this Python, this torch and this system.

    detectron2 is not on PyPI: it is compiled for the torch that is installed, which takes a C++
    compiler. Nothing is imported for this.
    """
    python = f'"{sys.executable}"' if " " in sys.executable else sys.executable
    try:
        torch = version("torch").partition("+")[0]
    except PackageNotFoundError:
        torch = "(not installed)"
    where = _SYSTEMS.get(sys.platform, sys.platform)
    here = f"for Python {platform.python_version()} and torch {torch} on {where}"
    if sys.platform == "win32":
        return (
            f"{here}: it is not supported on Windows itself; run wsl --install, and in its Linux "
            f'pip install "promerge-fo[detector]" wheel ninja && pip install --no-build-isolation '
            f"{SOURCE}.{_wheels(torch)}"
        )
    pip = f"{python} -m pip install"
    settings = ""
    if sys.platform == "darwin":
        settings = f'CC=clang CXX=clang++ ARCHFLAGS="-arch {platform.machine()}" '
    command = (
        f'{pip} "promerge-fo[detector]" wheel ninja && '
        f"{settings}{pip} --no-build-isolation {SOURCE}"
    )
    if not any(map(shutil.which, _COMPILERS.get(sys.platform, ("c++",)))):
        first = "xcode-select --install" if sys.platform == "darwin" else "sudo apt install g++"
        command = f"{first} && {command}"
        return f"{here}: {command} (there is no C++ compiler yet).{_wheels(torch)}"
    return f"{here}: {command}"


def _wheels(torch: str) -> str:
    if platform.machine().lower() not in ("x86_64", "amd64") or sys.platform == "darwin":
        return ""
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    return f" Without a compiler: others build wheels, named pt{torch} and {tag}, at {WHEELS}"


def why_no_detectron2() -> str | None:
    """How to get detectron2 where it is not installed, else None; nothing is imported."""
    if importlib.util.find_spec("detectron2") is None:
        return f"the detector needs detectron2. {_how_to_get_it()}"
    return None


def require_detectron2() -> None:
    """Make sure that detectron2 can be imported.

    Raises:
        ImportError: it cannot, with the reason and the way to get it.
    """
    if (reason := why_no_detectron2()) is not None:
        raise ImportError(reason)
    try:
        import detectron2.engine
        import detectron2.layers  # noqa: F401  (its compiled part)
    except ImportError as error:
        raise ImportError(
            f"detectron2 is installed, but cannot be imported ({error}); it fits the PyTorch alone "
            f"that it was built for: build it again. {_how_to_get_it()}"
        ) from error


def _how_to_get_it() -> str:
    return (
        f"Run, {way_to_detectron2()}. Nothing else needs it, and a YOLO learns from the same masks "
        "without it (promerge export --format yolo); docs/detector.md says more"
    )
