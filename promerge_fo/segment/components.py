"""Step 3: foreground masks to connected components (Sec. 4.1; Tab. 3, last row)."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from promerge_fo.config import SplitComponents

__all__ = ["split"]


def split(
    masks: NDArray[np.bool_],
    prompts: NDArray[np.int64],
    rule: SplitComponents,
    min_ratio: float,
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Split masks into 4-connected components, all masks in one pass.

    Args:
        masks: (K, h, w) bool.
        prompts: (K,) index of each mask's prompt in the flattened grid.
        rule: ``RELATIVE`` keeps the components of at least ``min_ratio`` times the size of the
            component that holds the prompt (of the largest, where the prompt is outside its own
            mask); ``ALL`` keeps every component; ``NONE`` keeps the masks whole.
        min_ratio: see ``rule``; not negative.

    Returns:
        components: (n, h, w) bool, none empty, in the order of the masks; those of one mask
            largest first, equal ones in raster order.
        source: (n,) int64: the mask that each component comes from.
    """
    if rule is SplitComponents.NONE:
        source = np.flatnonzero(masks.any(axis=(1, 2)))
        return masks[source], source
    ratio = min_ratio if rule is SplitComponents.RELATIVE else 0.0
    labels, sizes, starts = _label(np.ascontiguousarray(masks))
    mask_of = np.repeat(np.arange(len(masks)), np.diff(starts))
    if len(sizes) == 0:
        return np.zeros((0, *masks.shape[1:]), dtype=np.bool_), mask_of
    own = labels[np.arange(len(masks)), prompts // masks.shape[2], prompts % masks.shape[2]]
    reference = sizes[own]
    for k in np.flatnonzero(own < 0):  # the prompt is outside: rare, and a mask may be empty
        reference[k] = sizes[starts[k] : starts[k + 1]].max(initial=0)
    kept = np.flatnonzero(sizes >= ratio * reference[mask_of])
    kept = kept[np.lexsort((-sizes[kept], mask_of[kept]))]  # stable: equal ones in raster order
    return labels[mask_of[kept]] == kept[:, None, None], mask_of[kept]


@njit(cache=True, nogil=True)
def _label(masks):  # type: ignore[no-untyped-def]
    """4-connected components of every mask, numbered through all masks, in raster order.

    Returns labels (K, h, w) int32 (-1 outside), sizes (n,), and where each mask's labels start
    (K + 1,). Union-find: the root of a component is its first patch in raster order.
    """
    count, h, w = masks.shape
    labels = np.full((count, h, w), -1, dtype=np.int32)
    starts = np.zeros(count + 1, dtype=np.int64)
    sizes = np.zeros(count * ((h * w + 1) // 2), dtype=np.int64)
    parent = np.empty(h * w, dtype=np.int32)
    name = np.empty(h * w, dtype=np.int32)
    total = 0
    for k in range(count):
        starts[k] = total
        for i in range(h):
            for j in range(w):
                if not masks[k, i, j]:
                    continue
                p = i * w + j
                parent[p] = p
                if j > 0 and masks[k, i, j - 1]:
                    parent[p] = _root(parent, p - 1)
                if i > 0 and masks[k, i - 1, j]:
                    above, here = _root(parent, p - w), parent[p]
                    # the smaller index stays root, so that roots come first in raster order
                    low, high = min(above, here), max(above, here)
                    parent[high] = low
                    parent[p] = low
        for i in range(h):
            for j in range(w):
                if not masks[k, i, j]:
                    continue
                p = i * w + j
                root = _root(parent, p)
                if root == p:
                    name[p] = total
                    total += 1
                labels[k, i, j] = name[root]
                sizes[name[root]] += 1
    starts[count] = total
    return labels, sizes[:total].copy(), starts


@njit(cache=True, nogil=True)
def _root(parent, p):  # type: ignore[no-untyped-def]
    while parent[p] != p:
        parent[p] = parent[parent[p]]
        p = parent[p]
    return p
