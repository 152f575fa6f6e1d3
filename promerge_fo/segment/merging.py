"""Step 5: masks to instances (Sec. 3.2; Tab. 5)."""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from promerge_fo.config import MergeRule, ProMergeConfig
from promerge_fo.segment.bits import count_bits, pack, popcount, unpack

__all__ = ["merge"]

_RULES = {rule: number for number, rule in enumerate(MergeRule)}
_OFFICIAL, _EITHER, _IOA, _FEATURE = (
    _RULES[MergeRule.OFFICIAL],
    _RULES[MergeRule.EITHER],
    _RULES[MergeRule.IOA],
    _RULES[MergeRule.FEATURE],
)


def merge(
    unit: torch.Tensor, masks: NDArray[np.bool_], config: ProMergeConfig
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Merge each mask, larger ones first, with every cluster that it is compatible with.

    Clusters are compared by their current union. The similarity of a mask with a union is the
    dot product of their mean features; as the mean over the union of (feature . mask mean) is the
    same number, one scalar map a mask serves all unions.

    Args:
        unit: (C, h * w) float32 features of unit length.
        masks: (n, h, w) bool, none empty.
        config: ``merge_rule``, ``tau_overlap_merge``, ``tau_ioa_merge``, ``tau_f_merge``.

    Returns:
        merged: (m, h, w) bool, largest first, equal ones by their first patch.
        cluster: (n,) int64: the merged mask that each mask went into.
    """
    h, w = masks.shape[1:]
    packed = pack(masks)
    areas = count_bits(packed)
    order = np.argsort(-areas, kind="stable")
    if config.merge_rule is MergeRule.NONE:
        unions, cluster = packed[order], np.arange(len(masks))
    else:
        if config.merge_rule is MergeRule.IOA:
            maps = np.zeros((0, h * w), dtype=np.float32)
        else:
            maps = _similarity_maps(unit, masks[order])
        unions, cluster = _cluster(
            packed[order],
            areas[order],
            masks[order].reshape(len(masks), -1),
            maps,
            _RULES[config.merge_rule],
            config.tau_overlap_merge,
            config.tau_ioa_merge,
            config.tau_f_merge,
        )
    merged = unpack(unions, (h, w))
    flat = merged.reshape(len(merged), -1)
    rank = np.lexsort((flat.argmax(axis=1), -flat.sum(axis=1)))
    place = np.empty(len(rank), dtype=np.int64)
    place[rank] = np.arange(len(rank))
    of_mask = np.empty(len(masks), dtype=np.int64)
    of_mask[order] = place[cluster]
    return merged[rank], of_mask


def _similarity_maps(unit: torch.Tensor, masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(n, h * w): every patch's dot product with each mask's mean feature."""
    inside = torch.from_numpy(masks.reshape(len(masks), -1)).to(unit.device, torch.float32)
    means = inside @ unit.T / inside.sum(dim=1, keepdim=True)
    return (means @ unit).cpu().numpy()


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _cluster(packed, areas, masks, maps, rule, tau_overlap, tau_ioa, tau_f):  # type: ignore[no-untyped-def]
    """Clusters of masks that come largest first: packed unions, and the cluster of each mask."""
    count, words = packed.shape
    size = masks.shape[1]
    unions = np.zeros((count, words), dtype=np.uint64)
    union_areas = np.zeros(count, dtype=np.int64)
    inside = np.zeros((count, size), dtype=np.float32)  # the unions as weights for the maps
    alive = np.zeros(count, dtype=np.bool_)
    into = np.arange(count)  # clusters that were merged away point to the one that took them
    for i in range(count):
        target = -1
        for c in range(i):
            if not alive[c]:
                continue
            shared = np.int64(0)
            for k in range(words):
                shared += np.int64(popcount(packed[i, k] & unions[c, k]))
            ioa = shared / areas[i]
            joins = False
            if rule == _IOA:
                joins = ioa > tau_ioa
            elif rule == _OFFICIAL and (ioa > tau_overlap or not ioa > tau_ioa):
                joins = ioa > tau_overlap
            else:
                total = np.float32(0)
                for p in range(size):
                    total += maps[i, p] * inside[c, p]
                similarity = total / union_areas[c]
                if rule == _OFFICIAL:
                    joins = similarity >= tau_f
                elif rule == _EITHER:
                    joins = similarity > tau_f or ioa > tau_ioa
                else:
                    joins = similarity > tau_f
            if not joins:
                continue
            if target < 0:
                target = c
            else:
                alive[c] = False
                into[c] = target
                for k in range(words):
                    unions[target, k] |= unions[c, k]
                for p in range(size):
                    inside[target, p] = max(inside[target, p], inside[c, p])
        if target < 0:
            target = i
            alive[i] = True
        into[i] = target
        union_areas[target] = 0
        for k in range(words):
            unions[target, k] |= packed[i, k]
            union_areas[target] += np.int64(popcount(unions[target, k]))
        for p in range(size):
            inside[target, p] = max(inside[target, p], np.float32(masks[i, p]))
    kept = np.flatnonzero(alive)
    number = np.full(count, -1, dtype=np.int64)
    number[kept] = np.arange(len(kept))
    cluster = np.empty(count, dtype=np.int64)
    for i in range(count):
        c = i
        while into[c] != c:
            c = into[c]
        cluster[i] = number[c]
    return unions[kept], cluster
