"""Every preset and every switch against the plain transcription of Algorithm 1."""

import numpy as np
import pytest

from promerge_fo.config import ProMergeConfig
from promerge_fo.segment import segment_features, trace_segmentation
from tests.needs import need
from tests.scenes import feature_scene
from tests.segment import oracle

VARIANTS = {
    "official": ("official", {}),
    "paper": ("paper", {}),
    "stride": ("official", {"stride": 3, "tau_b": 0.35}),
    "random": ("official", {"prompting": "random", "seed": 5}),
    "iterative": ("official", {"prompting": "iterative"}),
    "attention": ("official", {"prompting": "attention"}),
    "attentive": ("official", {"prompting": "attentive"}),
    "attentive, few": ("official", {"prompting": "attentive", "stride": 9}),
    "union": ("paper", {"background_vote": "union"}),
    "split none": ("paper", {"split_components": "none"}),
    "split ratio": ("official", {"min_component_ratio": 0.05}),
    "filter ioa": ("paper", {"filtering": "ioa", "tau_ioa_bg": 0.5}),
    "filter feature": ("paper", {"filtering": "feature", "tau_f_bg": 0.0}),
    "filter nms": ("paper", {"filtering": "nms", "nms_iou": 0.4, "merge_rule": "none"}),
    "filter none": ("paper", {"filtering": "none", "merge_rule": "none"}),
    "no background, merged": ("official", {"filtering": "none"}),
    "merge ioa": ("official", {"merge_rule": "ioa"}),
    "merge feature": ("official", {"merge_rule": "feature", "tau_f_merge": 0.3}),
    "merge none": ("official", {"merge_rule": "none"}),
    "merge thresholds": (
        "official",
        {"tau_overlap_merge": 0.9, "tau_ioa_merge": 0.02, "tau_f_merge": 0.45},
    ),
    "background area": ("official", {"min_background_area": 0.7}),
}
SEEDS = range(6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_against_oracle(variant: str):
    preset, changes = VARIANTS[variant]
    if changes.get("prompting") == "attentive":
        need("finch", "pip install finch-clust")
    config = ProMergeConfig.preset(preset).replace(**changes)
    instances = 0
    for seed in SEEDS:
        features, _ = feature_scene(seed, grid=(18, 22) if seed % 2 else (20, 20))
        scores = None
        if config.prompting.value == "attention":
            scores = np.random.default_rng(seed).random(features.shape[1:], dtype=np.float32)
        expected = oracle.run(features, config.to_dict(), scores)
        trace = trace_segmentation(features, config, scores)
        assert trace.instances.status == expected["status"]
        assert trace.is_candidate.sum() == expected["n_background"]
        np.testing.assert_array_equal(trace.foreground, stacked(expected["foreground"], features))
        if expected["background"] is None:
            assert trace.background is None
        else:
            np.testing.assert_array_equal(trace.background, expected["background"])
        by_area = sorted(expected["kept"], key=lambda m: int(m.sum()))
        np.testing.assert_array_equal(trace.kept, stacked(by_area, features))
        # equal areas with the same first patch have no order of their own: compare as sets
        assert sorted(m.tobytes() for m in trace.instances.masks) == sorted(
            m.tobytes() for m in expected["merged"]
        )
        instances += len(expected["merged"])
    # a variant that no scene exercises would prove nothing
    assert instances > 0 or variant == "background area"


def stacked(masks: list[np.ndarray], features: np.ndarray) -> np.ndarray:
    return np.array(masks) if masks else np.zeros((0, *features.shape[1:]), dtype=bool)


def test_scenes_reach_every_status_and_every_verdict():
    statuses, verdicts = set(), set()
    for seed in range(40):
        features, _ = feature_scene(seed, noise=0.1 + 0.02 * (seed % 10))
        for changes in ({}, {"tau_b": 0.7}, {"tau_f_bg": -0.5}, {"min_background_area": 0.85}):
            trace = trace_segmentation(features, ProMergeConfig(**changes))
            statuses.add(trace.instances.status)
            if trace.verdicts is not None:
                verdicts |= set(trace.verdicts.tolist())
    assert statuses == {"ok", "no_background", "background_too_small", "all_filtered"}
    assert verdicts == {0, 1, 2, 3}


def test_order_of_equal_masks_does_not_depend_on_chance():
    features, _ = feature_scene(3)
    first = segment_features(features)
    again = segment_features(features.copy())
    np.testing.assert_array_equal(first.masks, again.masks)
    np.testing.assert_array_equal(first.scores, again.scores)
    areas = first.masks.sum(axis=(1, 2))
    assert (np.diff(areas) <= 0).all()
