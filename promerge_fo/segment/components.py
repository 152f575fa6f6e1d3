"""Step 3: foreground masks to connected components (Sec. 4.1; Tab. 3, last row)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from promerge_fo.config import SplitComponents
from promerge_fo.kernels.connected import draw, find_components

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
    found = find_components(masks)
    # The size to compare with: of the component with the prompt, or of the mask's largest.
    reference = np.zeros(len(masks), dtype=np.int64)
    np.maximum.at(reference, found.masks, found.sizes)
    place = np.arange(len(masks)) * (masks.shape[1] * masks.shape[2]) + prompts
    run = np.searchsorted(found.begins, place, side="right") - 1  # the last one up to it; or -1
    inside = np.flatnonzero(place < np.append(found.ends, -1)[run])
    reference[inside] = found.sizes[found.components[run[inside]]]

    kept = np.flatnonzero(found.sizes >= ratio * reference[found.masks])
    # lexsort is stable: equal ones stay in raster order
    kept = kept[np.lexsort((-found.sizes[kept], found.masks[kept]))]
    into = np.full(len(found.sizes), -1, dtype=np.int64)
    into[kept] = np.arange(len(kept))
    components = np.zeros((len(kept), *masks.shape[1:]), dtype=np.bool_)
    draw(found, into, components)
    return components, found.masks[kept]
