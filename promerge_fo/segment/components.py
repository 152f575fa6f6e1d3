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
    *runs, sizes, starts, own = _runs(np.ascontiguousarray(masks), prompts)
    reference = np.zeros(len(masks), dtype=np.int64)
    inside = own >= 0
    reference[inside] = sizes[own[inside]]
    for k in np.flatnonzero(~inside):  # the prompt is outside: rare, and a mask may be empty
        reference[k] = sizes[starts[k] : starts[k + 1]].max(initial=0)
    mask_of = np.repeat(np.arange(len(masks)), np.diff(starts))
    kept = np.flatnonzero(sizes >= ratio * reference[mask_of])
    kept = kept[np.lexsort((-sizes[kept], mask_of[kept]))]  # stable: equal ones in raster order
    place = np.full(len(sizes), -1, dtype=np.int64)
    place[kept] = np.arange(len(kept))
    components = np.zeros((len(kept), *masks.shape[1:]), dtype=np.bool_)
    _paint(components, place, *runs)
    return components, mask_of[kept]


@njit(cache=True, nogil=True)
def _runs(masks, prompts):  # type: ignore[no-untyped-def]
    """Rows of masks as runs of set patches, joined into 4-connected components.

    Union-find over runs; the root of a component is its first run, so that numbering roots in
    order numbers components in raster order, through all masks.

    Returns:
        Of each run: its row, its first column, the column after its last, and its component.
        The size of each component; where each mask's components start (K + 1,); and the
        component that holds each mask's prompt, or -1.
    """
    count, h, w = masks.shape
    most = count * h * ((w + 1) // 2)
    rows = np.empty(most, dtype=np.int32)
    begins = np.empty(most, dtype=np.int32)
    ends = np.empty(most, dtype=np.int32)
    parent = np.empty(most, dtype=np.int32)
    component = np.empty(most, dtype=np.int32)
    starts = np.zeros(count + 1, dtype=np.int64)
    own = np.full(count, -1, dtype=np.int64)
    sizes = np.zeros(most, dtype=np.int64)
    n = 0
    total = 0
    for k in range(count):
        first = n
        starts[k] = total
        above, here = n, n  # where the runs of the row above, and of this row, start
        for i in range(h):
            above, here = here, n
            j = 0
            while j < w:
                if not masks[k, i, j]:
                    j += 1
                    continue
                rows[n], begins[n], parent[n] = i, j, n
                while j < w and masks[k, i, j]:
                    j += 1
                ends[n] = j
                while above < here and ends[above] <= begins[n]:
                    above += 1
                touching = above
                while touching < here and begins[touching] < j:
                    a, b = _root(parent, touching), _root(parent, n)
                    parent[max(a, b)] = min(a, b)
                    touching += 1
                n += 1
        row, column = prompts[k] // w, prompts[k] % w
        for r in range(first, n):
            root = _root(parent, r)
            if root == r:
                component[r] = total
                total += 1
            else:
                component[r] = component[root]
            sizes[component[r]] += ends[r] - begins[r]
            if rows[r] == row and begins[r] <= column < ends[r]:
                own[k] = component[r]
    starts[count] = total
    return rows[:n], begins[:n], ends[:n], component[:n], sizes[:total], starts, own


@njit(cache=True, nogil=True)
def _root(parent, r):  # type: ignore[no-untyped-def]
    while parent[r] != r:
        parent[r] = parent[parent[r]]
        r = parent[r]
    return r


@njit(cache=True, nogil=True)
def _paint(out, place, rows, begins, ends, component):  # type: ignore[no-untyped-def]
    """Draw the runs of each component into the mask that it has a place at, if it has one."""
    for r in range(rows.size):
        k = place[component[r]]
        if k >= 0:
            out[k, rows[r], begins[r] : ends[r]] = True
