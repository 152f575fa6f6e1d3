import json
import math

import numpy as np
import pytest

from promerge_fo.config import (
    METHODS,
    Filtering,
    MaskCutConfig,
    MergeRule,
    ProMergeConfig,
    Refine,
    Score,
    TokenCutConfig,
    run_hash,
)


def test_defaults_are_the_papers_and_the_released_codes():
    assert ProMergeConfig().to_dict() == {
        "image_size": 480,
        "prompting": "grid",
        "stride": 4,
        "seed": 0,
        "tau_b": 0.2,
        "norm_eps": 1e-5,
        "split_components": "relative",
        "min_component_ratio": 0.5,
        "background_vote": "majority",
        "min_background_area": 0.1,
        "filtering": "cascade",
        "tau_ioa_bg": 0.8,
        "tau_f_bg": 0.1,
        "nms_iou": 0.5,
        "merge_rule": "official",
        "tau_overlap_merge": 0.5,
        "tau_ioa_merge": 0.1,
        "tau_f_merge": 0.1,
        "levels": 1,
        "low_tau_b": 0.4,
        "high_tau_b": 0.75,
        "min_mask_area": 0.0,
        "duplicate_iou": 1.0,
        "part_penalty": 0.0,
        "max_masks": 0,
        "refine": "crf",
        "crf_scale": 1.0,
        "fill_holes": True,
        "min_refined_iou": 0.5,
        "score": "objectness",
    }


def test_defaults_of_maskcut_and_tokencut():
    maskcut = {
        "image_size": 480,
        "cuts": 3,
        "tau": 0.15,
        "eps": 1e-5,
        "max_corners": 2,
        "max_overlap": 0.5,
        "min_area": 0.01,
        "refine": "crf",
        "fill_holes": True,
        "min_refined_iou": 0.5,
        "score": "quality",
    }
    assert MaskCutConfig().to_dict() == maskcut
    tokencut = {
        **{name: maskcut[name] for name in ("image_size", "eps", "refine", "score")},
        "tau": 0.2,
        "fill_holes": False,
        "min_refined_iou": 0.0,
    }
    assert TokenCutConfig().to_dict() == tokencut


def test_every_method_has_a_configuration_of_its_name():
    kinds = [("promerge", ProMergeConfig), ("maskcut", MaskCutConfig), ("tokencut", TokenCutConfig)]
    assert list(METHODS.items()) == kinds
    assert [kind().method for kind in METHODS.values()] == list(METHODS)
    assert [kind().wants_prompt_scores for kind in METHODS.values()] == [False] * 3
    assert ProMergeConfig(prompting="attention").wants_prompt_scores


@pytest.mark.parametrize("kind", [MaskCutConfig, TokenCutConfig])
def test_configurations_of_cuts_are_made_and_read_like_the_others(kind):
    assert kind.preset("default") == kind.preset("fast") == kind()
    official = kind.preset("official")
    assert official == kind(score="constant")
    changed = official.replace(tau=0.3, refine="none", image_size=240)
    assert (changed.tau, changed.refine, changed.image_size) == (0.3, Refine.NONE, 240)
    assert type(changed) is kind
    assert kind.from_json(changed.to_json()) == changed
    assert hash(kind.from_dict(changed.to_dict())) == hash(changed)
    assert list(changed.to_dict()) == [record["name"] for record in kind.describe()]
    with pytest.raises(ValueError, match="no preset 'paper'; the presets are 'default', 'off"):
        kind.preset("paper")
    with pytest.raises(TypeError, match=f"'tau_b' is no parameter of {kind.__name__}; did you me"):
        kind().replace(tau_b=0.3)
    with pytest.raises(AttributeError):
        changed.tau = 0.1


@pytest.mark.parametrize(
    ("parameters", "error", "words"),
    [
        ({"tau": -0.1}, ValueError, r"tau is -0.1, but must lie in \[0, 1\] \(cosine above"),
        ({"cuts": 0}, ValueError, r"cuts is 0, but must lie in \[1, 100\]"),
        ({"cuts": 2.5}, TypeError, "cuts is 2.5, but must be a whole number"),
        ({"eps": 0}, ValueError, r"eps is 0.0, but must lie in \[1e-07, 0.1\]"),
        ({"max_corners": 5}, ValueError, r"max_corners is 5, but must lie in \[0, 4\]"),
        ({"refine": "magic"}, ValueError, "refine is 'magic', but must be one of 'crf'"),
    ],
)
def test_bad_values_of_maskcut_are_named(parameters, error, words):
    with pytest.raises(error, match=words):
        MaskCutConfig(**parameters)


def test_presets():
    default = ProMergeConfig()
    assert ProMergeConfig.preset("default") == default
    assert ProMergeConfig.preset("official") == default.replace(score="constant")
    paper = ProMergeConfig.preset("paper")
    assert (paper.merge_rule, paper.score) == (MergeRule.EITHER, Score.CONSTANT)
    assert (paper.min_background_area, paper.min_refined_iou, paper.fill_holes) == (0, 0, False)
    assert ProMergeConfig.preset("fast") == default.replace(stride=2)
    with pytest.raises(ValueError, match="no preset 'best'.*'official', 'paper'"):
        ProMergeConfig.preset("best")


def test_json_round_trip():
    config = ProMergeConfig.preset("paper").replace(stride=6, tau_b=0.3, filtering="nms")
    assert ProMergeConfig.from_json(config.to_json()) == config
    assert json.loads(config.to_json())["filtering"] == "nms"
    assert ProMergeConfig.from_json('{"stride": 2}') == ProMergeConfig(stride=2)
    with pytest.raises(TypeError, match="JSON object"):
        ProMergeConfig.from_json("[1]")


def test_numpy_scalars_are_numbers():
    config = ProMergeConfig(stride=np.int64(3), tau_b=np.float32(0.25))
    assert (config.stride, config.tau_b) == (3, 0.25)
    assert type(config.stride) is int
    assert type(config.tau_b) is float


@pytest.mark.parametrize(
    ("parameters", "error", "words"),
    [
        ({"tau_b": 3}, ValueError, r"tau_b is 3.0, but must lie in \[-1, 1\]"),
        ({"tau_b": math.nan}, TypeError, "tau_b is nan, but must be a number"),
        ({"tau_b": "0.2"}, TypeError, "tau_b is '0.2', but must be a number"),
        ({"stride": 0}, ValueError, r"stride is 0, but must lie in \[1, 1024\]"),
        ({"stride": 1.5}, TypeError, "stride is 1.5, but must be a whole number"),
        ({"stride": True}, TypeError, "stride is True, but must be a number"),
        ({"fill_holes": 1}, TypeError, "fill_holes is 1, but must be True or False"),
        ({"filtering": "best"}, ValueError, "filtering is 'best', but must be one of 'cascade'"),
        ({"min_background_area": -0.1}, ValueError, r"must lie in \[0, 1\]"),
    ],
)
def test_bad_values_are_named(parameters, error, words):
    with pytest.raises(error, match=words):
        ProMergeConfig(**parameters)
    with pytest.raises(error, match=words):
        ProMergeConfig().replace(**parameters)


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(TypeError, match="'tau_merge' is no parameter.*did you mean 'tau_f_merge'"):
        ProMergeConfig().replace(tau_merge=0.1)
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        ProMergeConfig(tau_merge=0.1)


def test_frozen():
    with pytest.raises(AttributeError):
        ProMergeConfig().stride = 3


def test_describe_has_all_that_a_form_needs():
    records = {r["name"]: r for r in ProMergeConfig.describe()}
    assert list(records) == list(ProMergeConfig().to_dict())
    assert all(r["meaning"] and r["source"] for r in records.values())
    assert records["tau_b"] | {"meaning": "", "source": ""} == {
        "name": "tau_b",
        "type": "float",
        "default": 0.2,
        "choices": None,
        "low": -1,
        "high": 1,
        "meaning": "",
        "source": "",
    }
    assert records["filtering"]["choices"] == [f.value for f in Filtering]
    assert records["fill_holes"]["type"] == "bool"


def test_run_hash_depends_on_every_value_and_on_no_order():
    parts = {"method": "promerge", "config": ProMergeConfig().to_dict(), "image_size": 480}
    assert run_hash(parts) == run_hash(dict(reversed(parts.items())))
    assert len(run_hash(parts)) == 16
    assert run_hash(parts) != run_hash({**parts, "image_size": 481})
    changed = ProMergeConfig(tau_b=0.21).to_dict()
    assert run_hash(parts) != run_hash({**parts, "config": changed})
