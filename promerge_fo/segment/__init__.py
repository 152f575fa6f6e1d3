"""Patch features to patch masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from promerge_fo.config import Config, ProMergeConfig
from promerge_fo.instances import Instances
from promerge_fo.segment.normalized_cut import CutTrace, trace_cuts
from promerge_fo.segment.promerge import Trace, trace_features

__all__ = ["CutTrace", "Trace", "segment_features", "trace_segmentation"]


def segment_features(
    features: NDArray[Any] | torch.Tensor,
    config: Config | None = None,
    prompt_scores: NDArray[Any] | torch.Tensor | None = None,
) -> Instances:
    """Instance masks from the patch features of one image.

    Args:
        features: (C, h, w) floating point, NumPy or torch, on any device; float16 and bfloat16
            are computed in float32.
        config: the parameters; their class chooses the method: ``ProMergeConfig()`` by default,
            a ``MaskCutConfig`` or a ``TokenCutConfig``.
        prompt_scores: (h, w): attention of the class token to each patch, for attention
            prompting.

    Returns:
        Patch masks with scores in [0, 1], and a status that says why there are none. From
        ProMerge: largest first, with the voted background; "no_background",
        "background_too_small", "all_filtered". From MaskCut and TokenCut: one mask for each cut,
        in the order of the cuts, empty and with the score 0 if the cut was rejected; "no_cut" if
        no cut is better than any other.

    Raises:
        TypeError: features or a configuration of another type.
        ValueError: features of another shape, empty, or not finite.

    Examples:
        >>> features = np.full((2, 12, 12), -1.0)
        >>> features[:, 4:8, 3:9] = [[[1.0]], [[0.5]]]
        >>> result = segment_features(features, ProMergeConfig(stride=2))
        >>> result.masks.shape, int(result.masks.sum()), result.status
        ((1, 12, 12), 24, 'ok')
    """
    return trace_segmentation(features, config, prompt_scores).instances


def trace_segmentation(
    features: NDArray[Any] | torch.Tensor,
    config: Config | None = None,
    prompt_scores: NDArray[Any] | torch.Tensor | None = None,
) -> Trace | CutTrace:
    """Like :func:`segment_features`, with the results of every step.

    Returns:
        A :class:`Trace` for a ``ProMergeConfig``, a :class:`CutTrace` for the other methods.
    """
    config = ProMergeConfig() if config is None else config
    if not isinstance(config, Config):
        raise TypeError(
            "config must be a ProMergeConfig, MaskCutConfig or TokenCutConfig, got "
            f"{type(config).__name__}"
        )
    if isinstance(features, np.ndarray) and features.dtype.kind == "f":
        features = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))
    if not isinstance(features, torch.Tensor) or not features.is_floating_point():
        raise TypeError(
            "features must be a floating-point NumPy array or torch tensor (C, h, w), got "
            f"{type(features).__name__} of {getattr(features, 'dtype', 'no dtype')}"
        )
    if features.ndim != 3 or 0 in features.shape:
        hint = "; pass one image of the batch" if features.ndim == 4 else ""
        raise ValueError(f"features must be (C, h, w), got {tuple(features.shape)}{hint}")
    if not isinstance(config, ProMergeConfig):
        return trace_cuts(features, config)
    if isinstance(prompt_scores, torch.Tensor):
        prompt_scores = prompt_scores.cpu().numpy()
    return trace_features(features, config, prompt_scores)
