"""TokenCut and MaskCut: stored outputs of the authors' code, a plain oracle, and rules by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from promerge_fo.config import MaskCutConfig, TokenCutConfig
from promerge_fo.segment import normalized_cut, segment_features, trace_segmentation
from promerge_fo.segment.eigenvector import Eigenvector
from promerge_fo.segment.normalized_cut import corners, foreground
from tests.scenes import feature_scene, iou_matrix
from tests.segment import cut_oracle
from tests.segment.test_patch_graph import on_every_device

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
CASES = sorted(GOLDEN.glob("maskcut*.npz"))


def test_there_are_golden_cases():
    assert [path.stem for path in CASES] == ["maskcut40"]


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
@on_every_device
def test_golden(path: Path, device: str):
    golden = np.load(path)
    given = torch.from_numpy(golden["features"].astype(np.float32)).to(device)
    result = segment_features(given, MaskCutConfig.preset("official"))
    np.testing.assert_array_equal(result.masks, golden["masks"])
    np.testing.assert_array_equal(result.scores, golden["masks"].any(axis=(1, 2)))
    assert (result.status, result.background) == ("ok", None)


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_a_random_rotation_into_768_channels_changes_nothing(path: Path):
    golden = np.load(path)
    features = golden["features"].astype(np.float64)
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.standard_normal((768, len(features))))[0]
    dense = np.einsum("dc,chw->dhw", rotation, features).astype(np.float32)
    masks = segment_features(dense, MaskCutConfig()).masks
    assert np.diagonal(iou_matrix(masks, golden["masks"])).min() >= 0.99


@pytest.mark.parametrize("name", ["9", "25", "30", "34"])
def test_stored_features_of_photographs_against_the_oracle(name: str):
    """On every second patch, or the oracle takes its time."""
    stored = np.load(GOLDEN / f"coco_{int(name):012d}.npz")["features"].astype(np.float32)
    features = np.ascontiguousarray(stored[:, ::2, ::2])
    config = MaskCutConfig(cuts=4)
    masks = segment_features(features, config).masks
    np.testing.assert_array_equal(masks, cut_oracle.maskcut(features, config.to_dict()))
    assert masks[0].any()
    single = segment_features(features, TokenCutConfig()).masks
    np.testing.assert_array_equal(single[0], cut_oracle.tokencut(features))


VARIANTS = {
    "default": {},
    "one cut": {"cuts": 1},
    "six cuts": {"cuts": 6},
    "tau": {"tau": 0.4},
    "eps": {"eps": 1e-3},
    "no corner": {"max_corners": 0},
    "any corners": {"max_corners": 4},
    "no overlap": {"max_overlap": 0.0},
    "any overlap": {"max_overlap": 1.0, "cuts": 5},
    "large only": {"min_area": 0.1},
    "any area": {"min_area": 0.0},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_maskcut_against_the_oracle(variant: str):
    config = MaskCutConfig(**VARIANTS[variant])
    masks = 0
    for seed in range(10):
        features, _ = feature_scene(seed, grid=(13, 17) if seed % 2 else (14, 14))
        expected = cut_oracle.maskcut(features, config.to_dict())
        trace = trace_segmentation(features, config)
        np.testing.assert_array_equal(trace.instances.masks, expected)
        assert len(trace.cuts) == config.cuts
        masks += len(expected)
    assert masks == 10 * config.cuts


def test_tokencut_against_the_oracle():
    for seed in range(10):
        features, _ = feature_scene(seed, grid=(16, 13))
        for tau in (0.2, 0.5):
            result = segment_features(features, TokenCutConfig(tau=tau))
            np.testing.assert_array_equal(result.masks, [cut_oracle.tokencut(features, tau)])


# The rules, each by hand.


def grid(*rows: str) -> np.ndarray:
    return np.array([[character == "#" for character in row] for row in rows])


def drawn(*rows: str) -> np.ndarray:
    """An eigenvector: + 3, # 1, . -1, - -2."""
    return np.array([[{"+": 3.0, "#": 1.0, ".": -1.0, "-": -2.0}[c] for c in row] for row in rows])


def test_the_foreground_is_the_side_of_the_largest_entry_whatever_the_sign():
    x = drawn("....", ".#+.", ".##.", "....")
    for sign in (1, -1):
        front = foreground(sign * x)
        np.testing.assert_array_equal(front.partition, grid("    ", " ## ", " ## ", "    "))
        assert front.seed == (1, 2)
        assert not front.swapped
        assert front.map[1, 2] == 1
        # mean (12 * -1 + 3 * 1 + 3) / 16 = -0.375: the others' distances over the largest, 3.375
        assert front.map[1, 1] == pytest.approx(1.375 / 3.375)
        assert front.map[0, 0] == pytest.approx(-0.625 / 3.375)


def test_the_cut_is_at_the_mean_and_not_at_zero():
    x = np.array([[9.0, 2.0, 1.0, 0.5, 0.5]])  # mean 2.6
    np.testing.assert_array_equal(foreground(x).partition, grid("#    "))


def test_only_what_hangs_together_with_the_seed_is_taken():
    front = foreground(drawn("#....", "..#..", ".+#..", "...#.", "....."))
    # four neighbours count, corners that touch do not
    np.testing.assert_array_equal(
        front.component, grid("     ", "  #  ", " ##  ", "     ", "     ")
    )
    assert front.partition.sum() == 5
    assert front.seed == (2, 1)


def test_the_other_side_has_its_own_seed():
    x = drawn("+###", "#..-", "#...", "#...")
    front = foreground(x, weaker_side=True)
    np.testing.assert_array_equal(front.partition, grid("    ", " ###", " ###", " ###"))
    assert front.seed == (1, 3)
    assert front.map[1, 3] > front.map[1, 1] > 0 > front.map[0, 0]


@pytest.mark.parametrize(
    ("x", "count"),
    [
        (drawn("....", ".+#.", "...."), 0),
        (drawn("#++.", "##..", "...."), 1),
        (drawn("++##", "....", "...."), 2),
        (drawn("+###", "#..-", "#..."), 3),
        (drawn("+###", "#.-#", "####"), 4),
        (np.array([[3.0, -1.0, -1.0, 3.0]]), 4),
    ],
    ids=["0", "1", "2", "3", "4", "a row"],
)
def test_a_foreground_with_too_many_corners_changes_places(x, count, monkeypatch):
    assert corners(foreground(x).partition) == count
    features = np.random.default_rng(0).standard_normal((4, *x.shape))
    for most in range(5):
        for sign in (1, -1):  # LAPACK's; of the other one, the foreground lies below the mean
            scripted(monkeypatch, x)
            monkeypatch.setattr(normalized_cut, "lapack_sign", lambda graph, x: sign)  # noqa: B023
            cut = trace_segmentation(features, MaskCutConfig(cuts=1, max_corners=most)).cuts[0]
            swapped = count > most and sign == 1
            assert cut.foreground.swapped == swapped
            np.testing.assert_array_equal(
                cut.foreground.partition, ~(x > x.mean()) if swapped else x > x.mean()
            )
            assert cut.mask[cut.foreground.seed]


def test_of_equal_entries_the_first_is_the_seed():
    x = drawn("....", ".+.+", "....", "....")
    x[1, 1] -= 1e-9  # rounding
    assert foreground(x).seed == (1, 1)
    x[1, 1] -= 1e-3
    assert foreground(x).seed == (1, 3)


def scripted(monkeypatch, *vectors: np.ndarray) -> list[np.ndarray]:
    """Cuts whose eigenvectors are these; returns the patches that were taken out before each."""
    left, out = list(vectors), []

    def solve(graph):
        out.append(~graph.active)
        return Eigenvector(left.pop(0).ravel(), 0.5, 0.0, 1)

    monkeypatch.setattr(normalized_cut, "second_eigenvector", solve)
    return out


LEFT = drawn("......", ".##...", ".##...", ".#+...", "......")
RIGHT = drawn("......", "....#.", "....#.", "....+.", "......")
WIDE = drawn("......", ".####.", ".####.", ".#+##.", "......")
SHIFTED = drawn("......", "......", ".##...", ".##...", ".#+...")
SPECK = drawn("......", "......", "......", "......", "..+...")


def maskcut(monkeypatch, *vectors: np.ndarray, **parameters):
    out = scripted(monkeypatch, *vectors)
    features = np.random.default_rng(0).standard_normal((4, 5, 6))
    config = MaskCutConfig(score="constant", **{"min_area": 0.05, **parameters})
    trace = trace_segmentation(features, config)
    return trace, out, [cut.verdict for cut in trace.cuts]


def test_what_was_found_is_masked_out_and_taken_out_of_later_masks(monkeypatch):
    trace, out, verdicts = maskcut(monkeypatch, LEFT, RIGHT, WIDE)
    masks = trace.instances.masks
    assert verdicts == ["kept", "kept", "kept"]
    np.testing.assert_array_equal(masks[0], LEFT > 0)
    np.testing.assert_array_equal(masks[1], RIGHT > 0)
    np.testing.assert_array_equal(masks[2], (WIDE > 0) & (LEFT < 0) & (RIGHT < 0))
    assert trace.cuts[2].foreground.component.sum() == 12
    assert masks.sum(axis=(1, 2)).tolist() == [6, 3, 3]
    assert [taken.sum() for taken in out] == [0, 6, 9]
    np.testing.assert_array_equal(out[2].reshape(5, 6), (LEFT > 0) | (RIGHT > 0))


def test_a_cut_that_overlaps_the_one_before_has_no_mask(monkeypatch):
    # SHIFTED has 4 patches of LEFT's 6 and 2 others: IoU 0.5, which is not over 0.5
    _, _, verdicts = maskcut(monkeypatch, LEFT, SHIFTED, cuts=2)
    assert verdicts == ["kept", "kept"]
    _, _, verdicts = maskcut(monkeypatch, LEFT, SHIFTED, cuts=2, max_overlap=0.49)
    assert verdicts == ["kept", "overlaps"]
    # WIDE has all of LEFT's 6 and 6 others; what counts is its whole, not what is new in it
    _, _, verdicts = maskcut(monkeypatch, LEFT, WIDE, cuts=2, max_overlap=0.49)
    assert verdicts == ["kept", "overlaps"]


def test_after_a_rejection_nothing_is_masked_out_and_the_same_cut_is_taken_again(monkeypatch):
    """As in the authors' code: the cut before has no mask, so nothing overlaps it."""
    trace, out, verdicts = maskcut(monkeypatch, LEFT, WIDE, RIGHT, max_overlap=0.4, cuts=4)
    assert verdicts == ["kept", "overlaps", "kept", "kept"]
    masks = trace.instances.masks
    assert not masks[1].any()
    np.testing.assert_array_equal(masks[2], (WIDE > 0) & (LEFT < 0))
    assert [taken.sum() for taken in out] == [0, 6, 12]  # the third cut needed no solution
    # the fourth mask lies within those before
    assert not masks[3].any()
    assert trace.instances.scores.tolist() == [1, 0, 1, 0]


def test_small_cuts_after_the_first_have_no_mask(monkeypatch):
    # RIGHT is 3 of 30 patches
    for share, verdict in ((0.1, "small"), (0.099, "kept")):
        _, _, verdicts = maskcut(monkeypatch, LEFT, RIGHT, cuts=2, min_area=share)
        assert verdicts == ["kept", verdict]
    _, out, verdicts = maskcut(monkeypatch, SPECK, LEFT, SPECK, cuts=5)
    assert verdicts == ["kept", "kept", "small", "small", "small"]
    assert len(out) == 3  # what cannot change is not solved again


def test_as_many_cuts_as_wanted(monkeypatch):
    for cuts in (1, 2, 3):
        trace, _, _ = maskcut(monkeypatch, LEFT, RIGHT, WIDE, cuts=cuts)
        assert trace.instances.masks.shape == (cuts, 5, 6)


def test_tokencut_has_one_mask_and_no_rule_of_corners(monkeypatch):
    x = drawn("+###", "#..-", "#...", "#...")
    scripted(monkeypatch, x)
    result = segment_features(np.random.default_rng(0).standard_normal((4, 4, 4)), TokenCutConfig())
    np.testing.assert_array_equal(result.masks, [x > 0])


# By hand, from features on.


def test_an_object_is_cut_out_of_its_background():
    features = np.zeros((3, 10, 12))
    features[0] = 1  # background
    features[:, 3:7, 4:9] = np.array([0.1, 1, 0])[:, None, None]
    features[:, 0, 0] = [0.5, 0.5, 0]  # like both: else they were not connected
    for config in (TokenCutConfig(), MaskCutConfig(cuts=1)):
        result = segment_features(features, config)
        expected = np.zeros((10, 12), dtype=bool)
        expected[3:7, 4:9] = True
        np.testing.assert_array_equal(result.masks, [expected])
        assert 0 < result.scores[0] <= 1


@pytest.mark.parametrize("config", [TokenCutConfig(), MaskCutConfig()])
@pytest.mark.parametrize(
    "features",
    [np.ones((4, 6, 7)), np.zeros((4, 6, 7)), np.ones((4, 1, 1))],
    ids=["constant", "zero", "one patch"],
)
def test_where_there_is_nothing_to_cut_masks_are_empty(config, features):
    trace = trace_segmentation(features, config)
    masks = trace.instances.masks
    assert trace.instances.status == "no_cut"
    assert masks.shape == (getattr(config, "cuts", 1), *features.shape[1:])
    assert not masks.any()
    assert not trace.instances.scores.any()
    assert {cut.verdict for cut in trace.cuts} == {"no_cut"}
    assert {cut.foreground for cut in trace.cuts} == {None}


@pytest.mark.parametrize("shape", [(1, 2), (2, 1), (2, 2), (1, 9), (3, 3), (7, 31)])
def test_any_grid(shape: tuple[int, int]):
    features = np.random.default_rng(0).standard_normal((2, *shape))
    for config in (TokenCutConfig(), MaskCutConfig()):
        result = segment_features(features, config)
        assert result.masks.shape[1:] == shape
        assert (result.status == "ok") == result.masks.any()


def test_features_that_are_not_finite_are_refused():
    features = np.ones((2, 4, 4))
    features[0, 1, 1] = np.nan
    with pytest.raises(ValueError, match="features of 1 of 16 patches are NaN"):
        segment_features(features, MaskCutConfig())


def test_scores_rank_what_hangs_together_and_stands_out():
    """Two objects, of which one is noisy and resembles the background."""
    rng = np.random.default_rng(0)
    features = np.zeros((8, 20, 20))
    features[0] = 1
    features[:2, 2:8, 2:8] = np.array([-0.4, 1])[:, None, None]
    features[:3, 11:18, 11:18] = np.array([0.1, 0.2, 1])[:, None, None]
    features[:, 11:18, 11:18] += 0.25 * rng.standard_normal((8, 7, 7))
    features += 0.03 * rng.standard_normal(features.shape)
    result = segment_features(features, MaskCutConfig(cuts=2))
    clean = [mask[5, 5] for mask in result.masks].index(True)
    noisy = [mask[14, 14] for mask in result.masks].index(True)
    assert {clean, noisy} == {0, 1}
    assert 0 < result.scores[noisy] < result.scores[clean] < 1
    constant = segment_features(features, MaskCutConfig.preset("official").replace(cuts=2))
    np.testing.assert_array_equal(constant.scores, [1, 1])
    np.testing.assert_array_equal(constant.masks, result.masks)


def test_a_cuts_quality_worked_out_by_hand():
    from promerge_fo.segment.prompting import UnitFeatures
    from promerge_fo.segment.scoring import cut_quality

    # Of the mask's two patches one is surely inside (0.5 > 0.05), of the ring's two one possibly
    # (-0.04 > -0.05): 1 / 3. Its mean is (1, 0), that of the outside points along (0.6, 0.8).
    mask = np.array([[[False, False, True, True, False, False]]])
    map_ = np.array([[[-1, -0.3, 0.5, 0.04, -0.04, 0.4]]])
    features = torch.tensor([[[0.6, 1.2, 1, 3, 0.6, 0.6]], [[0.8, 1.6, 0, 0, 0.8, 0.8]]])
    quality = cut_quality(UnitFeatures(features, 0), mask, map_)
    assert quality == pytest.approx([np.sqrt(1 / 3 * 0.2)], rel=1e-5)
