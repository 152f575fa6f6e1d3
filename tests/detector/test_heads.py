"""DropLoss, by hand and in every stage; DINO's weights in the network."""

import math

import numpy as np
import pytest
import torch
import torchvision

from promerge_fo.detector import DetectorConfig
from promerge_fo.detector.config import Layout, detectron2_config

SMALL = DetectorConfig(regions=32, proposals=100)


@pytest.fixture(scope="module")
def network(detectron2):
    from promerge_fo.detector.heads import build

    torch.manual_seed(0)
    return build(detectron2_config(SMALL, "cpu")).train()


@pytest.mark.parametrize(("min_iou", "expected"), [(0.01, math.log(8)), (0.0, math.log(16))])
def test_regions_that_overlap_no_label_count_for_nothing(detectron2, min_iou, expected):
    from promerge_fo.detector.heads import drop_loss

    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0], [math.log(3), 0.0]], requires_grad=True)
    classes = torch.tensor([0, 1, 1])  # an object, and twice background
    overlaps = torch.tensor([0.5, 0.0, 0.01])
    loss = drop_loss(logits, classes, overlaps, min_iou)
    # cross-entropies log 2, log 2 and log 4; the second region is ignored, but still counted
    assert loss.item() == pytest.approx(expected / 3)
    loss.backward()
    assert logits.grad[1].abs().sum().item() == pytest.approx(0.0 if min_iou else 1 / 3)
    assert logits.grad[2, 0].item() == pytest.approx(0.75 / 3)


def test_no_regions(detectron2):
    from promerge_fo.detector.heads import drop_loss

    logits = torch.zeros((0, 2), requires_grad=True)
    loss = drop_loss(logits, torch.zeros(0, dtype=torch.int64), torch.zeros(0), 0.01)
    assert loss.item() == 0
    loss.backward()


def batch(masks):
    from promerge_fo.detector.data import Picture, to_detectron2

    pixels = torch.randint(0, 255, (96, 96, 3), generator=torch.Generator().manual_seed(1))
    classes = np.zeros(len(masks), dtype=np.int64)
    return [to_detectron2(Picture(pixels.numpy().astype("uint8"), masks, classes))]


def losses(network, masks, monkeypatch):
    """The losses of one image, and what drop_loss was given in each stage."""
    from detectron2.utils.events import EventStorage

    from promerge_fo.detector import heads

    calls, real = [], heads.drop_loss

    def recorded(*args):
        calls.append([a.detach().clone() if torch.is_tensor(a) else a for a in args])
        return real(*args)

    monkeypatch.setattr(heads, "drop_loss", recorded)
    torch.manual_seed(0)
    with EventStorage():
        return network(batch(masks)), calls


def test_all_three_stages_drop(network, monkeypatch):
    masks = torch.zeros((1, 96, 96), dtype=torch.bool).numpy()
    masks[0, 8:40, 8:40] = True
    found, calls = losses(network, masks, monkeypatch)
    assert len(calls) == 3
    for stage, (logits, classes, overlaps, min_iou) in enumerate(calls):
        assert min_iou == 0.01
        assert len(logits) == len(classes) == len(overlaps)
        objects = classes == 0
        assert (overlaps[objects] >= (0.5, 0.6, 0.7)[stage]).all()
        assert (overlaps[~objects] < (0.5, 0.6, 0.7)[stage]).all()
        each = torch.nn.functional.cross_entropy(logits, classes, reduction="none")
        expected = each[overlaps >= 0.01].sum() / len(classes)
        assert found[f"loss_cls_stage{stage}"].item() == pytest.approx(expected.item(), rel=1e-5)
        assert (overlaps < 0.01).any()  # there was something to ignore
    assert set(found) == {
        *(f"loss_{kind}_stage{stage}" for kind in ("cls", "box_reg") for stage in range(3)),
        "loss_mask",
        "loss_rpn_cls",
        "loss_rpn_loc",
    }


def test_an_image_without_labels_teaches_the_heads_nothing(network, monkeypatch):
    found, calls = losses(network, torch.zeros((0, 96, 96), dtype=torch.bool).numpy(), monkeypatch)
    assert all((overlaps == 0).all() for _, _, overlaps, _ in calls)
    assert [found[f"loss_cls_stage{k}"].item() for k in range(3)] == [0, 0, 0]


@pytest.mark.parametrize("wrapped", [False, True])
def test_dinos_resnet_gives_the_same_features(network, tmp_path, wrapped):
    """torchvision's network and detectron2's, of the same file: the same last feature map."""
    from promerge_fo.detector.weights import load_backbone

    torch.manual_seed(3)
    theirs = torchvision.models.resnet50(weights=None)
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as if it were trained
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1)
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    if wrapped:  # DINO's full checkpoint
        state = {
            "student": {"module.backbone.conv1.weight": torch.zeros(1)},
            "teacher": {f"backbone.{k}": v for k, v in state.items()}
            | {"head.mlp.0.weight": torch.zeros(1)},
            "epoch": 800,
        }
    torch.save(state, tmp_path / "dino.pth")
    before = network.backbone.fpn_output2.weight.clone()
    load_backbone(network, tmp_path / "dino.pth")
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    theirs.eval()
    ours = network.backbone.bottom_up.eval()
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
        expected = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(x))))
        found = ours(image)["res5"]
    network.train()
    assert expected.abs().mean() > 0.05
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert (network.backbone.fpn_output2.weight == before).all()


@pytest.mark.parametrize(
    "layout",
    [
        Layout(),
        Layout(False),
        Layout(box_convolutions=4, box_layers=1, mask_norm=True),
        Layout(classes=3),
    ],
)
def test_a_network_is_told_by_its_tensors(detectron2, layout):
    from promerge_fo.detector.heads import build
    from promerge_fo.detector.weights import layout_of, load_detector

    made = build(detectron2_config(SMALL, "cpu", layout))
    state = {k: v + 1 for k, v in made.state_dict().items()}
    assert layout_of(state, "x", layout.classes) == layout
    load_detector(made, state, "x")
    name = "roi_heads.box_head.2.fc1.weight"
    assert (made.state_dict()[name] == state[name]).all()


def test_other_backbones_are_refused(network, tmp_path):
    from promerge_fo.detector.weights import load_backbone
    from promerge_fo.encoder.weights import WeightsError

    for name, words in (
        ("resnet18", r"another network than ResNet-50: \d+ tensors are missing"),
        ("resnet101", r"\d+ tensors are unknown, such as backbone\.bottom_up\.res4\.6"),
        ("wide_resnet50_2", "tensors have another shape"),
        ("alexnet", "no tensor of a ResNet"),
    ):
        path = tmp_path / f"{name}.pth"
        torch.save(getattr(torchvision.models, name)(weights=None).state_dict(), path)
        with pytest.raises(WeightsError, match=words):
            load_backbone(network, path)


def test_checkpoints_are_read_without_executing_them(network, tmp_path, capsys):
    import pickle

    from promerge_fo.detector.checkpoints import SafeCheckpointer
    from promerge_fo.encoder.weights import WeightsError

    class Harmful:
        def __reduce__(self):
            return (print, ("executed",))

    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"model": Harmful(), "__author__": "x"}))
    torch.save({"model": Harmful()}, tmp_path / "a.pth")
    for name, words in (("a.pkl", "is a pickle"), ("a.pth", "would execute code")):
        with pytest.raises(WeightsError, match=words):
            SafeCheckpointer(network).load(str(tmp_path / name))
    assert "executed" not in capsys.readouterr().out

    checkpointer = SafeCheckpointer(network, str(tmp_path))
    checkpointer.save("model_0000001", iteration=1)
    saved = network.roi_heads.box_predictor[0].cls_score.bias
    kept = saved.detach().clone()
    with torch.no_grad():
        saved.add_(1)
    extra = checkpointer.load(checkpointer.get_checkpoint_file())
    assert (saved == kept).all()
    assert extra["iteration"] == 1
    assert not list(tmp_path.glob("*.partial"))
