"""The results of the stages: masks of one image, before and after refinement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from promerge_fo.config import Status

__all__ = ["Instances", "Refined", "mask_boxes"]


@dataclass(frozen=True)
class Instances:
    """The instance masks of one image, in patches or in pixels.

    Attributes:
        masks: (n, h, w) bool. From ``segment_features``: in patches, largest first; for MaskCut
            and TokenCut one for each cut, in the order of the cuts, empty if a cut gave none.
            From the pipeline: in pixels of the image with its EXIF orientation applied, none
            empty.
        scores: (n,) float32 in [0, 1]; higher is better.
        status: "ok", or the step after which no mask was left: "no_background",
            "background_too_small", "all_filtered", "no_cut", "all_rejected"; or "failed".
        background: (h, w) bool: patches of the voted background; None if the configuration has
            no background step, or the image no background.
        error: the reason for the status "failed"; else None.
        levels: (n,) int64: the level of similarity of each mask, from 1 (merged) to the strictest;
            None unless the configuration has proposals.
        parents: (n,) int64: the index of the smallest mask in which each mask lies, or -1; None
            unless the configuration has proposals.
    """

    masks: NDArray[np.bool_]
    scores: NDArray[np.float32]
    status: Status = "ok"
    background: NDArray[np.bool_] | None = None
    error: str | None = None
    levels: NDArray[np.int64] | None = None
    parents: NDArray[np.int64] | None = None

    @classmethod
    def failed(cls, error: str, size: tuple[int, int] = (0, 0)) -> Instances:
        """No masks, for a reason, for an image of ``size`` (height, width), if that is known."""
        masks = np.zeros((0, *size), dtype=np.bool_)
        return cls(masks, np.zeros(0, dtype=np.float32), "failed", error=error)

    def __len__(self) -> int:
        return len(self.masks)

    @property
    def boxes(self) -> NDArray[np.int64]:
        """(n, 4) int64 boxes ``x0, y0, x1, y1``, the last two exclusive; zeros for empty masks."""
        return mask_boxes(self.masks)

    @property
    def areas(self) -> NDArray[np.int64]:
        """(n,) int64: set pixels of each mask."""
        return np.asarray(self.masks.sum(axis=(1, 2)), dtype=np.int64)


@dataclass(frozen=True)
class Refined:
    """Pixel masks of one image.

    Attributes:
        masks: (m, H, W) bool, at the image's own size.
        kept: (m,) int64, ascending: the indices of these masks before refinement. The others
            were empty, or had changed too much (``min_refined_iou``).
        agreement: (m,) float32 in [0, 1]: IoU of each mask before and after refinement.
    """

    masks: NDArray[np.bool_]
    kept: NDArray[np.int64]
    agreement: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.masks)


def mask_boxes(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Tight boxes around masks.

    Args:
        masks: (n, h, w) bool.

    Returns:
        (n, 4) int64 ``x0, y0, x1, y1`` in pixels, the last two exclusive; zeros for empty masks.

    Examples:
        >>> mask = np.zeros((1, 4, 6), dtype=bool)
        >>> mask[0, 1:3, 2:5] = True
        >>> mask_boxes(mask)
        array([[2, 1, 5, 3]])
    """
    n, h, w = masks.shape
    if masks.size == 0:
        return np.zeros((n, 4), dtype=np.int64)
    rows: NDArray[np.bool_] = np.asarray(masks.any(axis=2))
    columns: NDArray[np.bool_] = np.asarray(masks.any(axis=1))
    boxes = np.stack(
        [
            columns.argmax(axis=1),
            rows.argmax(axis=1),
            w - columns[:, ::-1].argmax(axis=1),
            h - rows[:, ::-1].argmax(axis=1),
        ],
        axis=1,
    )
    boxes[~rows.any(axis=1)] = 0
    return np.asarray(boxes, dtype=np.int64).reshape(n, 4)
