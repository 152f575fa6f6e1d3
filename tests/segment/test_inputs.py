"""What segment_features takes, and what it says about the rest."""

import numpy as np
import pytest
import torch

from promerge_fo.config import ProMergeConfig
from promerge_fo.segment import segment_features
from promerge_fo.segment.bits import count_bits, pack, unpack
from promerge_fo.segment.components import split
from tests.scenes import feature_scene


def square(h=12, w=12):
    features = np.full((2, h, w), -1.0)
    features[:, h // 3 : 2 * h // 3, w // 3 : 2 * w // 3] = [[[1.0]], [[0.5]]]
    return features


@pytest.mark.parametrize(
    "convert",
    [
        lambda f: f.astype(np.float64),
        lambda f: f.astype(np.float16),
        lambda f: np.asfortranarray(f),
        lambda f: torch.from_numpy(f),
        lambda f: torch.from_numpy(f).to(torch.bfloat16),
        lambda f: torch.from_numpy(f).requires_grad_(),
        lambda f: torch.from_numpy(f.transpose(1, 2, 0).copy()).permute(2, 0, 1),
    ],
    ids=["float64", "float16", "fortran", "torch", "bfloat16", "gradient", "strided"],
)
def test_any_float_array(convert):
    features = square().astype(np.float32)
    expected = segment_features(features)
    result = segment_features(convert(features))
    np.testing.assert_array_equal(result.masks, expected.masks)
    assert result.masks.dtype == bool
    assert result.scores.dtype == np.float32
    assert result.masks.sum() == 16


@pytest.mark.parametrize("grid", [(1, 1), (1, 9), (9, 1), (2, 2), (7, 31), (64, 65)])
def test_any_grid(grid):
    features, _ = feature_scene(0, grid=grid) if min(grid) > 6 else (np.ones((3, *grid)), None)
    result = segment_features(features, ProMergeConfig(stride=5))
    assert result.masks.shape[1:] == grid
    assert result.status in ("ok", "no_background", "background_too_small", "all_filtered")
    assert (len(result) > 0) == (result.status == "ok")


def test_zero_features_give_no_background():
    for eps in (0.0, 1e-5):
        result = segment_features(np.zeros((4, 8, 8)), ProMergeConfig(norm_eps=eps))
        assert (result.status, result.masks.shape, result.background) == (
            "no_background",
            (0, 8, 8),
            None,
        )


@pytest.mark.parametrize(
    ("features", "error", "words"),
    [
        (np.ones((2, 3, 4, 4)), ValueError, "pass one image of the batch"),
        (np.ones((4, 4)), ValueError, r"must be \(C, h, w\), got \(4, 4\)"),
        (np.ones((0, 4, 4)), ValueError, r"got \(0, 4, 4\)"),
        (np.ones((2, 4, 4), dtype=np.uint8), TypeError, "floating-point.*uint8"),
        ([[1.0]], TypeError, "floating-point.*list"),
        (np.full((2, 4, 4), np.nan), ValueError, "features of 16 of 16 patches are NaN"),
        (np.full((2, 4, 4), np.inf), ValueError, "NaN, infinite"),
    ],
)
def test_bad_features(features, error, words):
    with pytest.raises(error, match=words):
        segment_features(features)


def test_bad_configuration_and_prompt_scores():
    with pytest.raises(
        TypeError, match="ProMergeConfig, MaskCutConfig or TokenCutConfig, got dict"
    ):
        segment_features(square(), {"stride": 4})
    attention = ProMergeConfig(prompting="attention")
    with pytest.raises(ValueError, match="wants prompt_scores"):
        segment_features(square(), attention)
    with pytest.raises(ValueError, match=r"of the features' grid \(12, 12\), got shape \(3, 3\)"):
        segment_features(square(), attention, prompt_scores=np.ones((3, 3)))


@pytest.mark.parametrize("shape", [(0, 5, 7), (3, 1, 1), (2, 8, 8), (4, 9, 15)])
def test_bits_round_trip(shape):
    masks = np.random.default_rng(0).random(shape) < 0.4
    rows = pack(masks)
    assert rows.dtype == np.uint64
    np.testing.assert_array_equal(unpack(rows, shape[1:]), masks)
    np.testing.assert_array_equal(count_bits(rows), masks.sum(axis=(1, 2)))


def test_components_of_a_spiral_and_of_diagonals():
    # one long arm is one component; patches that touch at corners only are not
    spiral = np.array(
        [
            [1, 1, 1, 1, 1],
            [0, 0, 0, 0, 1],
            [1, 1, 1, 0, 1],
            [1, 0, 0, 0, 1],
            [1, 1, 1, 1, 1],
        ],
        dtype=bool,
    )
    diagonal = np.eye(5, dtype=bool)
    masks = np.stack([spiral, diagonal])
    parts, source = split(masks, np.array([0, 0]), rule=ProMergeConfig().split_components.ALL,
                          min_ratio=0.0)  # fmt: skip
    assert [int(p.sum()) for p in parts] == [17, 1, 1, 1, 1, 1]
    assert source.tolist() == [0, 1, 1, 1, 1, 1]
    assert [int(p.ravel().argmax()) for p in parts[1:]] == [0, 6, 12, 18, 24]


def test_a_prompt_outside_its_mask_is_measured_by_the_largest_component():
    mask = np.zeros((1, 4, 6), dtype=bool)
    mask[0, 0, :4] = True
    mask[0, 2, :2] = True
    mask[0, 3, 5] = True
    rule = ProMergeConfig().split_components
    parts, _ = split(mask, np.array([17]), rule, 0.5)
    assert [int(p.sum()) for p in parts] == [4, 2]
    parts, _ = split(mask, np.array([23]), rule, 0.5)
    assert [int(p.sum()) for p in parts] == [4, 2, 1]
