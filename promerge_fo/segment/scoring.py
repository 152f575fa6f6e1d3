"""The confidence of masks, which ranks them without labels.

The paper and the released code give every mask the score 1, so that precision depends on an
arbitrary order. Here a mask's quality is the geometric mean of three shares, each in [0, 1]:

- *stability*: with S the highest affinity of any prompt that went into the mask, the patches of
  the mask with S > tau_b + delta, divided by the patches of the mask and of the ring of patches
  around it with S > tau_b - delta. An outline that moves with a small change of the threshold is
  doubtful. (The idea is segment-anything's stability score, for masks of several prompts.)
- *contrast*: (|m| - m . b) / 2, with m the mean of the mask's features (each of unit length) and b
  the direction of the background's mean: how much more similar its patches are to each other than
  to the background. It is lower for a mask that covers several objects.
- *agreement*: the IoU of the mask before and after refinement; known only after refinement.

That is the score "quality". The score "objectness" has two other shares in place of stability,
which tells little of how well a mask fits an object:

- *size*: 1 - exp(-a / 0.1), with a the mask's share of the image.
- *edge*: as contrast, with the ring of two patches around the mask in place of the background. It
  is low for a mask that stops in the middle of an object.

After refinement, each score is multiplied by the *rest*: 1 - exp(-((1 - a) / 0.03)^2), with a the
share of the image that the refined mask covers. What covers nearly all of an image, such as one of
pure noise, is hardly an object.

For MaskCut and TokenCut, S is the eigenvector's distance from its mean, as a share of the largest
distance, and the threshold is 0 in place of tau_b; b is the mean outside the mask.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from promerge_fo.segment.prompting import Prompts, UnitFeatures

__all__ = [
    "DELTA",
    "REST",
    "RING",
    "SIZE",
    "after_refinement",
    "cut_quality",
    "patch_objectness",
    "patch_quality",
]

DELTA = 0.05  #: half the distance between the two thresholds of the stability
SIZE = 0.1  #: share of the image at which the size of a mask is 1 - 1/e
REST = 0.03  #: share of the image outside a mask at which 1 - 1/e of its score is left
RING = 2  #: patches around a mask that its edge is compared with


def patch_quality(
    unit: UnitFeatures,
    masks: NDArray[np.bool_],
    background: NDArray[np.bool_] | None,
    prompts: Prompts,
    prompt: NDArray[np.int64],
    cluster: NDArray[np.int64],
    tau_b: float,
) -> NDArray[np.float32]:
    """sqrt(stability x contrast) of merged masks.

    Args:
        unit: features of h * w patches.
        masks: (n, h, w) bool merged masks.
        background: (h, w) bool; None compares each mask with its outside.
        prompts: the prompts of the image.
        prompt: (m,) the prompt of each mask that was merged.
        cluster: (m,) the merged mask that it is a part of; each of the n occurs.
        tau_b: the threshold on affinities.

    Returns:
        (n,) float32 in [0, 1].
    """
    if len(masks) == 0:
        return np.zeros(0, dtype=np.float32)
    order = np.argsort(cluster, kind="stable")
    starts = np.searchsorted(cluster[order], np.arange(len(masks)))
    strongest = np.maximum.reduceat(prompts.affinities[prompt[order]], starts, axis=0)
    stability = _stability(masks, strongest.reshape(masks.shape), tau_b)
    return np.sqrt(stability * _contrast(unit, masks, _others(masks, background))).astype(
        np.float32
    )


def patch_objectness(
    unit: UnitFeatures, masks: NDArray[np.bool_], background: NDArray[np.bool_] | None
) -> NDArray[np.float32]:
    """The geometric mean of size, contrast and edge of masks.

    Args:
        unit: features of h * w patches.
        masks: (n, h, w) bool.
        background: (h, w) bool; None compares each mask with its outside.

    Returns:
        (n,) float32 in [0, 1].
    """
    if len(masks) == 0:
        return np.zeros(0, dtype=np.float32)
    size = 1 - np.exp(-masks.mean(axis=(1, 2)) / SIZE)
    around = masks
    for _ in range(RING):
        around = _ringed(around)
    edge = _contrast(unit, masks, around & ~masks)
    score = np.cbrt(size * edge * _contrast(unit, masks, _others(masks, background)))
    return np.asarray(score, dtype=np.float32)


def cut_quality(
    unit: UnitFeatures, masks: NDArray[np.bool_], maps: NDArray[np.float64]
) -> NDArray[np.float32]:
    """sqrt(stability x contrast) of the masks of cuts.

    Args:
        unit: features of h * w patches.
        masks: (n, h, w) bool, none empty.
        maps: (n, h, w) the eigenvector's distance from its mean, as a share of the largest
            distance, positive in the foreground.

    Returns:
        (n,) float32 in [0, 1].
    """
    stability = _stability(masks, maps, 0.0)
    return np.sqrt(stability * _contrast(unit, masks, ~masks)).astype(np.float32)


def after_refinement(
    quality: NDArray[np.float32], agreement: NDArray[np.float32], area: NDArray[np.floating[Any]]
) -> NDArray[np.float32]:
    """The geometric mean of all shares, times the rest of the image.

    Args:
        quality: (n,) from :func:`patch_quality`, :func:`patch_objectness` or :func:`cut_quality`.
        agreement: (n,) IoU before and after refinement.
        area: (n,) share of the image that the refined mask covers, in [0, 1].

    Returns:
        (n,) float32 in [0, 1].
    """
    rest = 1 - np.exp(-(((1 - area) / REST) ** 2))
    score = rest * np.cbrt(quality.astype(np.float64) ** 2 * agreement)
    return np.asarray(score, dtype=np.float32)


def _stability(
    masks: NDArray[np.bool_], strongest: NDArray[np.floating[Any]], threshold: float
) -> NDArray[np.float64]:
    """(n,) for masks (n, h, w) of patches with ``strongest`` (n, h, w) over the threshold."""
    sure = (masks & (strongest > threshold + DELTA)).sum(axis=(1, 2))
    possible = (_ringed(masks) & (strongest > threshold - DELTA)).sum(axis=(1, 2))
    return np.asarray(sure / np.maximum(possible, 1))


def _ringed(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(n, h, w) masks and the patches that touch them."""
    ringed = masks.copy()
    ringed[:, 1:] |= masks[:, :-1]
    ringed[:, :-1] |= masks[:, 1:]
    ringed[:, :, 1:] |= masks[:, :, :-1]
    ringed[:, :, :-1] |= masks[:, :, 1:]
    return ringed


def _others(masks: NDArray[np.bool_], background: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """(1, h, w) the background, or (n, h, w) the outside of each mask."""
    return ~masks if background is None else background[None]


def _contrast(
    unit: UnitFeatures, masks: NDArray[np.bool_], others: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """(n,): how much more alike the patches of each of (n, h, w) masks are than they are to others.

    ``others`` (n or 1, h, w): what each mask is compared with, or all of them.
    """
    means = unit.means(np.concatenate([masks, others])).cpu().numpy().astype(np.float64)
    inside, outside = means[: len(masks)], means[len(masks) :]
    lengths = np.linalg.norm(outside, axis=1, keepdims=True)
    directions = outside / np.maximum(lengths, np.finfo(np.float32).tiny)
    alike = np.linalg.norm(inside, axis=1) - (inside * directions).sum(axis=1)
    return np.asarray(np.clip(alike / 2, 0, 1))
