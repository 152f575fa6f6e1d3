"""TokenCut and MaskCut: an image is cut in two where its patches hang together least.

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
from promerge_fo.segment.patch_graph import PatchGraph
from promerge_fo.segment.prompting import UnitFeatures
from promerge_fo.segment.scoring import cut_quality

__all__ = ["Cut", "CutTrace", "Foreground", "foreground", "trace_cuts"]

TIE = 1e-7  #: part of the largest entry within which others count as equal to it

Verdict = Literal["kept", "overlaps", "small", "no_cut"]
"""What became of a cut: "kept"; rejected, because it overlaps the mask of the cut before or is too
small; or there was nothing to cut."""


@dataclass(frozen=True)
class Foreground:
    """One side of a cut, and its part that becomes a mask.

    Attributes:
        map: (h, w) float64: the eigenvector's distance from its mean, as a share of the largest
            distance; positive in the foreground.
        partition: (h, w) bool: the side of the cut that is taken for the foreground.
        seed: row and column of the foreground's strongest patch.
        component: (h, w) bool: the patches that hang together with the seed (4-connected).
        swapped: whether the foreground holds another side's strongest patch, because that side
            held too many of the image's corners.
    """

    map: NDArray[np.float64]
    partition: NDArray[np.bool_]
    seed: tuple[int, int]
    component: NDArray[np.bool_]
    swapped: bool


@dataclass(frozen=True)
class Cut:
    """What one cut did.

    Attributes:
        eigenvector: the solution; None where there was nothing to cut.
        foreground: what was made of it; None likewise.
        mask: (h, w) bool: the patches of the component that no earlier mask has; empty if the cut
            was rejected.
        verdict: what became of it.
    """

    eigenvector: Eigenvector | None
    foreground: Foreground | None
    mask: NDArray[np.bool_]
    verdict: Verdict


@dataclass(frozen=True)
class CutTrace:
    """What every cut made of an image.

    Attributes:
        cuts: in their order; as many as the configuration wants.
        instances: the outcome.
    """

    cuts: tuple[Cut, ...]
    instances: Instances


def trace_cuts(features: torch.Tensor, config: TokenCutConfig | MaskCutConfig) -> CutTrace:
    """TokenCut or MaskCut on patch features, with what every cut did.

    MaskCut cuts again and again, each time with the features of the masks found so far masked
    out. A cut after the first has no mask if its component overlaps that of the cut before
    (unless that was rejected itself), or is too small; nothing is masked out then.

    Args:
        features: (C, h, w) floating point, on any device.
        config: the parameters.

    Returns:
        The trace; its ``instances`` have one mask a cut, in their order. The mask of a cut that
        was rejected is empty, with the score 0.

    Raises:
        ValueError: features that are not finite.
    """
    grid = (features.shape[1], features.shape[2])
    unit = UnitFeatures(features, 0.0)
    graph = PatchGraph.of(unit, config.tau, config.eps)
    several = isinstance(config, MaskCutConfig)
    cuts: list[Cut] = []
    taken = np.zeros(grid, dtype=np.bool_)  # by the masks so far
    before = np.zeros(grid, dtype=np.bool_)  # the component of the cut before
    vector: Eigenvector | None = None
    for number in range(config.cuts if several else 1):
        if number == 0 or before.any():
            vector = second_eigenvector(graph)
        if vector is None:
            cuts.append(Cut(None, None, np.zeros(grid, dtype=np.bool_), "no_cut"))
            before = np.zeros(grid, dtype=np.bool_)
            continue
        front = foreground(vector.x.reshape(grid), config.max_corners if several else 4)
        verdict: Verdict = "kept"
        if several and number > 0:
            verdict = _judge(front.component, before, config)
        before = front.component if verdict == "kept" else np.zeros(grid, dtype=np.bool_)
        cuts.append(Cut(vector, front, before & ~taken, verdict))
        if before.any():
            taken |= before
            graph = graph.without(before.ravel())
    masks = np.stack([cut.mask for cut in cuts])
    some = masks.any(axis=(1, 2))
    scores = some.astype(np.float32)
    if config.score is not Score.CONSTANT and some.any():
        maps = np.stack([cut.foreground.map for cut in cuts if cut.foreground and cut.mask.any()])
        scores[some] = cut_quality(unit, masks[some], maps)
    return CutTrace(tuple(cuts), Instances(masks, scores, "ok" if some.any() else "no_cut"))


def foreground(x: NDArray[np.float64], max_corners: int) -> Foreground:
    """The side of a cut that shows an object, and its part around the strongest patch.

    The cut runs along the mean of the eigenvector. The foreground is the side of the entry with
    the largest absolute value (TokenCut, Sec. 3.2); but where that side holds more than
    ``max_corners`` of the image's corners, it is the other side (CutLER, Sec. 3.2).

    Args:
        x: (h, w) eigenvector of any sign; not constant.
        max_corners: 4 to choose without a look at the corners.
    """
    strongest = np.unravel_index(_first_largest(np.abs(x)), x.shape)
    x = -x if x[strongest] < 0 else x
    partition = x > x.mean()
    swapped = int(partition[[0, 0, -1, -1], [0, -1, 0, -1]].sum()) > max_corners
    if swapped:
        x, partition = -x, ~partition
    row, column = np.unravel_index(_first_largest(x), x.shape)
    labels, _ = ndimage.label(partition)
    component = labels == labels[row, column]
    away = x - x.mean()
    return Foreground(
        away / np.abs(away).max(), partition, (int(row), int(column)), component, swapped
    )


def _first_largest(values: NDArray[np.float64]) -> int:
    """Of values that are largest but for rounding, the first in raster order."""
    largest = values.max()
    return int((values >= largest - TIE * abs(largest)).argmax())


def _judge(
    component: NDArray[np.bool_], before: NDArray[np.bool_], config: MaskCutConfig
) -> Verdict:
    common, either = (component & before).sum(), (component | before).sum()
    if common > config.max_overlap * either:
        return "overlaps"
    return "small" if component.sum() <= config.min_area * component.size else "kept"
