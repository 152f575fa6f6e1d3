"""DINO's ResNet-50 under detectron2's names; what is refused."""

import pickle

import pytest
import torch
import torchvision

from promerge_fo.detector.config import Layout
from promerge_fo.detector.weights import (
    layout_of,
    read_detector,
    refuse_pickle,
    to_detectron2_names,
)
from promerge_fo.encoder.weights import WeightsError


def test_names_by_hand():
    given = {
        "conv1.weight": 0,
        "bn1.running_mean": 1,
        "layer1.0.conv1.weight": 2,
        "layer1.0.bn3.bias": 3,
        "layer1.0.downsample.0.weight": 4,
        "layer1.0.downsample.1.running_var": 5,
        "layer3.5.conv2.weight": 6,
        "layer4.2.bn1.weight": 7,
        "layer4.2.bn1.num_batches_tracked": 8,
        "fc.weight": 9,
        "fc.bias": 10,
    }
    assert to_detectron2_names(given) == {
        "stem.conv1.weight": 0,
        "stem.conv1.norm.running_mean": 1,
        "res2.0.conv1.weight": 2,
        "res2.0.conv3.norm.bias": 3,
        "res2.0.shortcut.weight": 4,
        "res2.0.shortcut.norm.running_var": 5,
        "res4.5.conv2.weight": 6,
        "res5.2.conv1.norm.weight": 7,
        "res5.2.conv1.norm.num_batches_tracked": 8,
    }


def test_every_tensor_of_a_resnet50_has_a_name_of_its_own():
    state = torchvision.models.resnet50(weights=None).state_dict()
    renamed = to_detectron2_names(state)
    assert len(state) == 320
    assert len(renamed) == 318  # all but the classifier's two
    assert {k.partition(".")[0] for k in renamed} == {"stem", "res2", "res3", "res4", "res5"}


@pytest.mark.parametrize(
    "name", ["layer1.0.conv1.bias", "blocks.0.attn.qkv.weight", "layer1.conv1"]
)
def test_other_networks_are_named(name):
    with pytest.raises(ValueError, match="is no tensor of a ResNet"):
        to_detectron2_names({name: torch.zeros(1)})


class Harmful:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize("suffix", [".pkl", ".PKL", ".pickle"])
def test_pickles_are_refused_by_name(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps({"model": {}}))
    with pytest.raises(WeightsError, match=r"is a pickle.*dino_resnet50_pretrain\.pth"):
        refuse_pickle(path)


def test_pickles_under_other_names_are_not_executed(tmp_path, capsys):
    plain, saved = tmp_path / "plain.pth", tmp_path / "saved.pth"
    plain.write_bytes(pickle.dumps({"model": Harmful()}))
    torch.save({"model": Harmful()}, saved)
    for path in plain, saved:
        with pytest.raises(WeightsError, match="execute code|no checkpoint"):
            read_detector(path)
    assert "executed" not in capsys.readouterr().out


def test_checkpoints_without_weights(tmp_path):
    path = tmp_path / "empty.pth"
    torch.save({"model": {"iteration": 3}}, path)
    with pytest.raises(WeightsError, match="holds no weights"):
        read_detector(path)


def test_classes_are_named_in_the_checkpoint(tmp_path):
    path, state = tmp_path / "named.pth", {"a": torch.zeros(1)}
    torch.save({"model": state, "categories": {4: "cat", 2: "dog"}}, path)
    assert list(read_detector(path).categories.items()) == [(4, "cat"), (2, "dog")]
    for other in ({}, {"categories": {}}, {"categories": {"1": 1}}, {"categories": ["cat"]}):
        torch.save({"model": state, **other}, path)
        assert read_detector(path).categories == {1: "fg"}


def detector_names(stages=3, fpn_norm=True, convolutions=0, layers=2, classes=1):
    names = ["backbone.bottom_up.stem.conv1.weight", "roi_heads.mask_head.mask_fcn1.weight"]
    names += ["backbone.fpn_lateral2.norm.weight"] * fpn_norm
    for stage in range(stages):
        names += [f"roi_heads.box_head.{stage}.conv{k + 1}.weight" for k in range(convolutions)] + [
            f"roi_heads.box_head.{stage}.fc{k + 1}.weight" for k in range(layers)
        ]
    state = {name: torch.zeros(1) for name in names}
    state["roi_heads.box_predictor.0.cls_score.weight"] = torch.zeros(classes + 1, 4)
    return state


def test_the_layout_is_read_from_the_names():
    assert layout_of(detector_names(), "x") == Layout(True, 0, 2, False)
    assert layout_of(detector_names(fpn_norm=False, convolutions=4, layers=1), "x") == Layout(
        False, 4, 1, False
    )


def test_detectors_of_other_kinds_are_refused():
    with pytest.raises(WeightsError, match="x knows 80 classes.*class-agnostic"):
        layout_of(detector_names(classes=80), "x")
    with pytest.raises(WeightsError, match="x knows 1 classes, but has names of 2"):
        layout_of(detector_names(), "x", 2)
    assert layout_of(detector_names(classes=80), "x", 80).classes == 80
    with pytest.raises(WeightsError, match="x is of another network"):
        layout_of({"conv1.weight": torch.zeros(1)}, "x")
