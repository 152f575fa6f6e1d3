"""Copy-paste: objects of one image, pasted into another.

After Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance
Segmentation" (CVPR 2021): a random subset of an image's objects is put into another image, whose
labels lose the pixels that are covered; a label that is covered wholly is removed. As in CutLER,
the objects are made smaller first, so that small objects are learned from large masks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from promerge_fo.instances import mask_boxes

__all__ = ["copy_paste"]


def copy_paste(
    image: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    source: NDArray[np.uint8],
    source_masks: NDArray[np.bool_],
    rng: np.random.Generator,
    scale: tuple[float, float] = (0.3, 1.0),
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.int64]]:
    """An image with objects of another pasted into it.

    Each object of the source is taken with probability 1/2, and at least one of them. Each is
    scaled by a random factor, uniform in ``scale`` but no larger than fits, and put at a random
    place, uniform among those where its box lies wholly in the image. Objects cover those pasted
    before.

    Args:
        image: (H, W, 3) uint8; stays as it is.
        masks: (n, H, W) bool, its labels.
        source: (h, w, 3) uint8.
        source_masks: (m, h, w) bool, the source's labels, each with at least one pixel.
        rng: draws all random numbers.
        scale: the smallest and largest factor.

    Returns:
        The new image (H, W, 3) uint8; (k, H, W) bool masks: what is still to be seen of the
        image's own objects, in their order, then of those pasted; no two of these overlap. Masks of
        no pixel are left out. And (k,) int64, where each came from: the index of the image's own
        mask, or n plus that of the source's.
    """
    if len(source_masks) == 0:
        return image, masks, np.arange(len(masks))
    chosen = np.flatnonzero(rng.random(len(source_masks)) < 0.5)
    if len(chosen) == 0:
        chosen = rng.integers(len(source_masks), size=1)
    height, width = image.shape[:2]
    pasted = image.copy()
    owner = np.full((height, width), -1, dtype=np.int32)  # which pasted object a pixel shows
    boxes = mask_boxes(source_masks)
    # The objects differ in size, and cover one another in turn: one after the other.
    for place, k in enumerate(chosen):
        x0, y0, x1, y1 = boxes[k]
        factor = min(rng.uniform(*scale), width / (x1 - x0), height / (y1 - y0))
        size = max(1, int((x1 - x0) * factor)), max(1, int((y1 - y0) * factor))
        crop = Image.fromarray(source[y0:y1, x0:x1]).resize(size, Image.Resampling.BILINEAR)
        shape = Image.fromarray(source_masks[k, y0:y1, x0:x1]).resize(
            size, Image.Resampling.NEAREST
        )
        visible = np.asarray(shape, dtype=np.bool_)
        left = int(rng.integers(width - size[0] + 1))
        top = int(rng.integers(height - size[1] + 1))
        window = np.s_[top : top + size[1], left : left + size[0]]
        pasted[window][visible] = np.asarray(crop)[visible]
        owner[window][visible] = place
    seen = np.concatenate([masks & (owner < 0), owner == np.arange(len(chosen))[:, None, None]])
    origins = np.concatenate([np.arange(len(masks)), len(masks) + chosen])
    kept = seen.any(axis=(1, 2))
    return pasted, seen[kept], origins[kept]
