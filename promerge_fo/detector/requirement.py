"""detectron2, which only training and running the detector needs."""

from __future__ import annotations

import importlib.util

__all__ = ["require_detectron2", "why_no_detectron2"]

HOW_TO_GET_DETECTRON2 = (
    "detectron2 is not on PyPI; it is built, in some minutes and with a C++ compiler, for the "
    "PyTorch that is installed:\n"
    '  pip install "promerge-fo[detector]" wheel ninja\n'
    "  pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2\n"
    "docs/detector.md says more. Nothing but training and prediction needs it"
)


def why_no_detectron2() -> str | None:
    """How to get detectron2 where it is not installed, else None; nothing is imported."""
    if importlib.util.find_spec("detectron2") is None:
        return f"the detector needs detectron2. {HOW_TO_GET_DETECTRON2}"
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
            f"that it was built for: build it again. {HOW_TO_GET_DETECTRON2}"
        ) from error
