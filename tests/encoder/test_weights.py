import argparse
import hashlib
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file

from promerge_fo.encoder import WeightsError, load_encoder, weights

TINY = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def state(checkpoint):
    return torch.load(checkpoint(TINY))


@pytest.fixture(scope="module")
def expected(checkpoint, images):
    return load_tiny(checkpoint(TINY))(images)


def load_tiny(path, name=TINY):
    return load_encoder(name, path, device="cpu", image_size=64)


def prefixed(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


LAYOUTS = {
    "a teacher and a student, as DINO's training leaves them": lambda state: {
        "student": prefixed({k: torch.zeros_like(v) for k, v in state.items()}, "module.backbone."),
        "teacher": {**prefixed(state, "backbone."), "head.last_layer.weight_v": torch.ones(3)},
        "optimizer": {"state": {}, "param_groups": []},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_tiny"),
    },
    "a wrapped model": lambda state: {"state_dict": prefixed(state, "module.encoder.")},
    "a model with a classifier": lambda state: {"model": {**state, "head.weight": torch.ones(9)}},
    "double precision": lambda state: {k: v.double() for k, v in state.items()},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_give_the_same_features(state, expected, images, tmp_path, layout):
    torch.save(LAYOUTS[layout](state), tmp_path / "weights.pth")
    assert torch.equal(load_tiny(tmp_path / "weights.pth")(images), expected)


def test_safetensors_and_the_files_hash(state, expected, images, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    encoder = load_tiny(str(path))
    assert torch.equal(encoder(images), expected)
    assert encoder.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert encoder.weights_source == str(path)


def test_dinov2s_own_names_are_translated(checkpoint, images, tmp_path):
    name = "vit_small_patch14_reg4_dinov2"
    state = torch.load(checkpoint(name))
    # DINOv2's files hold positions for the class token too, and name the registers differently.
    position = torch.randn(1, 1, 384, generator=torch.Generator().manual_seed(0))
    original = {k: v for k, v in state.items() if k not in ("reg_token", "cls_token", "pos_embed")}
    original["register_tokens"] = state["reg_token"]
    original["cls_token"] = state["cls_token"] - position
    original["pos_embed"] = torch.cat([position, state["pos_embed"]], dim=1)
    original["mask_token"] = torch.zeros(1, 384)
    torch.save(original, tmp_path / "dinov2_vits14_reg4_pretrain.pth")
    ours = load_tiny(tmp_path / "dinov2_vits14_reg4_pretrain.pth", name)(images)
    assert torch.allclose(ours, load_tiny(checkpoint(name), name)(images), atol=1e-4)


def change(**tensors):
    return lambda state: {k: v for k, v in {**state, **tensors}.items() if v is not None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change(cls_token=None), "1 missing: cls_token"),
        (change(extra=torch.ones(2)), "1 unexpected: extra"),
        (
            change(cls_token=torch.ones(1, 1, 384)),
            "1 of another shape: cls_token is 1 x 1 x 384 instead of 1 x 1 x 192",
        ),
        (
            change(**{"patch_embed.proj.weight": torch.ones(192, 3, 8, 8)}),
            "patch_embed.proj.weight is 192 x 3 x 8 x 8 instead of 192 x 3 x 16 x 16",
        ),
        (
            change(pos_embed=torch.ones(1, 785, 192)),
            "pos_embed is 1 x 785 x 192 instead of 1 x 197 x 192",
        ),
        (
            lambda state: {"weight": torch.ones(2)},
            "148 missing: cls_token, pos_embed, .*, [.]{3}; 1 unexp",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(state, tmp_path, change, message):
    torch.save(change(state), tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=rf"weights.pth does not fit {TINY}: .*{message}"):
        load_tiny(tmp_path / "weights.pth")


def test_another_architecture_is_refused(checkpoint):
    with pytest.raises(WeightsError, match="384 x 3 x 16 x 16 instead of 192 x 3 x 16 x 16"):
        load_tiny(checkpoint("vit_small_patch16_224.dino"))


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_not_executed(tmp_path):
    trace = tmp_path / "executed"
    torch.save({"cls_token": Malicious(trace)}, tmp_path / "evil.pth")
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"cls_token": Malicious(trace)}, protocol=2))
    for path in (tmp_path / "evil.pth", tmp_path / "evil.pt"):
        with pytest.raises(WeightsError, match="would execute code, which is refused"):
            load_tiny(path)
    assert not trace.exists()


def test_files_that_are_no_checkpoints_are_refused(tmp_path):
    (tmp_path / "text.pth").write_text("version https://git-lfs.github.com/spec/v1\n")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "text.safetensors").write_text("nothing of the sort")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    for name, message in [
        ("text.pth", "is no checkpoint, or it is broken"),
        ("empty.pth", "is no checkpoint, or it is broken"),
        ("text.safetensors", "is no checkpoint, or it is broken"),
        ("list.pth", "holds no weights .it is a list"),
        ("epoch.pth", "holds no weights"),
        ("absent.pth", "does not exist"),
        (".", "is a directory"),
    ]:
        with pytest.raises(WeightsError, match=message):
            load_tiny(tmp_path / name)


def offline(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(variable, raising=False)


def test_without_network_the_ways_out_are_named_soon(tmp_path):
    code = "from promerge_fo.encoder import load_encoder; load_encoder('vit_tiny_patch16_224')"
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert time.monotonic() - start < 60  # mostly imports, on a busy machine
    message = done.stderr.strip().splitlines()[-1]
    for part in ("WeightsError", "HF_HUB_OFFLINE", "Hugging Face hub", "checkpoint=", "'texture'"):
        assert part in message


@pytest.mark.parametrize("hang", [False, True])
def test_a_hub_out_of_reach_is_given_up_after_seconds(monkeypatch, tmp_path, hang):
    class Session:
        def head(self, *_, **__):
            time.sleep(30 * hang)
            raise OSError("Name or service not known")

    offline(monkeypatch, tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    monkeypatch.setattr(weights, "HUB_TIMEOUT_S", 0.5)
    start = time.monotonic()
    with pytest.raises(WeightsError, match="did not answer" if hang else "not known"):
        load_encoder(TINY)
    assert time.monotonic() - start < 10


def test_weights_come_from_the_hubs_cache(state, expected, images, monkeypatch, tmp_path):
    wanted = []

    def cached(repository, file, revision):
        wanted.append((repository, file, revision))
        return str(path) if file == path.name else None

    path = tmp_path / "pytorch_model.bin"
    torch.save(state, path)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    encoder = load_encoder(TINY, device="cpu", image_size=64)
    assert torch.equal(encoder(images), expected)
    repository = timm.get_pretrained_cfg(TINY).hf_hub_id
    assert encoder.weights_source == f"Hugging Face hub: {repository}"
    assert [file for _, file, _ in wanted] == ["model.safetensors", "pytorch_model.bin"]
    assert wanted[0][0] == repository


def test_weights_are_downloaded_as_timm_names_them(state, expected, images, monkeypatch, tmp_path):
    class Session:
        def head(self, *_, **__):
            pass

    def download(repository, file, revision):
        save_file(state, tmp_path / file)
        return str(tmp_path / file)

    offline(monkeypatch, tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    encoder = load_encoder(TINY, device="cpu", image_size=64)
    assert torch.equal(encoder(images), expected)
    saved = (tmp_path / "model.safetensors").read_bytes()
    assert encoder.weights_sha256 == hashlib.sha256(saved).hexdigest()
