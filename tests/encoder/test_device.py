"""The device is chosen by itself; Apple's GPU gets what it can do, the CPU the rest."""

from __future__ import annotations

import logging
from contextlib import ExitStack

import numpy as np
import pytest
import torch

from promerge_fo.calibration import calibrate
from promerge_fo.config import MaskCutConfig, ProMergeConfig
from promerge_fo.encoder import device as device_module
from promerge_fo.encoder import load_encoder
from promerge_fo.encoder.device import (
    describe_device,
    missing_on_cpu,
    out_of_memory,
    resolve_device,
)
from promerge_fo.instances import Crop
from promerge_fo.pipeline import Pipeline
from promerge_fo.segment import segment_features
from tests.encoder.apples_gpu import There, apples_gpu
from tests.scenes import feature_scene

TINY = "vit_tiny_patch16_224"


@pytest.fixture
def apple(monkeypatch):
    """``apple(*lacking)``: from here on this machine has Apple's GPU, without these operations."""
    with ExitStack() as stack:
        yield lambda *lacking: stack.enter_context(apples_gpu(monkeypatch, *lacking))


def load(checkpoint, **options):
    return load_encoder(TINY, checkpoint(TINY), **{"image_size": 64, **options})


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_cuda_comes_before_apples_gpu_and_that_before_the_cpu(
    monkeypatch, caplog, cuda, mps, chosen
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    device_module._say_that_apples_gpu_is_used.cache_clear()
    with caplog.at_level(logging.INFO):
        assert [resolve_device(None).type for _ in range(2)] == [chosen] * 2
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (chosen == "mps")  # once
    assert all("the encoder runs on Apple's GPU, in float32, and the rest on" in s for s in said)


def test_a_machine_without_apples_gpu_says_so():
    with pytest.raises(ValueError, match=r"'mps', which cannot be used here .*give 'cpu', 'cuda'"):
        resolve_device("mps")


def same(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.status == other.status != "failed", one.error
        np.testing.assert_array_equal(one.masks, other.masks)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)


@pytest.mark.parametrize(
    "config", [ProMergeConfig(image_size=64), MaskCutConfig(image_size=64)], ids=["promerge", "cut"]
)
def test_the_encoder_runs_on_apples_gpu_and_the_rest_beside_it(apple, checkpoint, images, config):
    """The stand-in refuses float64, pinned memory, and each call that only CUDA has."""
    plain = Pipeline(load(checkpoint, device="cpu"), config, threads=2)
    wanted = plain(images[:2], batch_size=2)
    called = apple()
    encoder = load(checkpoint, precision="auto")
    assert (encoder.device.type, encoder.precision) == ("mps", "fp32")
    pipeline = Pipeline(encoder, config, threads=2)
    assert pipeline.hash == plain.hash  # the device is no part of the method
    same(pipeline(images[:2], batch_size=2), wanted)
    assert called["addmm"] == 46  # all products of the model, once for both images
    assert not called["_embedding_bag_forward_only"] and pipeline.crf_device.type == "cpu"
    assert describe_device(encoder.device) == "mps (Apple's GPU)"
    (encoded,) = pipeline.encode([pipeline.prepare(images[0])])
    assert (encoded.features.device.type, encoded.ready) == ("cpu", None)
    crop = Crop(np.ones((9, 9), bool), 3, 3)
    assert np.isfinite(pipeline.means(encoded, [crop], images[0].shape[:2])).all()


def test_a_calibration_is_that_of_the_cpu(apple, checkpoint, images):
    wanted = calibrate(load(checkpoint, device="cpu"), images[:2])
    called = apple()
    encoder = load(checkpoint)
    found = calibrate(encoder, images[:2])
    assert called["addmm"]
    assert found.parameters == pytest.approx(wanted.parameters, abs=1e-4)
    assert found.centre == pytest.approx(wanted.centre, abs=1e-4)
    config = ProMergeConfig(image_size=64)
    (centred,) = Pipeline(encoder, config, threads=2, calibration=found)([images[0]])
    assert centred.status != "failed", centred.error


@pytest.mark.parametrize("config", [ProMergeConfig(), MaskCutConfig()], ids=["promerge", "cut"])
def test_features_on_apples_gpu_are_segmented_without_float64(apple, config):
    features = torch.from_numpy(feature_scene(seed=3)[0])
    wanted = segment_features(features, config)
    apple()
    found = segment_features(features.to("mps"), config)
    np.testing.assert_array_equal(found.masks, wanted.masks)
    assert len(found)


def test_the_cpu_computes_what_apples_gpu_lacks(apple, checkpoint, images, caplog):
    pixels = [np.ascontiguousarray(images[0][:64, :64])]
    wanted = load(checkpoint, device="cpu").encode(pixels)
    called = apple("gelu", "_upsample_bicubic2d_aa", "native_layer_norm")
    device_module._say_that_the_cpu_computes.cache_clear()
    encoder = load(checkpoint)
    torch.testing.assert_close(encoder.encode(pixels), wanted, rtol=1e-4, atol=1e-4)
    assert called["gelu"] == 11  # each was tried there first
    encoder.encode(pixels)
    said = [record.getMessage() for record in caplog.records]
    assert sorted(said) == [
        f"promerge: mps has no aten.{operation}.default, which the CPU computes"
        for operation in ("_upsample_bicubic2d_aa", "gelu", "native_layer_norm")
    ]


def test_an_operation_in_place_stays_in_its_place(apple):
    apple("add_", "arange")
    on_gpu = torch.zeros(3, device="mps")
    with pytest.raises(NotImplementedError, match="not currently implemented for the MPS device"):
        on_gpu.add_(1)
    with missing_on_cpu(on_gpu.device):
        assert on_gpu.add_(2) is on_gpu
        steps = torch.arange(3, device="mps")
    assert on_gpu.cpu().tolist() == [2, 2, 2]
    assert type(on_gpu) is type(steps) is There
    assert steps.cpu().tolist() == [0, 1, 2]
    with missing_on_cpu(on_gpu.device), pytest.raises(RuntimeError, match="same device"):
        on_gpu + torch.ones(4)  # wrong on the CPU, too: the error is the device's own


def test_cuda_and_the_cpu_are_not_watched():
    for device in ("cpu", "cuda"):
        with missing_on_cpu(torch.device(device)) as watching:
            assert watching is None


def test_the_crf_on_apples_gpu_is_the_one_on_the_cpu(apple, images):
    config = ProMergeConfig(image_size=64)
    encoder = load_encoder("texture", image_size=64)
    wanted = Pipeline(encoder, config, threads=1)(images)
    called = apple("_embedding_bag_forward_only")
    found = Pipeline(encoder, config, threads=1, crf_device="mps")(images)
    assert called["_embedding_bag_forward_only"]
    same(found, wanted)


def test_the_texture_encoder_has_nothing_to_do_there(apple):
    called = apple()
    encoder = load_encoder("texture", image_size=64)
    assert encoder.device.type == "cpu"
    encoder.encode([np.zeros((64, 64, 3), np.uint8)])
    assert not called


def test_a_batch_is_halved_where_apples_memory_runs_out(apple, checkpoint, images, monkeypatch):
    """Its error has no class: "MPS backend out of memory (MPS allocated: ...)"."""
    pixels = [np.ascontiguousarray(image[:64, :64]) for image in images]
    called = apple()
    encoder = load(checkpoint)
    calculate, seen = encoder._calculate, []

    def too_small(batch, *arguments):
        seen.append(len(batch))
        if len(batch) > 1:
            raise RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)")
        return calculate(batch, *arguments)

    monkeypatch.setattr(encoder, "_calculate", too_small)
    with pytest.warns(UserWarning, match="the memory of mps does not hold 3 images"):
        features = encoder.encode(pixels)
    assert (len(features), seen, called["empty_cache"]) == (3, [3, 1, 1, 1], 1)
    assert not out_of_memory(RuntimeError("another fault"))
