"""Step 5: masks to instances (Sec. 3.2; Tab. 5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from promerge_fo.config import MergeRule, ProMergeConfig
from promerge_fo.kernels import kernel
from promerge_fo.segment.bits import count_bits, pack, popcount, unpack
from promerge_fo.segment.prompting import UnitFeatures

__all__ = ["merge"]

_RULES = {rule: number for number, rule in enumerate(MergeRule)}
_OFFICIAL, _EITHER, _IOA, _FEATURE = (
    _RULES[MergeRule.OFFICIAL],
    _RULES[MergeRule.EITHER],
    _RULES[MergeRule.IOA],
    _RULES[MergeRule.FEATURE],
)


def merge(
    unit: UnitFeatures, masks: NDArray[np.bool_], config: ProMergeConfig
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Merge each mask, larger ones first, with every cluster that it fits.

    Clusters are compared by their current union. The similarity of a mask with a union is the
    dot product of their mean features.

    Args:
        unit: features of h * w patches.
        masks: (n, h, w) bool, none empty.
        config: ``merge_rule``, ``tau_overlap_merge``, ``tau_ioa_merge``, ``tau_f_merge``.

    Returns:
        merged: (m, h, w) bool, largest first, equal ones by their first patch.
        cluster: (n,) int64: the index of the merged mask that each mask is a part of.
    """
    h, w = masks.shape[1:]
    packed = pack(masks)
    order = np.argsort(-count_bits(packed), kind="stable")
    if config.merge_rule is MergeRule.NONE:
        unions, cluster = packed[order], np.arange(len(masks))
    else:
        unions, cluster = _cluster(unit, masks[order], packed[order], config)
    merged = unpack(unions, (h, w))
    flat = merged.reshape(len(merged), h * w)
    rank = np.lexsort((flat.argmax(axis=1), -flat.sum(axis=1)))
    place = np.empty(len(rank), dtype=np.int64)
    place[rank] = np.arange(len(rank))
    of_mask = np.empty(len(masks), dtype=np.int64)
    of_mask[order] = place[cluster]
    return merged[rank], of_mask


def _cluster(
    unit: UnitFeatures,
    masks: NDArray[np.bool_],
    packed: NDArray[np.uint64],
    config: ProMergeConfig,
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Clusters of masks that come largest first: packed unions, and the cluster of each mask.

    Similarity maps take most of the time, and under the official rule overlap alone decides on
    most masks. So the clustering runs until it needs the map of a mask; then the maps of this mask
    and of those that will probably need theirs are calculated in one product.
    """
    n, size = len(masks), masks.shape[1] * masks.shape[2]
    flat = masks.reshape(n, size)
    areas = count_bits(packed)
    maps = np.zeros((n, size), dtype=np.float32)
    has_map = np.zeros(n, dtype=np.bool_)
    unions = np.zeros_like(packed)
    inside = np.zeros((n, size), dtype=np.float32)  # the unions as weights for the maps
    union_areas = np.zeros(n, dtype=np.int64)
    alive = np.zeros(n, dtype=np.bool_)
    into = np.arange(n)  # a cluster that was merged into another one points to it
    rule = _RULES[config.merge_rule]
    thresholds = config.tau_overlap_merge, config.tau_ioa_merge, config.tau_f_merge
    state = unions, inside, union_areas, alive, into
    done = 0
    while True:
        done = _advance(done, packed, areas, flat, maps, has_map, *state, rule, *thresholds)
        if done == n:
            break
        wanted = _undecided(done, packed, areas, has_map, unions, alive, rule, *thresholds[:2])
        maps[wanted] = unit.similarity_maps(masks[wanted])
        has_map[wanted] = True
    while not np.array_equal(into, into[into]):
        into = into[into]
    kept = np.flatnonzero(alive)
    return unions[kept], np.searchsorted(kept, into)


@kernel(inline="always")
def _ioa(mask, area, union):  # type: ignore[no-untyped-def]
    """Share of a packed mask that lies in a packed union."""
    shared = np.int64(0)
    for k in range(mask.size):
        shared += np.int64(popcount(mask[k] & union[k]))
    return shared / area


@kernel(inline="always")
def _overlap_decides(ioa, rule, tau_overlap, tau_ioa):  # type: ignore[no-untyped-def]
    """1: to be merged by overlap alone; 0: not to be merged; -1: the features decide."""
    if rule == _IOA:
        return np.int64(ioa > tau_ioa)
    if rule == _EITHER and ioa > tau_ioa:
        return 1
    if rule == _OFFICIAL:
        if ioa > tau_overlap:
            return 1
        if not ioa > tau_ioa:
            return 0
    return -1


@kernel
def _undecided(first, packed, areas, has_map, unions, alive, rule, tau_overlap, tau_ioa):  # type: ignore[no-untyped-def]
    """The mask ``first``, and later masks without a map that may soon be undecided, too.

    Unions grow: under the official rule, where too little overlap decides, any overlap will do.
    """
    least = 0.0 if rule == _OFFICIAL else tau_ioa
    wanted = [first]
    for i in range(first + 1, packed.shape[0]):
        if has_map[i]:
            continue
        for c in range(first):
            if alive[c]:
                ioa = _ioa(packed[i], areas[i], unions[c])
                if _overlap_decides(ioa, rule, tau_overlap, least) < 0:
                    wanted.append(i)
                    break
    return np.array(wanted)


@kernel(fastmath={"reassoc", "contract"})
def _advance(  # type: ignore[no-untyped-def]
    first,
    packed,
    areas,
    masks,
    maps,
    has_map,
    unions,
    inside,
    union_areas,
    alive,
    into,
    rule,
    tau_overlap,
    tau_ioa,
    tau_f,
):
    """Place masks from ``first`` on, up to one whose map is missing: its index, or n."""
    count, words = packed.shape
    size = masks.shape[1]
    joins = np.empty(count, dtype=np.bool_)
    for i in range(first, count):
        for c in range(i):
            joins[c] = False
            if not alive[c]:
                continue
            ioa = _ioa(packed[i], areas[i], unions[c])
            verdict = _overlap_decides(ioa, rule, tau_overlap, tau_ioa)
            if verdict < 0:
                if not has_map[i]:
                    return i
                total = np.float32(0)
                for p in range(size):
                    total += maps[i, p] * inside[c, p]
                similarity = total / union_areas[c]
                # the released code merges at the threshold, the paper above it
                joins[c] = similarity > tau_f or (rule == _OFFICIAL and similarity == tau_f)
            else:
                joins[c] = verdict == 1
        target = -1
        for c in range(i):
            if not joins[c]:
                continue
            if target < 0:
                target = c
                continue
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
    return count
