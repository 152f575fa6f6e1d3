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
from promerge_fo.kernels import kernel
from promerge_fo.segment.bits import count_bits, pack, popcount

__all__ = ["find_parents", "level_thresholds", "rank", "unite"]

UNMERGED = 0.95  #: factor of the scores of masks that are not merged
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
        config: ``min_mask_area``, ``part_penalty`` and those of :func:`rank` are used.

    Returns:
        Instances with ``levels``, from 1. If no level has masks, the status is the first level's;
        "all_filtered" if all masks are too small.
    """
    masks = np.concatenate([level.masks for level in levels])
    scores = np.concatenate([level.scores for level in levels])
    scores[len(levels[0]) :] *= np.float32(UNMERGED)
    numbers = np.repeat(np.arange(1, len(levels) + 1), [len(level) for level in levels])
    large = np.flatnonzero(masks.mean(axis=(1, 2)) >= config.min_mask_area)
    kept, scores = rank(masks[large], scores[large], config, config.part_penalty)
    kept = large[kept]
    status: Status = "ok"
    if not len(kept):
        status = "all_filtered" if len(masks) else levels[0].status
    background = next((x.background for x in levels if x.background is not None), None)
    return Instances(masks[kept], scores, status, background, levels=numbers[kept])


def rank(
    masks: NDArray[np.bool_],
    scores: NDArray[np.float32],
    config: ProMergeConfig,
    part_penalty: float = 0.0,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The masks, the best first, without those that a better mask nearly equals.

    What lies in a better mask is probably a part of its object. With a penalty, the score of a mask
    falls with the share of it that lies in a better one, for each of them, as in Soft-NMS (Bodla et
    al., ICCV 2017), which takes the IoU.

    Args:
        masks: (n, h, w) bool, none empty, of patches or pixels.
        scores: (n,) float32.
        config: ``duplicate_iou`` and ``max_masks`` are used.
        part_penalty: share of its score that a mask loses if all of it lies in a better one.

    Returns:
        (m,) int64 indices, and (m,) float32 scores, descending.

    Examples:
        >>> masks = np.zeros((2, 4, 4), dtype=bool)
        >>> masks[0, :2, :2] = masks[1] = True
        >>> scores = np.array([0.4, 0.8], dtype=np.float32)
        >>> kept, ranked = rank(masks, scores, ProMergeConfig(), 0.5)
        >>> kept.tolist(), [round(float(score), 2) for score in ranked]
        ([1, 0], [0.8, 0.2])
    """
    packed = pack(masks)
    most = config.max_masks or len(masks)
    return _rank(  # type: ignore[no-any-return]
        packed, count_bits(packed), scores, config.duplicate_iou, part_penalty, most
    )


@kernel
def _rank(packed, areas, scores, max_iou, penalty, most):  # type: ignore[no-untyped-def]
    scores = scores.copy()
    left = np.ones(scores.size, dtype=np.bool_)
    kept = np.empty(scores.size, dtype=np.int64)
    count = 0
    while count < most:
        best = -1
        for i in range(scores.size):
            if left[i] and (best < 0 or scores[i] > scores[best]):
                best = i
        if best < 0:
            break
        left[best] = False
        kept[count] = best
        count += 1
        for i in range(scores.size):
            if not left[i]:
                continue
            shared = np.int64(0)
            for k in range(packed.shape[1]):
                shared += np.int64(popcount(packed[i, k] & packed[best, k]))
            left[i] = shared <= max_iou * (areas[i] + areas[best] - shared)
            scores[i] *= np.float32(1 - penalty * shared / areas[i])
    return kept[:count], scores[kept[:count]]


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
