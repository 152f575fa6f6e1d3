"""Each choice of the method on a case that is worked out by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from promerge_fo.config import BackgroundVote, MergeRule, ProMergeConfig, SplitComponents
from promerge_fo.pipeline import Pipeline
from promerge_fo.segment import segment_features
from promerge_fo.segment.background import vote
from promerge_fo.segment.components import split
from promerge_fo.segment.filtering import Verdict, filter_masks
from promerge_fo.segment.merging import merge
from promerge_fo.segment.prompting import UnitFeatures, prompt_masks
from tests.needs import need


def directions(degrees) -> torch.Tensor:
    """Features (2, h, w) that point this way; cosines over 0.2 are angles under 78.5 degrees."""
    angles = np.deg2rad(np.atleast_2d(degrees))
    return torch.from_numpy(np.stack([np.cos(angles), np.sin(angles)]).astype(np.float32))


def prompts(features: torch.Tensor, scores=None, **changes) -> list[int]:
    grid = features.shape[1], features.shape[2]
    config = ProMergeConfig(**changes)
    return prompt_masks(UnitFeatures(features, 0.0), grid, config, scores).positions.tolist()


def strip(*patches: int, length: int = 10) -> np.ndarray:
    mask = np.zeros((1, length), dtype=bool)
    mask[0, list(patches)] = True
    return mask


def test_grid_prompts_are_every_third_patch_of_every_third_row():
    assert prompts(torch.ones(2, 5, 7), stride=3) == [0, 3, 6, 21, 24, 27]


def test_random_prompts_are_as_many_as_the_grids_and_the_seeds_own():
    draws = [
        prompts(torch.ones(2, 5, 7), prompting="random", stride=3, seed=seed) for seed in range(300)
    ]
    assert all(drawn == sorted(set(drawn)) and len(drawn) == 6 for drawn in draws)
    assert prompts(torch.ones(2, 5, 7), prompting="random", stride=3, seed=7) == draws[7]
    # each of 35 patches is drawn by 300 * 6 / 35 = 51 seeds, give or take 6.5
    counts = np.bincount(np.concatenate(draws), minlength=35)
    assert len(counts) == 35
    assert 25 < counts.min() < counts.max() < 78


def test_iterative_prompts_move_to_the_centre_of_what_they_select():
    # 30 degrees from patch to patch: a prompt selects two to either side. The one at patch 0
    # selects 0 to 2 and moves to 1, selects 0 to 3 and moves to 1.5, which is rounded to 2, and
    # is in the middle of 0 to 4 there. The one at 4 selects 2 to 6 and stays, that at 8, 6 to 8.
    features = directions(30 * np.arange(9))
    assert prompts(features, prompting="iterative", stride=4) == [2, 4, 6]


def test_attention_prompts_are_the_highest_twentieth():
    scores = np.zeros((5, 8), dtype=np.float32)
    scores[4, 1], scores[0, 3], scores[2, 2] = 3, 2, 1  # 5 % of 40 patches are 2
    assert prompts(torch.ones(2, 5, 8), scores, prompting="attention") == [3, 33]


# Patches 0, 2, 10 (0, 2, 5.5 degrees) have their nearest among each other, and so have 4, 6, 8.
# Those to the right of each point the other way: these are 4 clusters, a level up 2, then 1.
GROUPS = [0, 180, 2, 182, 22, 202, 19, 199, 26, 206, 5.5, 185.5]


@pytest.mark.parametrize(
    ("stride", "expected"),
    [
        (3, [2, 3, 4, 5]),  # four prompts on the grid: 2 is nearest to a mean of 2.5, 22 to 22.3
        (5, [6, 7]),  # three prompts on the grid, so two clusters: 19 is nearest to 12.4
    ],
)
def test_attentive_prompts_are_the_most_typical_of_their_clusters(stride, expected):
    need("finch", "pip install finch-clust")
    assert prompts(directions(GROUPS), prompting="attentive", stride=stride) == expected


def test_attentive_prompting_says_what_it_lacks(monkeypatch):
    from promerge_fo.encoder import load_encoder

    monkeypatch.setitem(sys.modules, "finch", None)
    config = ProMergeConfig(prompting="attentive")
    with pytest.raises(ImportError, match=r"package finch-clust.*pip install finch-clust"):
        segment_features(np.ones((2, 8, 8)), config)
    with pytest.raises(ImportError, match="choose another prompting"):
        Pipeline(load_encoder("texture"), config)


def test_an_image_of_one_patch_or_one_colour_has_one_attentive_prompt():
    need("finch", "pip install finch-clust")
    assert prompts(torch.ones(2, 1, 1), prompting="attentive") == [0]
    assert prompts(torch.ones(2, 4, 4), prompting="attentive") == [0]


def test_background_by_majority_and_by_union():
    candidates = np.stack([strip(0, 1, 2, length=4), strip(0, 1, length=4), strip(0, length=4)])
    assert vote(candidates, BackgroundVote.MAJORITY).tolist() == [[True, True, False, False]]
    assert vote(candidates, BackgroundVote.UNION).tolist() == [[True, True, True, False]]
    # half of the candidates are not more than half
    assert vote(candidates[:2], BackgroundVote.MAJORITY).tolist() == [[True, True, False, False]]
    assert vote(candidates[1:], BackgroundVote.MAJORITY).tolist() == [[True, False, False, False]]


@pytest.mark.parametrize(
    ("rule", "sizes"),
    [
        (SplitComponents.NONE, [7]),
        (SplitComponents.ALL, [4, 2, 1]),
        (SplitComponents.RELATIVE, [4, 2]),  # at least half of 4
    ],
)
def test_splitting(rule, sizes):
    mask = strip(0, 1, 2, 3, 5, 6, 8)
    parts, _ = split(mask[None], np.array([2]), rule, 0.5)
    assert [int(part.sum()) for part in parts] == sizes


# The background is patches 0 to 5; how like it each mask is, is given.
MASKS = {
    "A": ((5, 6), 0.0),  # half of it in the background
    "B": ((4, 5, 6, 7), 0.2),  # half of it; beyond A and D only patch 4, in the background
    "C": ((3, 4, 5, 6, 7), -0.1),  # three fifths
    "D": ((6, 7, 8), 0.05),  # nothing of it
    "E": ((5, 6, 7), 0.0),  # two thirds less a half: A and D hold all of it
    "F": ((6, 9), 0.3),  # nothing of it, but its features are the background's
}
KEPT, NOTHING_NEW, OVERLAPS, LIKE, SUPPRESSED = Verdict


@pytest.mark.parametrize(
    ("changes", "verdicts"),
    [
        # by area A, F, D, E, B, C; F is like the background, D adds 7 and 8, B 4, C 3 and 4
        (
            {"filtering": "cascade", "tau_ioa_bg": 0.8, "tau_f_bg": 0.1},
            [KEPT, OVERLAPS, OVERLAPS, KEPT, NOTHING_NEW, LIKE],
        ),
        ({"filtering": "ioa", "tau_ioa_bg": 0.5}, [KEPT, KEPT, OVERLAPS, KEPT, KEPT, KEPT]),
        ({"filtering": "feature", "tau_f_bg": 0.0}, [KEPT, LIKE, KEPT, LIKE, KEPT, LIKE]),
        # C first; its IoU with B is 4/5, with E 3/5, with A 2/5, with D 2/6, with F 1/6
        (
            {"filtering": "nms", "nms_iou": 0.5},
            [KEPT, SUPPRESSED, KEPT, KEPT, SUPPRESSED, KEPT],
        ),
        ({"filtering": "none"}, [KEPT] * 6),
    ],
    ids=lambda value: value["filtering"] if isinstance(value, dict) else None,
)
def test_filtering(changes, verdicts):
    masks = np.stack([strip(*patches) for patches, _ in MASKS.values()])
    similarity = np.array([likeness for _, likeness in MASKS.values()], dtype=np.float32)
    config = ProMergeConfig(**changes)
    found = filter_masks(masks, strip(*range(6)), similarity, config)
    assert [Verdict(v) for v in found] == verdicts


@pytest.mark.parametrize(("filtering", "masks"), [("none", 1), ("nms", 1), ("cascade", 0)])
def test_without_a_background_step_no_mask_is_background(filtering, masks):
    # all patches alike: every prompt selects all, which is background where there is such a step
    result = segment_features(np.ones((2, 6, 6)), ProMergeConfig(filtering=filtering))
    assert len(result) == masks
    assert (result.background is None) == (filtering != "cascade")


# Patches 4 to 6 point the other way. B shares a third with A, and its mean, -1/3, is unlike
# A's, 1; D shares two thirds with A, and its mean is 1/3; C has no patch of A, but its direction.
A, B, C, D = (0, 1, 2, 3), (3, 4, 5), (8, 9), (2, 3, 6)
OPPOSITE = [0, 0, 0, 0, 180, 180, 180, 0, 0, 0]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # more than half of D lies in A; B overlaps A, but is unlike; C does not overlap
        (MergeRule.OFFICIAL, [(0, 1, 2, 3, 6), (3, 4, 5), (8, 9)]),
        # B and D overlap A; the mean of all, 1/7, is still like C's
        (MergeRule.EITHER, [(0, 1, 2, 3, 4, 5, 6, 8, 9)]),
        (MergeRule.IOA, [(0, 1, 2, 3, 4, 5, 6), (8, 9)]),
        (MergeRule.FEATURE, [(0, 1, 2, 3, 6, 8, 9), (3, 4, 5)]),
        (MergeRule.NONE, [A, D, B, C]),
    ],
)
def test_merging(rule, expected):
    masks = np.stack([strip(*patches) for patches in (A, B, C, D)])
    unit = UnitFeatures(directions(OPPOSITE), 0.0)
    merged, _ = merge(unit, masks, ProMergeConfig(merge_rule=rule))
    assert [tuple(np.flatnonzero(mask).tolist()) for mask in merged] == expected
