"""The results of the stages: masks of one image, before and after refinement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from promerge_fo.config import Status

if TYPE_CHECKING:
    import torch

__all__ = [
    "Crop",
    "Instances",
    "Refined",
    "crops_of",
    "mask_areas",
    "mask_boxes",
    "mean_features",
]


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
        means: (n, C) float32, of :func:`mean_features`; None unless the pipeline embeds masks.
    """

    masks: NDArray[np.bool_]
    scores: NDArray[np.float32]
    status: Status = "ok"
    background: NDArray[np.bool_] | None = None
    error: str | None = None
    levels: NDArray[np.int64] | None = None
    parents: NDArray[np.int64] | None = None
    means: NDArray[np.float32] | None = None

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
        return mask_areas(self.masks)


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


def mask_areas(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n,) int64: the set pixels of each of (n, h, w) bool masks."""
    # NumPy counts one array many times faster than along axes.
    return np.array([np.count_nonzero(mask) for mask in masks], dtype=np.int64)


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


class Crop(NamedTuple):
    """A part of an image that contains a whole mask.

    Attributes:
        mask: (h, w) bool.
        top: its first row in the image.
        left: its first column in the image.
    """

    mask: NDArray[np.bool_]
    top: int
    left: int


def crops_of(masks: NDArray[np.bool_], boxes: NDArray[np.int64]) -> list[Crop]:
    """Masks (n, H, W) cut to their boxes (n, 4) ``x0, y0, x1, y1``."""
    found = zip(masks, boxes.tolist(), strict=True)
    return [Crop(mask[y0:y1, x0:x1], y0, x0) for mask, (x0, y0, x1, y1) in found]


def mean_features(
    features: torch.Tensor, crops: Sequence[Crop], size: tuple[int, int]
) -> NDArray[np.float32]:
    """The mean feature of each mask, each patch weighted by the pixels that the mask has of it.

    A pixel on the border of two patches counts for both, by its share of each.

    Args:
        features: (C, h, w), on any device: the whole image in patches.
        crops: the masks, in pixels of the image.
        size: (height, width) of the image in pixels.

    Returns:
        (n, C) float32; NaN for a mask without a pixel, or where features are not finite.

    Examples:
        >>> import torch
        >>> features = torch.tensor([[[0.0, 4.0]]])  # one channel, two patches side by side
        >>> mean_features(features, [Crop(np.ones((1, 2), bool), 0, 1)], (1, 4))
        array([[2.]], dtype=float32)
    """
    import torch

    channels, h, w = features.shape
    weights = torch.zeros((len(crops), h, w))
    for weight, (mask, top, left) in zip(weights, crops, strict=True):
        if mask.size:
            first, rows = _shares(top, mask.shape[0], size[0], h)
            begin, columns = _shares(left, mask.shape[1], size[1], w)
            # torch's products, not NumPy's, keep to the threads that a pipeline gives each worker
            pixels = torch.from_numpy(mask.astype(np.float32))
            part = torch.from_numpy(rows) @ pixels @ torch.from_numpy(columns).T
            weight[first : first + len(rows), begin : begin + len(columns)] = part
    flat = weights.reshape(len(crops), h * w).to(features.device)
    totals = flat.sum(dim=1, keepdim=True)
    means: NDArray[np.float32] = (flat @ features.reshape(channels, -1).T / totals).cpu().numpy()
    means[~np.isfinite(means).all(axis=1)] = np.nan
    return means


def _shares(start: int, count: int, pixels: int, patches: int) -> tuple[int, NDArray[np.float32]]:
    """The first patch that some pixels touch, and (k, count) the share of each in each patch.

    Args:
        start: the first of the pixels.
        count: of the pixels.
        pixels: of the whole image, along this side.
        patches: of the whole image, along this side.
    """
    first = start * patches // pixels
    last = -(-(start + count) * patches // pixels)
    edges = np.arange(first, last + 1)[:, None] * (pixels / patches)
    at = start + np.arange(count)
    shares = np.minimum(at + 1, edges[1:]) - np.maximum(at, edges[:-1])
    return first, shares.clip(0).astype(np.float32)
