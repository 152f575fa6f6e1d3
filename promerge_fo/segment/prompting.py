"""Step 1: patch features to one binary mask for each prompt (Sec. 3.2, Eq. 1; App. C)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from promerge_fo.config import ProMergeConfig, Prompting
from promerge_fo.kernels import kernel

__all__ = ["Prompts", "UnitFeatures", "load_finch", "prompt_masks"]

ITERATIONS = 3  #: shifts of a prompt in iterative prompting (App. C)
BLOCK = 512  #: patches whose cosines with others are calculated together
ATTENTION_SHARE = 0.05  #: share of the patches that attention prompting takes (App. C)


@dataclass(frozen=True)
class Prompts:
    """The prompts of one image and their masks.

    Attributes:
        positions: (K,) int64 indices of the prompt patches in the flattened grid, ascending
            except in iterative prompting.
        affinities: (K, h * w) float32 cosines of each prompt with every patch.
        masks: (K, h, w) bool: affinity over ``tau_b``.
    """

    positions: NDArray[np.int64]
    affinities: NDArray[np.float32]
    masks: NDArray[np.bool_]


class UnitFeatures:
    """Patch features F of (about) unit length, which are not stored.

    The features are the largest array of the method. Instead of their millions of values, the few
    thousand values that are multiplied with them, and the products, are scaled.

    Args:
        features: (C, h, w) floating point, on any device.
        eps: added to each norm before the division; with 0, zero features stay zero.

    Raises:
        ValueError: a feature is NaN or infinite.
    """

    def __init__(self, features: torch.Tensor, eps: float) -> None:
        self._raw = features.detach().to(torch.float32).reshape(features.shape[0], -1)
        if self._raw.is_cpu:
            norms = torch.from_numpy(_norms(self._raw.numpy()))
        else:
            norms = torch.linalg.vector_norm(self._raw, dim=0)
        if not bool(torch.isfinite(norms).all()):
            bad = int((~torch.isfinite(norms)).sum())
            raise ValueError(
                f"the features of {bad} of {norms.numel()} patches are NaN, infinite or overflow "
                "when squared; finite features are wanted (with half precision, try "
                "precision='fp32')"
            )
        self._scale = 1 / (norms + eps).clamp_min(torch.finfo(torch.float32).tiny)

    def affinities(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """(K, h * w) float32: dot products of the patches at (K,) positions with all patches."""
        at = torch.from_numpy(positions).to(self._raw.device)
        prompts = self._raw[:, at] * self._scale[at]
        return self._similarity(prompts.T)

    def rows(self) -> NDArray[np.float32]:
        """(h * w, C) float32: the unit features of each patch."""
        return (self._raw * self._scale).T.cpu().numpy()

    def means(self, masks: NDArray[np.bool_]) -> torch.Tensor:
        """(n, C) float32 on the features' device: mean feature of each of (n, h, w) masks."""
        flat = masks.reshape(len(masks), self._raw.shape[1])
        inside = torch.from_numpy(flat).to(self._raw.device, torch.float32)
        areas = inside.sum(dim=1, keepdim=True).clamp_min(1)
        means: torch.Tensor = (inside * self._scale) @ self._raw.T / areas
        return means

    def similarity_maps(self, masks: NDArray[np.bool_]) -> NDArray[np.float32]:
        """(n, h * w) float32: every patch's dot product with each mask's mean feature.

        The mean of such a map over another mask is the dot product of the two means: one map for
        each mask serves all comparisons.
        """
        return self._similarity(self.means(masks))

    def alike(self, tau: float) -> torch.Tensor:
        """(h * w, h * w) bool on the features' device, symmetric: pairs with a cosine over tau.

        Most of the products below the diagonal are copied from above it.
        """
        size = self._raw.shape[1]
        alike = torch.empty((size, size), dtype=torch.bool, device=self._raw.device)
        for first in range(0, size, BLOCK):
            last = min(first + BLOCK, size)
            rows = (self._raw[:, first:last] * self._scale[first:last]).T
            over = torch.mm(rows, self._raw[:, first:]).mul_(self._scale[first:]) > tau
            own = torch.triu(over[:, : last - first])  # rounding may differ below the diagonal
            over[:, : last - first] = own | own.T
            alike[first:last, first:] = over
            alike[last:, first:last] = over[:, last - first :].T
        return alike

    def _similarity(self, vectors: torch.Tensor) -> NDArray[np.float32]:
        return torch.mm(vectors, self._raw).mul_(self._scale).cpu().numpy()


@kernel
def _norms(features):  # type: ignore[no-untyped-def]
    """(size,) float32 norms of the columns of (C, size) features, in one pass without a copy.

    Squares of 32 channels are summed in float32, and these sums in float64.
    """
    squares = np.zeros(features.shape[1], dtype=np.float64)
    some = np.empty(features.shape[1], dtype=np.float32)
    for first in range(0, features.shape[0], 32):
        some[:] = 0
        for c in range(first, min(first + 32, features.shape[0])):
            for p in range(some.size):
                some[p] += features[c, p] * features[c, p]
        for p in range(some.size):
            squares[p] += some[p]
    return np.sqrt(squares).astype(np.float32)


def prompt_masks(
    unit: UnitFeatures,
    grid: tuple[int, int],
    config: ProMergeConfig,
    prompt_scores: NDArray[np.float32] | None = None,
) -> Prompts:
    """One mask for each prompt, by one matrix product.

    Args:
        unit: features of h * w patches.
        grid: (h, w).
        config: ``prompting``, ``stride``, ``seed`` and ``tau_b`` are used.
        prompt_scores: (h, w): attention of the class token to each patch, for attention
            prompting.

    Returns:
        The prompts in raster order (iterative prompting: of the grid that they started from).

    Raises:
        ImportError: attentive prompting without the package ``finch-clust``.
    """
    positions = _positions(unit, grid, config, prompt_scores)
    affinities = unit.affinities(positions)
    if config.prompting is Prompting.ITERATIVE:
        for _ in range(ITERATIONS):
            positions = _centres(affinities > config.tau_b, positions, grid)
            affinities = unit.affinities(positions)
    masks = (affinities > config.tau_b).reshape(-1, *grid)
    return Prompts(positions, affinities, masks)


def _positions(
    unit: UnitFeatures,
    grid: tuple[int, int],
    config: ProMergeConfig,
    scores: NDArray[np.float32] | None,
) -> NDArray[np.int64]:
    patches = np.arange(grid[0] * grid[1], dtype=np.int64)
    on_grid = patches.reshape(grid)[:: config.stride, :: config.stride].ravel()
    if config.prompting is Prompting.RANDOM:
        drawn = np.random.default_rng(config.seed).choice(patches, len(on_grid), replace=False)
        return np.sort(drawn)
    if config.prompting is Prompting.ATTENTIVE:
        return _typical_patches(unit, grid, len(on_grid))
    if config.prompting is Prompting.ATTENTION:
        if scores is None:
            raise ValueError(
                "prompting='attention' wants prompt_scores, an (h, w) array with the attention of "
                "the class token to each patch; none was given. Encoders with a class token give "
                "it together with the features; otherwise choose another prompting"
            )
        scores = np.asarray(scores, dtype=np.float32)
        if scores.shape != grid or not np.isfinite(scores).all():
            raise ValueError(
                f"prompt_scores must be finite and of the features' grid {grid}, "
                f"got shape {scores.shape}"
            )
        share = int(np.ceil(ATTENTION_SHARE * len(patches)))
        return np.sort(np.argsort(-scores.ravel(), kind="stable")[:share])
    return on_grid


def _centres(
    masks: NDArray[np.bool_], positions: NDArray[np.int64], grid: tuple[int, int]
) -> NDArray[np.int64]:
    """The patch nearest the centre of each mask; a prompt with an empty mask stays."""
    rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    areas = masks.sum(axis=1)
    weights = masks.astype(np.float64)
    area = np.maximum(areas, 1)
    centre_rows = np.rint(weights @ rows / area).astype(np.int64)
    centre_columns = np.rint(weights @ columns / area).astype(np.int64)
    return np.where(areas > 0, centre_rows * grid[1] + centre_columns, positions)


def _typical_patches(unit: UnitFeatures, grid: tuple[int, int], most: int) -> NDArray[np.int64]:
    """For each cluster of patches, the patch that is most like the cluster's mean.

    FINCH (Sarfraz et al., CVPR 2019) joins each patch with its nearest neighbour, then the means of
    the clusters likewise, until one is left: a hierarchy without parameters. The paper does not say
    which of its levels it takes; here it is the finest with no more clusters than the grid has
    prompts, or the coarsest if all have more.
    """
    patches = grid[0] * grid[1]
    if patches == 1:
        return np.zeros(1, dtype=np.int64)
    levels, counts, _ = load_finch()(
        unit.rows(), distance="cosine", ensure_early_exit=False, ann_threshold=patches
    )
    level = next((i for i, count in enumerate(counts) if count <= most), len(counts) - 1)
    clusters = np.arange(counts[level])[:, None] == levels[:, level]
    likeness = unit.similarity_maps(clusters.reshape(-1, *grid))
    return np.sort(np.where(clusters, likeness, -np.inf).argmax(axis=1))


def load_finch() -> Callable[..., Any]:
    """The function ``FINCH`` of the package ``finch-clust``.

    Raises:
        ImportError: it is not installed.
    """
    try:
        with warnings.catch_warnings():  # about a package for more points than images have
            warnings.simplefilter("ignore")
            from finch import FINCH
    except ImportError as error:
        raise ImportError(
            f"prompting='attentive' clusters patches with the package finch-clust, which cannot be "
            f"imported ({error}); pip install finch-clust, or choose another prompting"
        ) from error
    finch: Callable[..., Any] = FINCH
    return finch
