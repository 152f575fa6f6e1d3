"""Instance masks for unlabelled images by ProMerge (Li and Shin, ECCV 2024), in FiftyOne.

The public names load what they need when they are first used: importing the package costs little
and asks for neither FiftyOne nor a database.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promerge_fo.config import MaskCutConfig, ProMergeConfig, TokenCutConfig
    from promerge_fo.dataset.model import load_model
    from promerge_fo.encoder import load_encoder
    from promerge_fo.instances import Instances
    from promerge_fo.pipeline import Pipeline
    from promerge_fo.refine import refine_masks
    from promerge_fo.segment import segment_features

__all__ = [
    "Instances",
    "MaskCutConfig",
    "Pipeline",
    "ProMergeConfig",
    "TokenCutConfig",
    "load_encoder",
    "load_model",
    "refine_masks",
    "segment_features",
]

_HOMES = {
    "Instances": "promerge_fo.instances",
    "MaskCutConfig": "promerge_fo.config",
    "Pipeline": "promerge_fo.pipeline",
    "ProMergeConfig": "promerge_fo.config",
    "TokenCutConfig": "promerge_fo.config",
    "load_encoder": "promerge_fo.encoder",
    "load_model": "promerge_fo.dataset.model",
    "refine_masks": "promerge_fo.refine",
    "segment_features": "promerge_fo.segment",
}

try:
    __version__ = version("promerge-fo")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'promerge_fo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
