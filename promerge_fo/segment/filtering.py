"""Step 4: which foreground masks are kept (Sec. 3.3, Fig. 4; Tab. 4b; App. C)."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from promerge_fo.config import Filtering, ProMergeConfig
from promerge_fo.kernels import kernel
from promerge_fo.segment.bits import count_bits, pack, popcount
from promerge_fo.segment.prompting import UnitFeatures

__all__ = ["Verdict", "background_similarity", "filter_masks", "suppress"]


class Verdict(IntEnum):
    """The decision of filtering on a mask."""

    KEPT = 0
    NOTHING_NEW = 1  #: smaller masks that were kept cover it
    OVERLAPS_BACKGROUND = 2  #: too much of it (cascade: of its new patches) is background
    LIKE_BACKGROUND = 3  #: its features are too similar to the background's
    SUPPRESSED = 4  #: a larger mask that was kept overlaps it (NMS)


# Numba takes module-level integers as constants, but no enum members.
_KEPT = int(Verdict.KEPT)
_NOTHING_NEW = int(Verdict.NOTHING_NEW)
_OVERLAPS = int(Verdict.OVERLAPS_BACKGROUND)
_LIKE = int(Verdict.LIKE_BACKGROUND)
_SUPPRESSED = int(Verdict.SUPPRESSED)


def background_similarity(
    unit: UnitFeatures, masks: NDArray[np.bool_], background: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Dot product of each mask's mean feature with the background's.

    Args:
        unit: features of h * w patches.
        masks: (n, h, w) bool, none empty.
        background: (h, w) bool, not empty.

    Returns:
        (n,) float32 in [-1, 1].
    """
    flat = masks.reshape(len(masks), background.size)
    return np.asarray(_means(flat, unit.similarity_maps(background[None])[0]))


def filter_masks(
    masks: NDArray[np.bool_],
    background: NDArray[np.bool_] | None,
    similarity: NDArray[np.float32] | None,
    config: ProMergeConfig,
) -> NDArray[np.int8]:
    """Decide on every mask.

    Args:
        masks: (n, h, w) bool, none empty.
        background: (h, w) bool; None for the rules without a background step (nms, none).
        similarity: (n,) float32 of the masks to the background; None likewise.
        config: ``filtering``, ``tau_ioa_bg``, ``tau_f_bg``, ``nms_iou`` are used.

    Returns:
        (n,) int8 :class:`Verdict` values, in the order of the masks.
    """
    rule = config.filtering
    if rule is Filtering.NONE:
        return np.zeros(len(masks), dtype=np.int8)
    packed = pack(masks)
    areas = count_bits(packed)
    if rule is Filtering.NMS:
        order = np.argsort(-areas, kind="stable")
        return np.asarray(suppress(packed, areas, order, config.nms_iou))
    assert background is not None and similarity is not None
    verdicts = np.zeros(len(masks), dtype=np.int8)
    if rule is Filtering.FEATURE:
        verdicts[similarity > config.tau_f_bg] = _LIKE
        return verdicts
    voted = pack(background[None])[0]
    if rule is Filtering.IOA:
        overlap = count_bits(packed & voted) / np.maximum(areas, 1)
        verdicts[overlap > config.tau_ioa_bg] = _OVERLAPS
        return verdicts
    order = np.argsort(areas, kind="stable")
    return np.asarray(
        _cascade(packed, order, voted, similarity, config.tau_ioa_bg, config.tau_f_bg)
    )


@kernel(fastmath={"reassoc", "contract"})
def _means(masks, values):  # type: ignore[no-untyped-def]
    """(n,) float32: mean of (size,) values over each of (n, size) masks."""
    means = np.empty(masks.shape[0], dtype=np.float32)
    for i in range(masks.shape[0]):
        total = np.float32(0)
        area = 0
        for p in range(values.size):
            total += np.float32(masks[i, p]) * values[p]
            area += masks[i, p]
        means[i] = total / max(area, 1)
    return means


@kernel
def _cascade(packed, order, voted, similarity, tau_ioa, tau_f):  # type: ignore[no-untyped-def]
    """Small masks first; the ledger has the patches of all masks accepted so far."""
    verdicts = np.empty(packed.shape[0], dtype=np.int8)
    ledger = np.zeros(packed.shape[1], dtype=np.uint64)
    for i in order:
        new = np.int64(0)
        shared = np.int64(0)
        for k in range(packed.shape[1]):
            word = packed[i, k] & ~ledger[k]
            new += np.int64(popcount(word))
            shared += np.int64(popcount(word & voted[k]))
        if new == 0:
            verdicts[i] = _NOTHING_NEW
        elif not shared / new < tau_ioa:
            verdicts[i] = _OVERLAPS
        elif not similarity[i] < tau_f:
            verdicts[i] = _LIKE
        else:
            verdicts[i] = _KEPT
            for k in range(packed.shape[1]):
                ledger[k] |= packed[i, k]
    return verdicts


@kernel
def suppress(packed, areas, order, max_iou):  # type: ignore[no-untyped-def]
    """Non-maximum suppression of packed masks, in an order: (n,) int8 verdicts."""
    verdicts = np.empty(packed.shape[0], dtype=np.int8)
    kept = np.empty(packed.shape[0], dtype=np.int64)
    count = 0
    for i in order:
        verdicts[i] = _KEPT
        for j in kept[:count]:
            shared = np.int64(0)
            for k in range(packed.shape[1]):
                shared += np.int64(popcount(packed[i, k] & packed[j, k]))
            if shared > max_iou * (areas[i] + areas[j] - shared):
                verdicts[i] = _SUPPRESSED
                break
        if verdicts[i] == _KEPT:
            kept[count] = i
            count += 1
    return verdicts
