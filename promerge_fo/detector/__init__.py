"""ProMerge+: a Cascade Mask R-CNN, trained on pseudo-labels with detectron2.

detectron2 is imported when something is trained or predicted, and not before.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from promerge_fo.detector.config import DetectorConfig
from promerge_fo.detector.losses import Losses, read_losses
from promerge_fo.detector.requirement import require_detectron2

if TYPE_CHECKING:
    from promerge_fo.detector.prediction import predict
    from promerge_fo.detector.training import train

__all__ = ["DetectorConfig", "Losses", "predict", "read_losses", "require_detectron2", "train"]

_HOMES = {"predict": "prediction", "train": "training"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"promerge_fo.detector.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'promerge_fo.detector' has no attribute {name!r}")
