"""All steps of ProMerge in order, from patch features to scored patch masks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from promerge_fo.config import Filtering, MergeRule, ProMergeConfig, Score, Status
from promerge_fo.instances import Instances
from promerge_fo.segment.background import is_background, vote
from promerge_fo.segment.components import split
from promerge_fo.segment.filtering import background_similarity, filter_masks
from promerge_fo.segment.merging import merge
from promerge_fo.segment.prompting import Prompts, UnitFeatures, prompt_masks
from promerge_fo.segment.proposals import level_thresholds, unite
from promerge_fo.segment.scoring import patch_objectness, patch_quality

__all__ = ["Trace", "trace_features"]


@dataclass(frozen=True)
class Trace:
    """The results of every step on one image: n foreground masks, m of them kept.

    Attributes:
        prompts: the K prompts, their affinities and masks.
        is_candidate: (K,) bool: prompts whose mask is a background candidate.
        background: (h, w) bool, or None without a background step or candidates.
        foreground: (n, h, w) bool: foreground masks after splitting.
        source: (n,) int64: the prompt of each foreground mask.
        verdicts: (n,) int8 :class:`~promerge_fo.segment.filtering.Verdict` values; None if
            filtering was not reached.
        cluster: (m,) int64: the instance that each kept mask was merged into.
        instances: the result.
    """

    prompts: Prompts
    is_candidate: NDArray[np.bool_]
    background: NDArray[np.bool_] | None
    foreground: NDArray[np.bool_]
    source: NDArray[np.int64]
    verdicts: NDArray[np.int8] | None
    cluster: NDArray[np.int64]
    instances: Instances

    @property
    def kept(self) -> NDArray[np.bool_]:
        """(m, h, w) bool: the masks that filtering kept, ascending by area."""
        if self.verdicts is None:
            return self.foreground[:0]
        kept = self.foreground[self.verdicts == 0]
        return np.asarray(kept[np.argsort(kept.sum(axis=(1, 2)), kind="stable")])


def trace_features(
    features: torch.Tensor,
    config: ProMergeConfig,
    prompt_scores: NDArray[np.float32] | None = None,
) -> Trace:
    """ProMerge on patch features, with the results of every step (Algorithm 1).

    Args:
        features: (C, h, w) floating point, on any device.
        config: the parameters.
        prompt_scores: (h, w), for attention prompting.

    Returns:
        The trace; its ``instances`` are the result.

    Raises:
        ValueError: features that are not finite.
    """
    grid = (features.shape[1], features.shape[2])
    unit = UnitFeatures(features, config.norm_eps)
    prompts = prompt_masks(unit, grid, config, prompt_scores)
    first = _trace_level(unit, prompts, config)
    if not config.has_proposals:
        return first
    levels = [first.instances]
    for tau_b in level_thresholds(config):
        stricter = replace(prompts, masks=(prompts.affinities > tau_b).reshape(-1, *grid))
        changed = config.replace(tau_b=tau_b, merge_rule=MergeRule.NONE)
        levels.append(_trace_level(unit, stricter, changed).instances)
    return replace(first, instances=unite(levels, config))


def _trace_level(unit: UnitFeatures, prompts: Prompts, config: ProMergeConfig) -> Trace:
    """The steps after prompting, with the masks of one level."""
    h, w = prompts.masks.shape[1:]
    background: NDArray[np.bool_] | None = None
    status: Status = "ok"
    is_candidate = np.zeros(len(prompts.masks), dtype=np.bool_)
    if config.filtering not in (Filtering.NMS, Filtering.NONE):
        is_candidate = is_background(prompts.masks)
        if is_candidate.any():
            background = vote(prompts.masks[is_candidate], config.background_vote)
            area = int(background.sum())
            if area == 0 or area < config.min_background_area * background.size:
                status = "background_too_small"
        else:
            status = "no_background"

    front = np.flatnonzero(~is_candidate)
    foreground, source = split(
        prompts.masks[front],
        prompts.positions[front],
        config.split_components,
        config.min_component_ratio,
    )
    source = front[source]

    verdicts: NDArray[np.int8] | None = None
    merged = np.zeros((0, h, w), dtype=np.bool_)
    cluster = np.zeros(0, dtype=np.int64)
    scores = np.zeros(0, dtype=np.float32)
    if status == "ok":
        similarity = (
            None if background is None else background_similarity(unit, foreground, background)
        )
        verdicts = filter_masks(foreground, background, similarity, config)
        kept = verdicts == 0
        if kept.any():
            merged, cluster = merge(unit, foreground[kept], config)
            if config.score is Score.CONSTANT:
                scores = np.ones(len(merged), dtype=np.float32)
            elif config.score is Score.OBJECTNESS:
                scores = patch_objectness(unit, merged, background)
            else:
                scores = patch_quality(
                    unit, merged, background, prompts, source[kept], cluster, config.tau_b
                )
        else:
            status = "all_filtered"
    instances = Instances(merged, scores, status, background)
    return Trace(
        prompts, is_candidate, background, foreground, source, verdicts, cluster, instances
    )
