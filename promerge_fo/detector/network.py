"""The network, as detectron2 builds it.

Importing this module imports detectron2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from detectron2.modeling import build_model

import promerge_fo.detector.heads  # noqa: F401  (makes the heads known to detectron2)

if TYPE_CHECKING:
    import torch

__all__ = ["build"]


def build(cfg: Any) -> torch.nn.Module:
    """A detector with random weights, on its device.

    Args:
        cfg: what :func:`~promerge_fo.detector.config.detectron2_config` gives.
    """
    model: torch.nn.Module = build_model(cfg)
    return model
