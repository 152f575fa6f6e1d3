"""The batched dense CRF against the reference implementation, and against itself."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage import data

from promerge_fo.refine import dense_crf as module
from promerge_fo.refine.dense_crf import dense_crf
from promerge_fo.refine.pydensecrf import pydensecrf
from tests.needs import need


def photograph(name, size):
    image = Image.fromarray(getattr(data, name)())
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.LANCZOS))


def patch_masks(seed, n, size, patch=8):
    """Blobs and ellipses of patches, small to large: (n, H, W) bool."""
    rng = np.random.default_rng(seed)
    h, w = -(-size[0] // patch), -(-size[1] // patch)
    y, x = np.mgrid[:h, :w]
    masks = []
    for i in range(n):
        if i % 2:
            noise = ndimage.gaussian_filter(rng.standard_normal((h, w)), rng.uniform(1.5, 6))
            masks.append(noise > np.quantile(noise, rng.uniform(0.5, 0.97)))
        else:
            centre, axes = rng.uniform(0, 1, 2) * (h, w), rng.uniform(0.05, 0.45, 2) * (h, w)
            masks.append(((y - centre[0]) / axes[0]) ** 2 + ((x - centre[1]) / axes[1]) ** 2 < 1)
    large = np.stack(masks).repeat(patch, axis=1).repeat(patch, axis=2)
    return np.ascontiguousarray(large[:, : size[0], : size[1]])


def iou(a, b):
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    either = (a | b).sum(axis=1)
    return np.where(either == 0, 1.0, (a & b).sum(axis=1) / np.maximum(either, 1))


@pytest.mark.parametrize("name", ["coffee", "chelsea", "astronaut", "rocket"])
def test_masks_are_those_of_the_reference(name):
    need("pydensecrf.densecrf", 'pip install "promerge-fo[crf-reference]"')
    size = (160, 240) if name == "rocket" else (200, 200)
    image = photograph(name, size)
    masks = patch_masks(sum(map(ord, name)), 50, size)
    agreement = iou(dense_crf(image, masks), pydensecrf(image, masks))
    assert agreement.mean() >= 0.999
    assert agreement.min() >= 0.99


def test_masks_are_those_of_the_reference_at_its_own_size():
    need("pydensecrf.densecrf", 'pip install "promerge-fo[crf-reference]"')
    image = photograph("coffee", (480, 480))
    masks = patch_masks(7, 6, (480, 480))
    assert iou(dense_crf(image, masks), pydensecrf(image, masks)).min() >= 0.99


def test_masks_are_those_of_the_reference_at_two_megapixels():
    need("pydensecrf.densecrf", 'pip install "promerge-fo[crf-reference]"')
    image = photograph("rocket", (1150, 1740))
    masks = patch_masks(8, 2, (1150, 1740), patch=29)
    assert iou(dense_crf(image, masks), pydensecrf(image, masks)).min() >= 0.99


def test_smaller_kernels_give_the_reference_too():
    need("pydensecrf.densecrf", 'pip install "promerge-fo[crf-reference]"')
    image, masks = photograph("coffee", (120, 160)), patch_masks(2, 5, (120, 160))
    agreement = iou(dense_crf(image, masks, 0.5), pydensecrf(image, masks, 0.5))
    assert agreement.min() >= 0.99
    assert iou(dense_crf(image, masks, 0.5), dense_crf(image, masks)).min() < 0.97


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (2, 3), (31, 64)])
def test_odd_sizes_give_the_reference_too(size):
    need("pydensecrf.densecrf", 'pip install "promerge-fo[crf-reference]"')
    image = photograph("coffee", size)
    masks = np.random.default_rng(1).random((9, *size)) < 0.5
    assert (dense_crf(image, masks) == pydensecrf(image, masks)).mean() >= 0.995


def test_a_mask_does_not_depend_on_the_masks_beside_it():
    image = photograph("astronaut", (120, 96))
    masks = patch_masks(3, 33, (120, 96))
    together = dense_crf(image, masks)
    assert together.shape == masks.shape and together.dtype == bool
    for n in (1, 4, 5, 16, 17):  # every width of the registers, full and not
        assert np.array_equal(dense_crf(image, masks[:n]), together[:n])
    assert np.array_equal(dense_crf(image, masks[::-1]), together[::-1])


def test_two_labels_are_symmetric():
    image = photograph("chelsea", (64, 80))
    masks = patch_masks(4, 8, (64, 80))
    assert np.array_equal(dense_crf(image, ~masks), ~dense_crf(image, masks))


def test_without_edges_masks_are_only_smoothed():
    masks = np.zeros((3, 120, 120), dtype=bool)
    masks[0, 20:100, 20:100] = True
    masks[1] = True
    smooth = dense_crf(np.full((120, 120, 3), 128, np.uint8), masks)
    assert smooth[1].all() and not smooth[2].any()
    assert iou(smooth[:1], masks[:1])[0] > 0.9


def test_a_mask_follows_the_edge_of_an_object():
    image = np.full((80, 80, 3), 230, np.uint8)
    image[22:58, 25:61] = (20, 60, 140)
    mask = np.zeros((1, 80, 80), dtype=bool)
    mask[0, 16:56, 24:64] = True
    found = image[None, :, :, 0] == 20
    assert iou(mask, found)[0] < 0.8
    assert iou(dense_crf(image, mask), found)[0] > 0.98


def test_images_that_are_views_give_what_their_copies_give():
    image = np.asfortranarray(photograph("coffee", (40, 50)))[::-1, ::-1]
    masks = np.asfortranarray(patch_masks(5, 3, (40, 50)))
    expected = dense_crf(np.ascontiguousarray(image), np.ascontiguousarray(masks))
    assert np.array_equal(dense_crf(image, masks), expected)


def test_inputs_stay_as_they_were():
    image, masks = photograph("coffee", (40, 50)), patch_masks(5, 3, (40, 50))
    image_before, masks_before = image.copy(), masks.copy()
    dense_crf(image, masks)
    assert np.array_equal(image, image_before) and np.array_equal(masks, masks_before)


def test_no_masks_in_no_masks_out():
    empty = dense_crf(photograph("coffee", (40, 50)), np.zeros((0, 40, 50), dtype=bool))
    assert empty.shape == (0, 40, 50) and empty.dtype == bool


def test_masks_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"masks are \(2, 30, 50\).*image is \(40, 50, 3\)"):
        dense_crf(np.zeros((40, 50, 3), np.uint8), np.zeros((2, 30, 50), dtype=bool))


def test_large_spatial_lattices_are_not_kept(monkeypatch):
    masks = patch_masks(6, 2, (33, 47))
    image = photograph("coffee", (33, 47))
    kept = dense_crf(image, masks)
    monkeypatch.setattr(module, "_CACHED_PIXELS", 100)
    entries = module._cached_spatial_lattice.cache_info().currsize
    assert np.array_equal(dense_crf(image, masks), kept)
    assert module._cached_spatial_lattice.cache_info().currsize == entries


def test_kernels_are_compiled_once_for_all_processes():
    dense_crf(np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4, 4), dtype=bool))
    code = (
        "import numpy as np\n"
        "from promerge_fo.refine import dense_crf as m, permutohedral as p\n"
        "m.dense_crf(np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4, 4), dtype=bool))\n"
        "kernels = m._mean_field, m._normalise, p._find_vertices, p._find_chains\n"
        "print(sum(sum(k.stats.cache_misses.values()) for k in kernels))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True
    )
    assert run.stdout.strip() == "0"
