"""Step 1: patch features to one binary mask a prompt (Sec. 3.2, Eq. 1; App. C)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from promerge_fo.config import ProMergeConfig, Prompting

__all__ = ["Prompts", "normalise", "prompt_masks"]

ITERATIONS = 3  #: shifts of a prompt in iterative prompting (App. C)
ATTENTION_SHARE = 0.05  #: share of the patches that attention prompting takes (App. C)


@dataclass(frozen=True)
class Prompts:
    """The prompts of one image and what they select.

    Attributes:
        positions: (K,) int64 indices of the prompt patches in the flattened grid, ascending
            except in iterative prompting.
        affinities: (K, h * w) float32 cosines of each prompt with every patch.
        masks: (K, h, w) bool: affinity over ``tau_b``.
    """

    positions: NDArray[np.int64]
    affinities: NDArray[np.float32]
    masks: NDArray[np.bool_]


def normalise(features: torch.Tensor, eps: float) -> torch.Tensor:
    """Features of (about) unit length.

    Args:
        features: (C, h, w) floating point.
        eps: added to each norm before the division; with 0, zero features stay zero.

    Returns:
        (C, h * w) float32 on the same device.

    Raises:
        ValueError: a feature is NaN or infinite.
    """
    flat = features.detach().to(torch.float32).reshape(features.shape[0], -1)
    norms = torch.linalg.vector_norm(flat, dim=0)
    if not bool(torch.isfinite(norms).all()):
        bad = int((~torch.isfinite(norms)).sum())
        raise ValueError(
            f"the features of {bad} of {norms.numel()} patches are NaN, infinite or overflow when "
            "squared; finite features are wanted (with half precision, try precision='fp32')"
        )
    unit: torch.Tensor = flat / (norms + eps).clamp_min(torch.finfo(torch.float32).tiny)
    return unit


def prompt_masks(
    unit: torch.Tensor,
    grid: tuple[int, int],
    config: ProMergeConfig,
    prompt_scores: NDArray[np.float32] | None = None,
) -> Prompts:
    """One mask a prompt, by one matrix product.

    Args:
        unit: (C, h * w) float32 features of unit length.
        grid: (h, w).
        config: ``prompting``, ``stride``, ``seed`` and ``tau_b`` are used.
        prompt_scores: (h, w), wanted by attention prompting: how much each patch attracts.

    Returns:
        The prompts in raster order (iterative prompting: in the order of the grid they left).
    """
    positions = _positions(grid, config, prompt_scores)
    affinities = _affinities(unit, positions)
    if config.prompting is Prompting.ITERATIVE:
        for _ in range(ITERATIONS):
            positions = _centres(affinities > config.tau_b, positions, grid)
            affinities = _affinities(unit, positions)
    masks = (affinities > config.tau_b).reshape(-1, *grid)
    return Prompts(positions, affinities, masks)


def _affinities(unit: torch.Tensor, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    prompts = unit[:, torch.from_numpy(positions).to(unit.device)]
    return (prompts.T @ unit).cpu().numpy()


def _positions(
    grid: tuple[int, int], config: ProMergeConfig, scores: NDArray[np.float32] | None
) -> NDArray[np.int64]:
    patches = np.arange(grid[0] * grid[1], dtype=np.int64)
    on_grid = patches.reshape(grid)[:: config.stride, :: config.stride].ravel()
    if config.prompting is Prompting.RANDOM:
        drawn = np.random.default_rng(config.seed).choice(patches, len(on_grid), replace=False)
        return np.sort(drawn)
    if config.prompting is Prompting.ATTENTION:
        if scores is None:
            raise ValueError(
                "prompting='attention' wants prompt_scores, an (h, w) array with how much each "
                "patch attracts the class token; none was given. Encoders with a class token "
                "give it beside the features; otherwise choose another prompting"
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
