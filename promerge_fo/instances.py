"""The records that the stages hand on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from promerge_fo.config import Status

__all__ = ["Instances", "Refined", "mask_boxes"]


@dataclass(frozen=True)
class Instances:
    """The instance masks of one image, at whatever resolution its stage works.

    Attributes:
        masks: (n, h, w) bool. From ``segment_features``: patches, largest first; of MaskCut and
            TokenCut one a cut, in their order, empty where a cut gave none. From the pipeline:
            pixels of the image as it is shown (EXIF orientation applied), none empty.
        scores: (n,) float32 in [0, 1]; higher is better.
        status: "ok", or the step after which no mask was left: "no_background",
            "background_too_small", "all_filtered", "no_cut", "all_rejected"; or "failed".
        background: (h, w) bool patches of the voted background, or None where the
            configuration has no background step or the image gave none.
        error: what went wrong with an image whose status is "failed", else None.
    """

    masks: NDArray[np.bool_]
    scores: NDArray[np.float32]
    status: Status = "ok"
    background: NDArray[np.bool_] | None = None
    error: str | None = None

    @classmethod
    def failed(cls, error: str, size: tuple[int, int] = (0, 0)) -> Instances:
        """No masks, for an image of ``size`` (height, width) where known, and why."""
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
        kept: (m,) int64 indices into the masks that went in, ascending; the others agreed too
            little with what refinement made of them (``min_refined_iou``).
        agreement: (m,) float32 in [0, 1]: IoU of the mask before and after refinement.
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
