"""TokenCut and MaskCut: an image is cut in two where its patches are least alike.

TokenCut: Wang et al., "Self-Supervised Transformers for Unsupervised Object Discovery Using
Normalized Cut", CVPR 2022. MaskCut: Wang et al., "Cut and Learn for Unsupervised Object Detection
and Instance Segmentation" (CutLER), CVPR 2023, Sec. 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from promerge_fo.config import MaskCutConfig, Score, TokenCutConfig
from promerge_fo.instances import Instances
from promerge_fo.segment.eigenvector import Eigenvector, second_eigenvector
from promerge_fo.segment.lapack_sign import lapack_sign
from promerge_fo.segment.patch_graph import PatchGraph
from promerge_fo.segment.prompting import UnitFeatures
from promerge_fo.segment.scoring import cut_quality, patch_objectness

__all__ = ["Cut", "CutTrace", "Foreground", "corners", "foreground", "trace_cuts"]

TIE = 1e-7  #: entries this close to the largest, as a share of it, count as equal to it

Verdict = Literal["kept", "overlaps", "small", "no_cut"]
"""The decision on a cut: "kept"; rejected, because it overlaps the mask of the cut before or is too
small; or there was nothing to cut."""


@dataclass(frozen=True)
class Foreground:
    """One side of a cut, and its part that becomes a mask.

    Attributes:
        map: (h, w) float64: the eigenvector's distance from its mean, as a share of the largest
            distance; positive in the foreground.
        partition: (h, w) bool: the side of the cut that counts as foreground.
        seed: row and column of the foreground's strongest patch.
        component: (h, w) bool: the 4-connected component of the partition with the seed.
        swapped: whether the sides were exchanged, because the side of the strongest patch has too
            many of the image's corners.
    """

    map: NDArray[np.float64]
    partition: NDArray[np.bool_]
    seed: tuple[int, int]
    component: NDArray[np.bool_]
    swapped: bool


@dataclass(frozen=True)
class Cut:
    """The results of one cut.

    Attributes:
        eigenvector: the solution; None if there was nothing to cut.
        foreground: the side of the cut with the object; None likewise.
        mask: (h, w) bool: the patches of the foreground's component that no earlier mask has;
            empty if the cut was rejected.
        verdict: the decision on it.
    """

    eigenvector: Eigenvector | None
    foreground: Foreground | None
    mask: NDArray[np.bool_]
    verdict: Verdict


@dataclass(frozen=True)
class CutTrace:
    """The results of every cut on one image.

    Attributes:
        cuts: in their order; as many as the configuration says.
        instances: the result.
    """

    cuts: tuple[Cut, ...]
    instances: Instances


def trace_cuts(features: torch.Tensor, config: TokenCutConfig | MaskCutConfig) -> CutTrace:
    """TokenCut or MaskCut on patch features, with the results of every cut.

    MaskCut cuts several times, each time with the features of the masks found so far masked out.
    If the foreground has too many of the image's corners, the sides are exchanged (CutLER,
    Sec. 3.2; like the released code, only for one of the two signs of the eigenvector, see
    :mod:`~promerge_fo.segment.lapack_sign`). A cut after the first has no mask if its component
    overlaps that of the cut before (unless that was rejected itself), or is too small; nothing is
    masked out then.

    Args:
        features: (C, h, w) floating point, on any device.
        config: the parameters.

    Returns:
        The trace; its ``instances`` have one mask for each cut, in the order of the cuts. The mask
        of a rejected cut is empty, with the score 0.

    Raises:
        ValueError: features that are not finite.
    """
    unit = UnitFeatures(features, 0.0)
    graph = PatchGraph.of(unit, config.tau, config.eps)
    cuts = _cuts(graph, (features.shape[1], features.shape[2]), config)
    masks = np.stack([cut.mask for cut in cuts])
    found = np.flatnonzero(masks.any(axis=(1, 2)))
    scores = np.zeros(len(cuts), dtype=np.float32)
    if config.score is Score.CONSTANT:
        scores[found] = 1
    elif config.score is Score.OBJECTNESS:
        scores[found] = patch_objectness(unit, masks[found], None)
    elif len(found):
        maps = np.stack([front.map for k in found if (front := cuts[k].foreground)])
        scores[found] = cut_quality(unit, masks[found], maps)
    return CutTrace(tuple(cuts), Instances(masks, scores, "ok" if len(found) else "no_cut"))


def _cuts(
    graph: PatchGraph, grid: tuple[int, int], config: TokenCutConfig | MaskCutConfig
) -> list[Cut]:
    """One cut of TokenCut, or ``config.cuts`` of MaskCut."""
    nothing = np.zeros(grid, dtype=np.bool_)
    cuts: list[Cut] = []
    taken = nothing  # the patches of the masks so far
    before = nothing  # the component of the cut before, unless that was rejected
    vector = second_eigenvector(graph)
    for number in range(config.cuts if isinstance(config, MaskCutConfig) else 1):
        if before.any():
            taken = taken | before
            graph = graph.without(before.ravel())
            vector = second_eigenvector(graph)
        if vector is None:
            before = nothing
            cuts.append(Cut(None, None, nothing, "no_cut"))
            continue
        front = _front(vector, graph, grid, config)
        verdict: Verdict = "kept"
        if number > 0 and isinstance(config, MaskCutConfig):
            verdict = _judge(front.component, before, config)
        before = front.component if verdict == "kept" else nothing
        cuts.append(Cut(vector, front, before & ~taken, verdict))
    return cuts


def foreground(x: NDArray[np.float64], weaker_side: bool = False) -> Foreground:
    """The side of a cut that shows an object, and its part around the strongest patch.

    The cut runs along the mean of the eigenvector. The foreground is the side of the entry with
    the largest absolute value (TokenCut, Sec. 3).

    Args:
        x: (h, w) eigenvector of either sign; not constant.
        weaker_side: take the other side.
    """
    x = -x if x[_first_largest(np.abs(x))] < 0 else x
    partition = x > x.mean()
    if weaker_side:
        x, partition = -x, ~partition
    seed = _first_largest(x)
    labels, _ = ndimage.label(partition)
    component = labels == labels[seed]
    away = x - x.mean()
    return Foreground(away / np.abs(away).max(), partition, seed, component, weaker_side)


def _front(
    vector: Eigenvector,
    graph: PatchGraph,
    grid: tuple[int, int],
    config: TokenCutConfig | MaskCutConfig,
) -> Foreground:
    """The foreground of a cut, with its sides exchanged if MaskCut's rule of corners says so."""
    x = vector.x.reshape(grid)
    front = foreground(x)
    if isinstance(config, TokenCutConfig) or corners(front.partition) <= config.max_corners:
        return front
    # The released code counts the corners of the side above the mean, in the vector that LAPACK
    # returns. If the foreground is the other side, it is not exchanged.
    above = bool(x[front.seed] > x.mean())
    if above != (lapack_sign(graph, vector.x) == 1):
        return front
    return foreground(x, weaker_side=True)


def corners(partition: NDArray[np.bool_]) -> int:
    """The number of the image's four corners in a side of a cut."""
    return int(partition[[0, 0, -1, -1], [0, -1, 0, -1]].sum())


def _first_largest(values: NDArray[np.float64]) -> tuple[int, int]:
    """Row and column of the largest value; the first one if several are equal up to rounding."""
    largest = values.max()
    row, column = divmod(int((values >= largest - TIE * abs(largest)).argmax()), values.shape[1])
    return row, column


def _judge(
    component: NDArray[np.bool_], before: NDArray[np.bool_], config: MaskCutConfig
) -> Verdict:
    common, either = (component & before).sum(), (component | before).sum()
    if common > config.max_overlap * either:
        return "overlaps"
    return "small" if component.sum() <= config.min_area * component.size else "kept"
