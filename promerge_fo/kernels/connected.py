# mypy: disable-error-code="untyped-decorator"
"""4-connected components of many masks in one pass, without an array of labels.

A component is kept as its runs: the stretches of set pixels in the rows of its mask.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from promerge_fo.kernels import kernel

__all__ = ["Components", "draw", "find_components"]


class Components(NamedTuple):
    """The 4-connected components of masks (n, h, w): r runs of set pixels in c components.

    Runs are in raster order, mask after mask; components are numbered in the order of their first
    runs. Places in the masks are indices into all n * h * w pixels.

    Attributes:
        begins: (r,) int64: the place of each run's first pixel.
        ends: (r,) int64: the place after its last pixel.
        components: (r,) int64: the component that each run belongs to.
        sizes: (c,) int64: pixels of each component.
        masks: (c,) int64: the mask that each component is a part of.
    """

    begins: NDArray[np.int64]
    ends: NDArray[np.int64]
    components: NDArray[np.int64]
    sizes: NDArray[np.int64]
    masks: NDArray[np.int64]


def find_components(masks: NDArray[np.bool_]) -> Components:
    """The 4-connected components of masks.

    Args:
        masks: (n, h, w) bool.

    Examples:
        >>> found = find_components(np.array([[[1, 0, 1], [1, 1, 0]]], dtype=bool))
        >>> found.sizes
        array([3, 1])
    """
    return Components(*_find(np.ascontiguousarray(masks)))


def draw(found: Components, into: NDArray[np.int64], masks: NDArray[np.bool_]) -> None:
    """Set the pixels of components in other masks, of the same height and width.

    Args:
        found: c components.
        into: (c,) int64: the index of the mask that each is drawn into; negative for none.
        masks: (m, h, w) bool, C-contiguous; changed in place.
    """
    _draw(masks, into, found.begins, found.ends, found.components)


@kernel
def _find(masks: Any) -> Any:
    """Union-find over runs; the root of a component is its first run."""
    count, h, w = masks.shape
    most = count * h * ((w + 1) // 2)
    begins = np.empty(most, dtype=np.int64)
    ends = np.empty(most, dtype=np.int64)
    parents = np.empty(most, dtype=np.int64)
    n = 0
    for k in range(count):
        above, here = n, n  # where the runs of the row above, and of this row, start
        for i in range(h):
            above, here = here, n
            row = (k * h + i) * w
            j = 0
            while j < w:
                if not masks[k, i, j]:
                    j += 1
                    continue
                begins[n], parents[n] = row + j, n
                while j < w and masks[k, i, j]:
                    j += 1
                ends[n] = row + j
                while above < here and ends[above] + w <= begins[n]:
                    above += 1
                touching = above
                while touching < here and begins[touching] + w < ends[n]:
                    a, b = _root(parents, touching), _root(parents, n)
                    parents[max(a, b)] = min(a, b)
                    touching += 1
                n += 1
    components = np.empty(n, dtype=np.int64)
    sizes = np.zeros(n, dtype=np.int64)
    mask_of = np.empty(n, dtype=np.int64)
    total = 0
    for r in range(n):
        root = _root(parents, r)
        if root == r:
            components[r], mask_of[total] = total, begins[r] // (h * w)
            total += 1
        else:
            components[r] = components[root]
        sizes[components[r]] += ends[r] - begins[r]
    return begins[:n], ends[:n], components, sizes[:total], mask_of[:total]


@kernel
def _root(parents: Any, run: int) -> Any:
    while parents[run] != run:
        parents[run] = parents[parents[run]]
        run = parents[run]
    return run


@kernel
def _draw(masks: Any, into: Any, begins: Any, ends: Any, components: Any) -> None:
    size = masks.shape[1] * masks.shape[2]
    pixels = masks.reshape(masks.size)
    for r in range(begins.size):
        k = into[components[r]]
        if k >= 0:
            first = k * size + begins[r] % size
            pixels[first : first + ends[r] - begins[r]] = True
