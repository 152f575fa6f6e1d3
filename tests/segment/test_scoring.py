"""The score ranks masks by how well they fit the truth."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from promerge_fo.config import ProMergeConfig
from promerge_fo.encoder import load_encoder
from promerge_fo.pipeline import Pipeline
from promerge_fo.segment import segment_features
from promerge_fo.segment.prompting import Prompts, UnitFeatures
from promerge_fo.segment.scoring import DELTA, after_refinement, patch_quality
from tests.coco_ap import average_precision
from tests.scenes import feature_scene, iou_matrix


@pytest.fixture(scope="module")
def scenes():
    """Truth, predictions and scores of many scenes, from clean to noisy."""
    found = []
    for seed in range(150):
        features, truth = feature_scene(seed, noise=0.1 + 0.02 * (seed % 10))
        result = segment_features(features)
        if len(truth):
            found.append((truth, result.masks, result.scores))
    return found


def test_rank_correlation_with_the_best_iou(scenes):
    scores = np.concatenate([scores for _, _, scores in scenes])
    quality = np.concatenate(
        [iou_matrix(masks, truth).max(axis=1) for truth, masks, _ in scenes if len(masks)]
    )
    assert len(scores) > 200
    assert scores.min() >= 0
    assert scores.max() <= 1
    assert spearmanr(scores, quality).statistic > 0.4


def test_ap_is_at_least_that_of_constant_scores(scenes):
    constant = [(truth, masks, np.ones(len(masks))) for truth, masks, _ in scenes]
    with_score, recall = average_precision(scenes)
    without, same_recall = average_precision(constant)
    assert without > 0.05
    assert with_score >= without
    assert recall == pytest.approx(same_recall)


def test_presets_keep_constant_scores():
    features, _ = feature_scene(1)
    for preset in ("official", "paper"):
        scores = segment_features(features, ProMergeConfig.preset(preset)).scores
        np.testing.assert_array_equal(scores, np.ones_like(scores))


def test_quality_worked_out_by_hand():
    # A row of six patches; the mask is the middle two. Its two prompts see it with affinities
    # whose maximum is 0.9 and 0.22: with tau_b = 0.2 and delta = 0.05 one patch is surely inside.
    # Of the ring, one patch (0.16 > 0.15) is possibly inside, one (0.1) is not: 1 / 3.
    assert DELTA == 0.05
    mask = np.array([[[False, False, True, True, False, False]]])
    affinities = np.array(
        [[0.9, 0.16, 0.9, 0.21, 0.1, 0.9], [0, 0.1, 0.3, 0.22, 0, 0]], dtype=np.float32
    )
    prompts = Prompts(np.array([2, 3]), affinities, affinities.reshape(2, 1, 6) > 0.2)
    # the mask's mean direction is (1, 0), the background's (0.6, 0.8): contrast (1 - 0.6) / 2
    features = torch.tensor([[[0.6, 1.2, 1, 3, 0.6, 0.6]], [[0.8, 1.6, 0, 0, 0.8, 0.8]]])
    unit = UnitFeatures(features, 0)
    background = np.array([[True, True, False, False, True, True]])
    quality = patch_quality(
        unit, mask, background, prompts, np.array([0, 1]), np.array([0, 0]), tau_b=0.2
    )
    assert quality == pytest.approx([np.sqrt(1 / 3 * 0.2)], rel=1e-5)
    # without a background the mask is compared with everything outside it: the same here
    alone = patch_quality(unit, mask, None, prompts, np.array([0, 1]), np.array([0, 0]), tau_b=0.2)
    assert alone == pytest.approx(quality)
    agreement, area = np.array([0.5], dtype=np.float32), np.array([0.2])
    whole = (1 / 3 * 0.2 * 0.5) ** (1 / 3)
    assert after_refinement(quality, agreement, area) == pytest.approx([whole], rel=1e-3)
    # with 0.03 of the image outside the mask, 1 - 1 / e is left of the score
    rest = 1 - np.exp(-1)
    assert after_refinement(quality, agreement, np.array([0.97])) == pytest.approx([rest * whole])


def test_what_covers_an_image_is_no_object():
    one = np.ones(5, dtype=np.float32)
    area = np.array([0.0, 0.9, 0.95, 0.98, 1.0])
    scores = after_refinement(one, one, area)
    assert scores == pytest.approx([1, 1, 0.938, 0.359, 0], abs=1e-3)


def test_a_mask_of_all_of_an_image_of_noise_has_a_low_score():
    noise = np.random.default_rng(0).integers(0, 256, (4, 1, 480, 480), dtype=np.uint8)
    pipeline = Pipeline(load_encoder("texture"))
    found = pipeline([np.repeat(image[0, :, :, None], 3, axis=2) for image in noise])
    scores = np.concatenate([result.scores for result in found])
    areas = np.concatenate([result.areas for result in found]) / 480**2
    assert (areas > 0.98).any()
    assert scores[areas > 0.98].max() < 0.35
