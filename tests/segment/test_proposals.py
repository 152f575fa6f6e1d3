"""Masks at several levels of similarity: ranked, without near-duplicates, with their parents."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from promerge_fo.config import MaskCutConfig, ProMergeConfig, run_hash
from promerge_fo.encoder import load_encoder
from promerge_fo.instances import Instances
from promerge_fo.pipeline import Pipeline
from promerge_fo.segment import segment_features
from promerge_fo.segment.prompting import UnitFeatures
from promerge_fo.segment.proposals import find_parents, level_thresholds, rank, unite
from promerge_fo.segment.scoring import patch_objectness
from tests.scenes import feature_scene, iou_matrix

PROPOSALS = ProMergeConfig.preset("proposals")


def squares(*sides: int, size: int = 20) -> np.ndarray:
    """Squares in the corner of a grid."""
    masks = np.zeros((len(sides), size, size), dtype=bool)
    for mask, side in zip(masks, sides, strict=True):
        mask[:side, :side] = True
    return masks


def test_the_levels_after_the_first():
    assert level_thresholds(ProMergeConfig()) == []
    assert level_thresholds(PROPOSALS.replace(levels=2)) == [PROPOSALS.low_tau_b]
    assert level_thresholds(PROPOSALS) == pytest.approx([0.4, 0.5166667, 0.6333333, 0.75])


def test_of_near_duplicates_the_better_one_is_kept():
    masks = squares(10, 9, 4, 3)  # IoU 0.81, 0.2, 0.16 and 0.11, ...; 0.56 of the last two
    scores = np.array([0.5, 0.9, 0.1, 0.7], dtype=np.float32)
    kept, ranked = rank(masks, scores, ProMergeConfig(duplicate_iou=0.75))
    assert kept.tolist() == [1, 3, 2]
    assert ranked.tolist() == scores[kept].tolist()
    kept, _ = rank(masks, scores, ProMergeConfig(duplicate_iou=0.5))
    assert kept.tolist() == [1, 3]
    kept, _ = rank(masks, scores, ProMergeConfig(duplicate_iou=0.75, max_masks=1))
    assert kept.tolist() == [1]


def test_the_parent_is_the_smallest_mask_around():
    masks = squares(4, 16, 8, 8)
    masks[3, 7, 7] = False  # equal but for one patch: it lies in the other
    assert find_parents(masks).tolist() == [3, -1, 1, 2]
    apart = squares(4, 6)
    apart[0] = np.roll(apart[0], 10, axis=1)
    assert find_parents(apart).tolist() == [-1, -1]
    assert find_parents(squares()).tolist() == []


def test_levels_are_united_best_first_and_small_masks_left_out():
    first = Instances(squares(12), np.array([0.6], dtype=np.float32))
    second = Instances(squares(6, 1), np.array([0.8, 0.9], dtype=np.float32))
    config = ProMergeConfig(min_mask_area=0.01)
    united = unite([first, second], config)
    assert united.levels.tolist() == [2, 1]
    assert united.areas.tolist() == [36, 144]
    assert united.status == "ok"
    none = unite([first, second], config.replace(min_mask_area=1.0))
    assert (len(none), none.status) == (0, "all_filtered")
    empty = Instances(squares(), np.zeros(0, np.float32), "no_background")
    assert unite([empty, empty], config).status == "no_background"
    assert unite([empty, second], config).status == "ok"


def test_objectness_worked_out_by_hand():
    # Four of 40 patches, 0.1 of the image: size 1 - 1/e. The mask's direction is (1, 0), the
    # background's (0.6, 0.8): contrast (1 - 0.6) / 2. The two patches around it are (0, 1): edge
    # (1 - 0) / 2.
    features = torch.zeros((2, 4, 10))
    features[0], features[1] = 0.6, 0.8
    features[:, :, 1:4] = torch.tensor([0.0, 1.0])[:, None, None]
    features[:, :, 0] = torch.tensor([[2.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    mask = np.zeros((1, 4, 10), dtype=bool)
    mask[0, :, 0] = True
    background = np.zeros((4, 10), dtype=bool)
    background[:, 4:] = True
    found = patch_objectness(UnitFeatures(features, 0), mask, background)
    assert found == pytest.approx([np.cbrt((1 - np.exp(-1)) * 0.2 * 0.5)], rel=1e-5)


def test_a_part_of_a_better_mask_loses_score_by_the_share_that_lies_in_it():
    masks = squares(10, 5, 10)
    masks[2] = np.roll(masks[2], 5, axis=1)  # half of it lies in the first
    scores = np.array([0.9, 0.8, 0.5], dtype=np.float32)
    kept, ranked = rank(masks, scores, ProMergeConfig(), part_penalty=0.5)
    assert kept.tolist() == [0, 1, 2]
    assert ranked == pytest.approx([0.9, 0.4, 0.375])
    kept, ranked = rank(masks, scores, ProMergeConfig(), part_penalty=0.7)
    assert kept.tolist() == [0, 2, 1]
    assert ranked == pytest.approx([0.9, 0.5 * 0.65, 0.8 * 0.3])


def test_objectness_ranks_masks_better_than_quality():
    correlations = {}
    for score in ("quality", "objectness"):
        scores, ious = [], []
        for seed in range(120):
            features, truth = feature_scene(seed, noise=0.1 + 0.02 * (seed % 10))
            found = segment_features(features, ProMergeConfig(score=score))
            if len(truth) and len(found):
                scores.extend(found.scores)
                ious.extend(iou_matrix(found.masks, truth).max(axis=1))
        correlations[score] = spearmanr(scores, ious).statistic
    assert correlations["objectness"] > max(0.5, correlations["quality"] + 0.1)


def test_cuts_can_be_scored_by_objectness():
    features, _ = feature_scene(3)
    config = MaskCutConfig(score="objectness")
    result = segment_features(features, config)
    found = result.masks.any(axis=(1, 2))
    unit = UnitFeatures(torch.from_numpy(features), 0.0)
    expected = patch_objectness(unit, result.masks[found], None)
    assert found.any() and (expected > 0).all()
    np.testing.assert_allclose(result.scores[found], expected, rtol=1e-5)
    assert (result.scores[~found] == 0).all()


def test_all_levels_share_one_product(monkeypatch):
    calls, affinities = [], UnitFeatures.affinities

    def counted(self, positions):
        calls.append(len(positions))
        return affinities(self, positions)

    monkeypatch.setattr(UnitFeatures, "affinities", counted)
    features, _ = feature_scene(1)
    result = segment_features(features, PROPOSALS)
    assert calls == [100]
    assert set(result.levels) > {1}


def test_more_of_the_objects_are_found():
    found = {"default": 0, "proposals": 0}
    objects = 0
    for seed in range(40):
        features, truth = feature_scene(seed)
        objects += len(truth)
        for preset in found:
            result = segment_features(features, ProMergeConfig.preset(preset).replace(stride=2))
            if len(result) and len(truth):
                found[preset] += int((iou_matrix(truth, result.masks).max(axis=1) > 0.5).sum())
    assert objects > 80
    assert found["proposals"] > 1.2 * found["default"]


def test_refined_masks_are_ranked_and_no_two_are_alike(photographs):
    config = PROPOSALS.replace(image_size=320, max_masks=10)
    pipeline = Pipeline(load_encoder("texture", image_size=320), config)
    found = pipeline(photographs)
    assert 5 < max(map(len, found)) <= 10
    assert any((instances.parents >= 0).any() for instances in found)
    for instances in found:
        assert instances.status == "ok"
        assert (np.diff(instances.scores) <= 0).all()
        assert len(instances.levels) == len(instances.parents) == len(instances)
        ious = iou_matrix(instances.masks, instances.masks)
        assert ious[~np.eye(len(ious), dtype=bool)].max() <= config.duplicate_iou
        for number, parent in enumerate(instances.parents):
            if parent >= 0:
                mask, around = instances.masks[number], instances.masks[parent]
                assert (mask & around).sum() >= 0.9 * mask.sum()
                assert around.sum() > mask.sum()


@pytest.mark.parametrize(
    ("config", "hash"),
    [
        (ProMergeConfig(score="quality"), "6cfc9f8b40a2ce94"),
        (ProMergeConfig.preset("official").replace(tau_b=0.3), "e8988bff6ba08bbb"),
        (MaskCutConfig(), "047290ce3190221c"),
    ],
)
def test_runs_of_older_versions_keep_their_hash(config, hash):
    pipeline = Pipeline(load_encoder("texture", image_size=96), config.replace(image_size=96))
    assert pipeline.hash == hash


def test_proposals_have_a_hash_of_their_own():
    identity = {"method": "promerge", "encoder": {}}
    hashes = {
        run_hash({**identity, "config": config.to_dict()})
        for config in (ProMergeConfig(), PROPOSALS, PROPOSALS.replace(max_masks=50))
    }
    assert len(hashes) == 3
