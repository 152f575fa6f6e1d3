"""The dense CRF in torch against the one in numba, and against itself in other batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data

from promerge_fo.config import ProMergeConfig
from promerge_fo.refine import complete, crf_batch, crf_size, refine_resized
from promerge_fo.refine import torch_crf as module
from promerge_fo.refine.dense_crf import dense_crf
from promerge_fo.refine.torch_crf import dense_crf_batch
from tests.refine.test_dense_crf import iou, patch_masks, photograph

NAMES = ("coffee", "chelsea", "astronaut", "rocket")
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
on_every_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=CUDA)])


def batch(images, masks, device="cpu", scale=1.0):
    """dense_crf_batch of a list of images and one of their masks; its result as such a list."""
    counts = [len(part) for part in masks]
    refined = dense_crf_batch(
        torch.from_numpy(np.stack(images)).to(device),
        torch.from_numpy(np.concatenate(masks)).to(device),
        torch.arange(len(images), device=device).repeat_interleave(
            torch.tensor(counts, device=device)
        ),
        scale,
    )
    assert refined.device.type == device and refined.dtype == torch.bool
    return np.split(refined.cpu().numpy(), np.cumsum(counts)[:-1])


def scenes(size, counts):
    images = [photograph(NAMES[i % 4], size) for i in range(len(counts))]
    return images, [patch_masks(i, max(n, 1), size)[:n] for i, n in enumerate(counts)]


@on_every_device
@pytest.mark.parametrize("size", [(240, 240), (160, 240)])
def test_masks_are_those_of_numba(size, device):
    images, masks = scenes(size, (6, 6, 6, 6))
    expected = np.concatenate([dense_crf(*each) for each in zip(images, masks, strict=True)])
    agreement = iou(np.concatenate(batch(images, masks, device)), expected)
    assert agreement.mean() >= 0.9999
    assert agreement.min() >= 0.999


@on_every_device
def test_masks_are_those_of_numba_at_the_methods_size(device):
    images, masks = scenes((480, 480), (8,))
    agreement = iou(batch(images, masks, device)[0], dense_crf(images[0], masks[0]))
    assert agreement.mean() >= 0.9999
    assert agreement.min() >= 0.999


@on_every_device
def test_smaller_kernels_are_those_of_numba(device):
    images, masks = scenes((120, 160), (6, 6))
    expected = np.concatenate([dense_crf(*each, 0.5) for each in zip(images, masks, strict=True)])
    agreement = iou(np.concatenate(batch(images, masks, device, 0.5)), expected)
    assert agreement.mean() >= 0.9999
    assert agreement.min() >= 0.999


@on_every_device
def test_an_image_does_not_depend_on_the_images_beside_it(device):
    images, masks = scenes((60, 80), (3, 0, 5, 1, 0))
    together = batch(images, masks, device)
    assert [len(part) for part in together] == [3, 0, 5, 1, 0]
    for image, part, expected in zip(images, masks, together, strict=True):
        assert np.array_equal(batch([image], [part], device)[0], expected)
    turned = batch(images[::-1], masks[::-1], device)[::-1]
    assert all(map(np.array_equal, turned, together))


@on_every_device
def test_a_mask_does_not_depend_on_the_masks_beside_it(device):
    images, masks = scenes((60, 80), (21,))
    together = batch(images, masks, device)[0]
    for n in (1, 2, 5, 16):
        assert np.array_equal(batch(images, [masks[0][:n]], device)[0], together[:n])
    assert np.array_equal(batch(images, [masks[0][::-1]], device)[0], together[::-1])


@on_every_device
def test_runs_repeat(device):
    images, masks = scenes((120, 96), (7, 4))
    first, second = batch(images, masks, device), batch(images, masks, device)
    assert all(map(np.array_equal, first, second))
    with torch.autocast(device, dtype=torch.bfloat16):
        assert all(map(np.array_equal, first, batch(images, masks, device)))


@on_every_device
@pytest.mark.parametrize(
    ("working_set", "images_at_a_time", "lanes_at_a_time"),
    [
        (2**31, [3], [5]),
        (2 * module._LATTICE_BYTES * 90 * 120, [2, 1], [5, 2]),
        (1, [1, 1, 1], [1] * 10),
    ],
)
def test_parts_of_any_size_give_the_same(
    monkeypatch, device, working_set, images_at_a_time, lanes_at_a_time
):
    images, masks = scenes((90, 120), (3, 0, 5, 2))
    expected = batch(images, masks, device)
    lattices, lanes = [], []
    build, mean_field = module._build_lattice, module._mean_field

    def counted_build(part, scale):
        lattices.append(len(part))
        return build(part, scale)

    def counted_mean_field(unary, lattice):
        lanes.append(unary.shape[1])
        return mean_field(unary, lattice)

    monkeypatch.setattr(module, "WORKING_SET", working_set)
    monkeypatch.setattr(module, "_build_lattice", counted_build)
    monkeypatch.setattr(module, "_mean_field", counted_mean_field)
    assert all(map(np.array_equal, batch(images, masks, device), expected))
    assert lattices == images_at_a_time
    assert lanes == lanes_at_a_time


@on_every_device
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (2, 3), (31, 64)])
def test_odd_sizes_give_what_numba_gives(size, device):
    image = photograph("coffee", size)
    masks = np.random.default_rng(1).random((9, *size)) < 0.5
    assert (batch([image], [masks], device)[0] == dense_crf(image, masks)).mean() >= 0.999


@on_every_device
def test_images_without_edges_give_what_numba_gives(device):
    images = [np.full((120, 100, 3), grey, np.uint8) for grey in (0, 128, 255)]
    masks = [patch_masks(i, 6, (120, 100)) for i in range(3)]
    found = batch(images, masks, device)
    for image, part, refined in zip(images, masks, found, strict=True):
        assert iou(refined, dense_crf(image, part)).min() >= 0.999


@on_every_device
def test_noise_gives_what_numba_gives(device):
    image = np.random.default_rng(2).integers(0, 256, (64, 80, 3)).astype(np.uint8)
    masks = patch_masks(3, 6, (64, 80))
    assert iou(batch([image], [masks], device)[0], dense_crf(image, masks)).min() >= 0.999


@on_every_device
def test_the_vertices_are_those_of_numba_in_runs_of_pixels(device):
    from promerge_fo.refine import dense_crf as numba_module

    image = photograph("coffee", (60, 70))
    lattice = module._build_lattice(torch.tensor(image[None], device=device))
    sizes = numba_module._bilateral_lattice(image), numba_module._spatial_lattice(60, 70)
    assert len(lattice.steps[-1].starts) - 1 == sum(part.size for part in sizes)
    pixels_a_thread = np.diff(lattice.steps[0].starts.cpu(), append=60 * 70 * 9)
    assert pixels_a_thread.max() == module._RUN and pixels_a_thread.min() > 0


@on_every_device
def test_no_masks_in_no_masks_out(device):
    images = [photograph("coffee", (40, 50))] * 2
    assert [part.shape for part in batch(images, [np.zeros((0, 40, 50), bool)] * 2, device)] == [
        (0, 40, 50)
    ] * 2
    nothing = dense_crf_batch(
        torch.zeros((0, 40, 50, 3), dtype=torch.uint8, device=device),
        torch.zeros((0, 40, 50), dtype=torch.bool, device=device),
        torch.zeros(0, dtype=torch.int64, device=device),
    )
    assert nothing.shape == (0, 40, 50) and nothing.dtype == torch.bool


def test_inputs_stay_as_they_were():
    image, masks = photograph("coffee", (40, 50)).copy(), patch_masks(5, 3, (40, 50))
    image_before, masks_before = image.copy(), masks.copy()
    dense_crf_batch(torch.from_numpy(image)[None], torch.from_numpy(masks), torch.zeros(3).long())
    assert np.array_equal(image, image_before) and np.array_equal(masks, masks_before)


IMAGES = torch.zeros((2, 8, 9, 3), dtype=torch.uint8)
MASKS = torch.zeros((3, 8, 9), dtype=torch.bool)
OWNERS = torch.tensor([0, 0, 1])


@pytest.mark.parametrize(
    ("images", "masks", "image_of", "error", "message"),
    [
        (IMAGES.numpy(), MASKS, OWNERS, TypeError, r"images is of type ndarray.*from_numpy"),
        (IMAGES.float(), MASKS, OWNERS, TypeError, r"torch.float32.*images.to\(torch.uint8\)"),
        (IMAGES, MASKS.byte(), OWNERS, TypeError, r"torch.uint8.*masks.to\(torch.bool\)"),
        (IMAGES, MASKS, OWNERS.int(), TypeError, r"image_of.to\(torch.int64\)"),
        (IMAGES, MASKS.to("meta"), OWNERS, ValueError, r"masks is on meta and images on cpu"),
        (IMAGES[0], MASKS, OWNERS, ValueError, r"images are \(8, 9, 3\).*images\[None\]"),
        (IMAGES[:, :0], MASKS[:, :0], OWNERS, ValueError, r"\(2, 0, 9, 3\).*at least 1"),
        (IMAGES, MASKS[:, :5], OWNERS, ValueError, r"masks are \(3, 5, 9\).*crf_batch"),
        (IMAGES, MASKS, OWNERS[:2], ValueError, r"image_of is \(2,\)"),
        (IMAGES, MASKS, OWNERS.flip(0), ValueError, r"ascending: sort"),
        (IMAGES, MASKS, OWNERS + 1, ValueError, r"from 1 to 2.*number 2 images"),
        (IMAGES, MASKS, OWNERS - 1, ValueError, r"from -1 to 0"),
    ],
)
def test_bad_tensors_are_refused(images, masks, image_of, error, message):
    with pytest.raises(error, match=message):
        dense_crf_batch(images, masks, image_of)


def test_images_too_large_to_number_are_refused(monkeypatch):
    monkeypatch.setattr(module, "_MAX_PIXELS", 71)
    with pytest.raises(ValueError, match=r"72 pixels, more than 71.*image_size"):
        dense_crf_batch(IMAGES, MASKS, OWNERS)


# ------------------------------------------------------------------------------------------------
# crf_batch, complete


def refine_batch(images, masks, sizes, config, device="cpu"):
    """Both steps for several images."""
    after = crf_batch(images, masks, config, device)
    return [complete(*each, config) for each in zip(masks, after, sizes, strict=True)]


def patches(seed, n, grid):
    return patch_masks(seed, max(n, 1), grid, patch=1)[:n]


@on_every_device
def test_a_batch_is_refined_as_its_images_are(device):
    config = ProMergeConfig(image_size=160, min_refined_iou=0.6)
    grids = [(20, 20), (15, 27), (20, 20), (27, 15), (20, 20), (15, 27), (10, 10)]
    counts = [6, 4, 0, 0, 5, 3, 2]
    images = [getattr(data, NAMES[i % 4])() for i in range(len(grids))]
    masks = [patches(i, n, grid) for i, (n, grid) in enumerate(zip(counts, grids, strict=True))]
    sizes = [image.shape[:2] for image in images]
    # The images have been made smaller before; the first one only nearly so.
    images = [photograph(NAMES[i % 4], crf_size(grid, config)) for i, grid in enumerate(grids)]
    images[0] = photograph(NAMES[0], (150, 170))
    found = refine_batch(images, masks, sizes, config, torch.device(device))
    assert len(found) == len(images)
    dropped = 0
    for image, part, size, refined in zip(images, masks, sizes, found, strict=True):
        expected = refine_resized(image, part, size, config)
        assert refined.masks.shape == expected.masks.shape and refined.masks.dtype == bool
        assert refined.kept.tolist() == expected.kept.tolist()
        assert refined.agreement == pytest.approx(expected.agreement, abs=1e-3)
        if len(expected):
            assert iou(refined.masks, expected.masks).min() >= 0.999
        dropped += len(part) - len(refined)
    assert 0 < dropped < sum(counts)


def test_masks_after_the_crf_have_its_size():
    config = ProMergeConfig(image_size=96, fill_holes=False, min_refined_iou=0.3)
    images = [photograph(name, (96, 96)) for name in NAMES[:2]]
    masks = [patches(1, 4, (12, 12)), patches(2, 3, (12, 12))]
    after = crf_batch(images, masks, config)
    assert [part.shape for part in after] == [(4, 96, 96), (3, 96, 96)]


def test_one_image_is_a_batch_too():
    config = ProMergeConfig(image_size=96)
    assert refine_batch([], [], [], config) == []
    part = patches(1, 4, (12, 12))
    image = photograph("coffee", (96, 96))
    refined = refine_batch([image], [part], [(50, 70)], config)[0]
    assert np.array_equal(refined.masks, refine_resized(image, part, (50, 70), config).masks)


def test_bad_batches_are_refused():
    image, part = np.zeros((8, 9, 3), np.uint8), np.ones((1, 4, 4), dtype=bool)
    config = ProMergeConfig(image_size=32)
    with pytest.raises(ValueError, match=r"size is \(0, 9\)"):
        refine_batch([image], [part], [(0, 9)], config)
    with pytest.raises(ValueError, match=r"2 images, but 1 arrays"):
        crf_batch([image, image], [part], config)
    with pytest.raises(ValueError, match=r"\"none\".*only for \"crf\""):
        crf_batch([image], [part], config.replace(refine="none"))
    with pytest.raises(TypeError, match=r"masks are uint8"):
        crf_batch([image], [part.astype(np.uint8)], config)
    with pytest.raises(ValueError, match=r"1 masks, but 2 after"):
        complete(part, np.ones((2, 32, 32), dtype=bool), (8, 9), config)
