"""Thresholds for the features of any encoder, chosen on images without labels."""

import json
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from promerge_fo import Calibration, calibrate, load_encoder
from promerge_fo.calibration import IMAGES
from promerge_fo.config import MaskCutConfig, ProMergeConfig, TokenCutConfig, run_hash
from promerge_fo.encoder.texture import TextureEncoder
from promerge_fo.pipeline import Pipeline, pipeline_of
from tests.scenes import Lifted, iou_matrix, painted_scene

NAME = "vit_tiny_patch16_224"
SIZE = 240


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Seeded weights whose last queries, keys and values have a large constant added to them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = timm.create_model(NAME, num_classes=0).state_dict()
        bias = state["blocks.11.attn.qkv.bias"]
        bias += 0.6 * torch.randn(bias.shape, generator=torch.Generator().manual_seed(1))
    path = tmp_path_factory.mktemp("lifted") / "lifted.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def scenes():
    return [painted_scene(seed) for seed in range(12)]


@pytest.fixture(scope="module")
def images(scenes):
    return [image for image, _ in scenes]


def encoder_of(checkpoint, facet=None):
    return load_encoder(NAME, checkpoint, facet, device="cpu", image_size=SIZE)


@pytest.fixture(scope="module")
def calibration(checkpoint, images):
    return calibrate(encoder_of(checkpoint), images)


def found(pipeline, scenes):
    """How many objects of the scenes there are, and how many of them have a mask."""
    results = pipeline([image for image, _ in scenes])
    hits = [
        (iou_matrix(truth, result.masks).max(axis=1) > 0.5).sum()
        for (_, truth), result in zip(scenes, results, strict=True)
        if len(result)
    ]
    return sum(len(truth) for _, truth in scenes), int(sum(hits))


@pytest.mark.parametrize("facet", ["key", "query", "value"])
@pytest.mark.parametrize("preset", ["default", "proposals"])
def test_lifted_features_give_no_masks_and_calibrated_ones_the_objects(
    checkpoint, scenes, images, facet, preset
):
    config = ProMergeConfig.preset(preset).replace(image_size=SIZE)
    pipeline = Pipeline(encoder_of(checkpoint, facet), config)
    calibrated = pipeline.calibrated(images)
    assert calibrated.calibration.before[0] > 0.7
    assert calibrated.calibration.is_centred
    assert calibrated.calibration.after[0] < 0.1
    objects, without = found(pipeline, scenes)
    assert without == 0
    assert found(calibrated, scenes)[1] > 0.7 * objects


def test_the_facet_is_chosen_where_none_was_named(checkpoint, calibration):
    assert calibration.facet in encoder_of(checkpoint).facets
    assert calibration.reasons[-1].startswith(f"facet {calibration.facet!r}: the others confirm")
    for facet in {"key", "query", "value", "token"} - {calibration.facet}:
        assert f"{facet} 0." in calibration.reasons[-1]
    pipeline = Pipeline(encoder_of(checkpoint)).calibrated(calibration)
    assert pipeline.encoder.facet == calibration.facet


def test_the_facet_is_the_one_that_the_others_confirm(images):
    class Several(TextureEncoder):
        """Texture as two of its facets, one with something added; noise is the third."""

        def facets_of(self, pixels):
            texture = self.encode([pixels])[0]
            noise = torch.randn(texture.shape, generator=torch.Generator().manual_seed(0))
            return {"noise": noise, "texture": texture, "lifted": texture + 1.0}

    encoder = Several(device="cpu", image_size=SIZE)
    encoder.facets = ("noise", "texture", "lifted")
    calibration = calibrate(encoder, images)
    assert calibration.facet in ("texture", "lifted")
    assert "noise 0." in calibration.reasons[-1]


def test_a_facet_that_was_named_stays(checkpoint, images):
    for facet in ("value", "normed_token"):
        calibration = calibrate(encoder_of(checkpoint, facet), images)
        assert calibration.facet == facet
        assert len(calibration.reasons) == 5


def test_the_floor_of_the_features_does_not_matter(images):
    plain, lifted = (kind(device="cpu", image_size=SIZE) for kind in (TextureEncoder, Lifted))
    one, other = calibrate(plain, images), calibrate(lifted, images)
    assert other.before[0] > 0.5 > 0 > one.before[0]
    assert other.after == pytest.approx(one.after, abs=0.005)
    for name, value in one.parameters.items():
        assert other.parameters[name] == pytest.approx(value, abs=0.005)
    config = ProMergeConfig(image_size=SIZE)
    expected = Pipeline(plain, config).calibrated(one)(images)
    for a, b in zip(Pipeline(lifted, config).calibrated(one_of(lifted, other))(images), expected,
                    strict=True):  # fmt: skip
        assert len(a) > 0
        assert abs(len(a) - len(b)) <= 2


def one_of(encoder, calibration):
    return replace(calibration, encoder=encoder.identity())


def test_what_the_user_names_stays():
    calibration = Calibration({}, 1, [0] * 5, [0] * 5, True, [0.0], {"tau_b": 0.5, "stride": 2}, [])
    chosen = calibration.configure(ProMergeConfig())
    assert (chosen.tau_b, chosen.stride, chosen.levels, chosen.max_masks) == (0.5, 2, 5, 40)
    named = calibration.configure(ProMergeConfig(tau_b=0.2, levels=1))
    assert (named.tau_b, named.stride, named.levels) == (0.2, 2, 1)
    changed = calibration.configure(ProMergeConfig.preset("proposals").replace(max_masks=7))
    assert (changed.tau_b, changed.levels, changed.max_masks, changed.crf_scale) == (0.5, 5, 7, 0.5)
    complete = ProMergeConfig.from_dict(ProMergeConfig().to_dict())
    assert calibration.configure(complete) == complete


@pytest.mark.parametrize(
    "config",
    [
        ProMergeConfig.preset("official"), ProMergeConfig.preset("paper"), MaskCutConfig(),
        TokenCutConfig(),
    ],
)  # fmt: skip
def test_what_is_the_papers_is_never_calibrated(config):
    pipeline = Pipeline(Lifted(device="cpu", image_size=SIZE), config)
    assert not pipeline.wants_calibration
    calibration = Calibration({}, 1, [0] * 5, [0] * 5, True, [0.0], {"tau_b": 0.5}, [])
    with pytest.raises(ValueError, match="only for ProMerge with a score that ranks masks; leave"):
        calibration.configure(config)


def test_dinos_first_models_and_texture_keep_the_papers_thresholds(tmp_path):
    path = tmp_path / "dino.pth"
    torch.save(timm.create_model("vit_small_patch16_224", num_classes=0).state_dict(), path)
    dino = load_encoder("vit_small_patch16_224.dino", path, device="cpu", image_size=64)
    assert not dino.wants_calibration
    assert not load_encoder("texture").wants_calibration
    other_block = load_encoder(
        "vit_small_patch16_224.dino", path, device="cpu", image_size=64, block=8
    )
    assert other_block.wants_calibration


def test_the_measured_images_lie_evenly_and_the_choice_is_the_same_each_time():
    seen = []

    class Watched(Lifted):
        def facets_of(self, pixels):
            seen.append(int(pixels[0, 0, 0]))
            return super().facets_of(pixels)

    images = [np.full((16, 16, 3), number, np.uint8) for number in range(200)]
    first = calibrate(Watched(device="cpu", image_size=16), images)
    assert first.images == len(seen) == IMAGES
    assert (seen[0], seen[-1]) == (0, 199)
    assert set(np.diff(seen)) <= {6, 7}
    assert calibrate(Watched(device="cpu", image_size=16), images) == first


def test_images_that_cannot_be_read_are_left_out(tmp_path, images):
    Image.fromarray(images[0]).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("no image")
    paths = [str(tmp_path / name) for name in ("bad.png", "good.png", "missing.png")]
    encoder = Lifted(device="cpu", image_size=SIZE)
    assert calibrate(encoder, paths).images == 1
    with pytest.raises(ValueError, match="none of 2 images .* can be read .*missing.png"):
        calibrate(encoder, [paths[0], paths[2]])
    with pytest.raises(ValueError, match="there are no images to calibrate on"):
        calibrate(encoder, [])


def test_features_that_are_not_finite_are_refused(images):
    class Broken(Lifted):
        def _encode(self, pixels, with_prompt_scores):
            features, scores = super()._encode(pixels, with_prompt_scores)
            features[:, 0, 0, 0] = float("inf")
            return features, scores

    with pytest.raises(ValueError, match="NaN or infinite; try precision='fp32'"):
        calibrate(Broken(device="cpu", image_size=SIZE), images)


def test_an_image_of_one_colour_costs_nothing():
    images = [np.full((64, 64, 3), 90, np.uint8)] * 3
    pipeline = Pipeline(Lifted(device="cpu", image_size=64), ProMergeConfig(image_size=64))
    assert [len(result) for result in pipeline.calibrated(images)(images)] == [0, 0, 0]


def test_the_run_has_its_name_from_centre_and_thresholds(checkpoint, calibration, images):
    pipeline = Pipeline(encoder_of(checkpoint), ProMergeConfig(image_size=SIZE))
    calibrated = pipeline.calibrated(calibration)
    assert calibrated.hash != pipeline.hash
    assert "calibration" not in pipeline.identity()
    other_words = replace(calibration, reasons=["other words"])
    assert pipeline.calibrated(other_words).hash == calibrated.hash
    moved = replace(calibration, centre=[value + 1 for value in calibration.centre])
    assert pipeline.calibrated(moved).hash != calibrated.hash

    stored = json.loads(json.dumps(calibrated.identity()))
    assert run_hash(stored) == calibrated.hash
    again = pipeline_of(stored, checkpoint, device="cpu")
    assert again.hash == calibrated.hash
    assert Calibration.from_dict(stored["calibration"]) == calibration
    for a, b in zip(again(images[:3]), calibrated(images[:3]), strict=True):
        np.testing.assert_array_equal(a.masks, b.masks)


def test_a_calibration_of_another_encoder_is_refused(checkpoint, calibration, images):
    other = encoder_of(checkpoint, "token" if calibration.facet != "token" else "key")
    with pytest.raises(ValueError, match="facet is"):
        Pipeline(other).calibrated(calibration)
    with pytest.raises(ValueError, match="the encoder is not the calibration's"):
        Pipeline(other, calibration=calibration)


def test_all_facets_come_of_one_pass(checkpoint, images):
    encoder = encoder_of(checkpoint)
    pixels = encoder.transform(images[0])
    facets = encoder.facets_of(pixels)
    assert list(facets) == ["key", "query", "value", "token"]
    for facet, features in facets.items():
        torch.testing.assert_close(encoder.with_facet(facet).encode([pixels])[0], features)
        torch.testing.assert_close(encoder_of(checkpoint, facet).encode([pixels])[0], features)
    with pytest.raises(ValueError, match="facet is 'normed_token', but .* has 'key' or 'query'"):
        encoder.with_facet("normed_token")
