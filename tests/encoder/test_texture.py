import numpy as np
import pytest
import torch

from promerge_fo.encoder import Resize, load_encoder
from promerge_fo.encoder.texture import texture_description, texture_features


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("texture", device="cpu", image_size=160)


def cosines(features):
    flat = torch.nn.functional.normalize(features.flatten(1), dim=0)
    return flat.T @ flat


def two_halves():
    """A fine chequerboard in red on plain green."""
    image = np.zeros((160, 160, 3), np.uint8)
    image[..., 1] = 160
    board = (np.indices((60, 80)).sum(axis=0) // 2 % 2).astype(bool)
    image[50:110, 40:120] = np.where(board[..., None], (220, 40, 30), (120, 0, 0))
    return image


def test_features_are_centred_float32_on_a_grid_of_8_pixels(encoder, images):
    features = encoder(images)
    assert features.shape == (3, 15, 20, 20) and features.dtype == torch.float32
    assert features.mean(dim=(2, 3)).abs().max() < 1e-5
    assert encoder.patch_size == 8 and not encoder.has_prompt_scores


def test_cosines_run_from_unlike_to_alike(encoder):
    similarity = cosines(encoder([two_halves()])[0])
    inside, outside = 10 * 20 + 10, 2 * 20 + 2
    assert similarity[inside, outside] < -0.5
    assert similarity[inside, 9 * 20 + 9] > 0.95
    assert similarity[outside, 17 * 20 + 17] > 0.95


def test_features_are_the_same_every_time_and_in_every_batch(encoder, images):
    together = encoder(images)
    again = load_encoder("texture", device="cpu", image_size=160)
    for image, features in zip(images, together, strict=True):
        assert torch.equal(again([image])[0], features)


def test_an_image_of_one_colour_has_no_features(encoder):
    assert not encoder([np.full((50, 70, 3), 90, np.uint8)]).any()


def test_aspect(images):
    encoder = load_encoder("texture", device="cpu", image_size=160, resize="aspect")
    assert [tuple(f.shape) for f in encoder(images)] == [(15, 17, 23), (15, 23, 17), (15, 20, 20)]


def test_identity_and_arguments(encoder):
    assert encoder.identity() == {
        "name": "texture",
        "facet": "texture",
        "weights_sha256": None,
        "precision": "fp32",
        "image_size": 160,
        "resize": "square",
        "version": 1,
    }
    with pytest.raises(ValueError, match="'texture' has no weights"):
        load_encoder("texture", checkpoint="weights.pth")
    with pytest.raises(ValueError, match="'texture' has no model to compile"):
        load_encoder("texture", compile=True)
    with pytest.raises(ValueError, match="no class token"):
        encoder.encode([np.zeros((160, 160, 3), np.uint8)], with_prompt_scores=True)


def test_extreme_ratios_are_squeezed():
    resize = Resize(480, 8, "aspect")
    assert resize.grid(100, 800) == resize.grid(10, 4000) == (21, 170)
    assert resize.grid(4000, 10) == (170, 21)
    assert Resize(16, 16, "aspect").grid(10, 4000) == (1, 3)


def test_a_description_does_not_depend_on_the_rest_of_the_image():
    rng = np.random.default_rng(0)
    thing = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    images = []
    for background in (40, 210):
        image = np.full((96, 96, 3), background, dtype=np.uint8)
        image[32:64, 32:64] = thing
        images.append(image)
    inside = (slice(None), slice(5, 7), slice(5, 7))  # of the patches of the thing
    described = [texture_description(image)[inside] for image in images]
    assert described[0].shape == (14, 2, 2)
    assert described[0].dtype == np.float32
    np.testing.assert_array_equal(*described)
    features = [texture_features(image)[inside] for image in images]
    assert np.abs(features[0] - features[1]).max() > 0.3


def test_embeddings_are_of_the_description_and_masks_of_the_features():
    encoder = load_encoder("texture", device="cpu", image_size=64)
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    features, scores, described = encoder.encode_for_both([image])
    assert scores is None
    np.testing.assert_array_equal(features[0], texture_features(image))
    np.testing.assert_array_equal(encoder.encode([image])[0], texture_features(image))
    np.testing.assert_array_equal(described[0], texture_description(image))
    assert encoder.embedding_identity() == {**encoder.identity(), "described": 1}
