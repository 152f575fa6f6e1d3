"""Masks at several levels of similarity: objects, their parts, and groups of them.

The paper's merging leaves one or two masks an image. Here, its merged masks are the first level;
the others are made of the same prompts at higher thresholds tau_b, and are not merged. All levels
share the affinities of the prompts, which are most of the work.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from promerge_fo.config import ProMergeConfig, Status
from promerge_fo.instances import Instances
from promerge_fo.segment.bits import count_bits, pack
from promerge_fo.segment.filtering import suppress

__all__ = ["drop_duplicates", "find_parents", "level_thresholds", "unite"]

INSIDE = 0.9  #: share of a mask that must lie in another one, which is its parent then


def level_thresholds(config: ProMergeConfig) -> list[float]:
    """tau_b of each level after the first, ascending.

    Examples:
        >>> level_thresholds(ProMergeConfig(levels=3, low_tau_b=0.4, high_tau_b=0.8))
        [0.4, 0.8]
    """
    return [float(t) for t in np.linspace(config.low_tau_b, config.high_tau_b, config.levels - 1)]


def unite(levels: Sequence[Instances], config: ProMergeConfig) -> Instances:
    """The masks of all levels, the best first, without small ones and near-duplicates.

    Args:
        levels: patch masks and scores of each level, on one grid.
        config: ``min_mask_area``, ``duplicate_iou`` and ``max_masks`` are used.

    Returns:
        Instances with ``levels``, from 1. If no level has masks, the status is the first level's;
        "all_filtered" if all masks are too small.
    """
    masks = np.concatenate([level.masks for level in levels])
    scores = np.concatenate([level.scores for level in levels])
    numbers = np.repeat(np.arange(1, len(levels) + 1), [len(level) for level in levels])
    large = np.flatnonzero(masks.mean(axis=(1, 2)) >= config.min_mask_area)
    kept = large[drop_duplicates(masks[large], scores[large], config)]
    status: Status = "ok"
    if not len(kept):
        status = "all_filtered" if len(masks) else levels[0].status
    background = next((x.background for x in levels if x.background is not None), None)
    return Instances(masks[kept], scores[kept], status, background, levels=numbers[kept])


def drop_duplicates(
    masks: NDArray[np.bool_], scores: NDArray[np.float32], config: ProMergeConfig
) -> NDArray[np.int64]:
    """The masks that no better mask nearly equals, at most ``max_masks``, the best first.

    Args:
        masks: (n, h, w) bool, of patches or pixels.
        scores: (n,) float32.
        config: ``duplicate_iou`` and ``max_masks`` are used.

    Returns:
        (m,) int64 indices.
    """
    order = np.argsort(-scores, kind="stable")
    packed = pack(masks)
    verdicts = suppress(packed, count_bits(packed), order, config.duplicate_iou)
    kept = order[verdicts[order] == 0]
    return np.asarray(kept[: config.max_masks or None], dtype=np.int64)


def find_parents(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The smallest larger mask in which each mask lies, by at least 0.9 of its area.

    Args:
        masks: (n, h, w) bool.

    Returns:
        (n,) int64 indices; -1 for a mask that lies in no other one.

    Examples:
        >>> masks = np.zeros((3, 4, 4), dtype=bool)
        >>> masks[0, :, :] = masks[1, :2, :3] = masks[2, :2, :2] = True
        >>> find_parents(masks)
        array([-1,  0,  1])
    """
    packed = pack(masks)
    areas = count_bits(packed)
    parents = np.full(len(masks), -1, dtype=np.int64)
    for i in range(len(masks)):
        inside = count_bits(packed & packed[i]) >= INSIDE * areas[i]
        larger = np.flatnonzero(inside & (areas > areas[i]))
        if len(larger):
            parents[i] = larger[areas[larger].argmin()]
    return parents
