"""Step 2: which masks are background, and the background that they vote for (Sec. 3.3, Eq. 2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from promerge_fo.config import BackgroundVote

__all__ = ["is_background", "vote"]


def is_background(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Masks that hold more than half of the patches of more than one side of the image.

    Args:
        masks: (K, h, w) bool.

    Returns:
        (K,) bool.
    """
    h, w = masks.shape[1:]
    sides = (
        masks[:, 0].sum(axis=1) * 2 > w,
        masks[:, -1].sum(axis=1) * 2 > w,
        masks[:, :, 0].sum(axis=1) * 2 > h,
        masks[:, :, -1].sum(axis=1) * 2 > h,
    )
    return np.asarray(np.sum(sides, axis=0) > 1)


def vote(candidates: NDArray[np.bool_], rule: BackgroundVote) -> NDArray[np.bool_]:
    """One background out of the candidates.

    Args:
        candidates: (n, h, w) bool, n >= 1.
        rule: more than half of the candidates (Eq. 2), or any of them (Tab. 4a).

    Returns:
        (h, w) bool.
    """
    if rule is BackgroundVote.UNION:
        return np.asarray(candidates.any(axis=0))
    return np.asarray(candidates.sum(axis=0) * 2 > len(candidates))
