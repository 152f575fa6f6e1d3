"""Resizing against Pillow, hole filling against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from promerge_fo.refine.resize import fill_holes, resize_bicubic, upsample_nearest


def random_masks(rng, n, h, w):
    """Blobs, noise, an empty mask and a full one."""
    blobs = ndimage.gaussian_filter(rng.standard_normal((n, h, w)), (0, 2, 2)) > 0.02
    noise = rng.random((n, h, w)) < 0.6
    return np.concatenate([blobs, noise, np.zeros((1, h, w), bool), np.ones((1, h, w), bool)])


def pillow(mask, size):
    """One axis after the other: Pillow >= 13 may else take the columns first."""
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(image.resize((size[1], image.height)).resize(size[::-1])) > 127


@pytest.mark.parametrize("seed", range(4))
def test_resizing_is_pillows_bicubic(seed):
    rng = np.random.default_rng(seed)
    for _ in range(25):
        h, w, *size = rng.integers(1, 90, 4).tolist()
        masks = random_masks(rng, 2, h, w)
        resized = resize_bicubic(masks, tuple(size))
        assert np.array_equal(resized, [pillow(mask, size) for mask in masks]), (h, w, size)


@pytest.mark.parametrize("size", [(640, 427), (333, 500), (1080, 1920), (480, 480), (1, 1000)])
def test_resizing_from_the_crf_size_is_pillows(size):
    masks = random_masks(np.random.default_rng(0), 1, 480, 480)
    assert np.array_equal(resize_bicubic(masks, size), [pillow(mask, size) for mask in masks])


def test_larger_masks_are_pillows_in_one_call():
    masks = random_masks(np.random.default_rng(2), 2, 48, 60)
    resized = [
        np.asarray(Image.fromarray(m.astype(np.uint8) * 255).resize((99, 77))) for m in masks
    ]
    assert np.array_equal(resize_bicubic(masks, (77, 99)), np.stack(resized) > 127)


def test_a_view_resizes_as_its_copy():
    masks = random_masks(np.random.default_rng(3), 2, 20, 30).transpose(0, 2, 1)
    copy = np.ascontiguousarray(masks)
    assert np.array_equal(resize_bicubic(masks, (50, 41)), resize_bicubic(copy, (50, 41)))


def test_the_result_of_resizing_is_no_view():
    masks = np.ones((1, 4, 4), dtype=bool)
    resize_bicubic(masks, (4, 4))[:] = False
    assert masks.all()


@pytest.mark.parametrize("seed", range(4))
def test_hole_filling_is_scipys(seed):
    rng = np.random.default_rng(seed)
    for _ in range(25):
        h, w = rng.integers(1, 60, 2)
        masks = random_masks(rng, 3, h, w)
        expected = [ndimage.binary_fill_holes(mask) for mask in masks]
        assert np.array_equal(fill_holes(masks), expected), (h, w)


def test_holes_are_filled_and_bays_are_not():
    mask = np.zeros((1, 9, 12), dtype=bool)
    mask[0, 1:8, 1:8] = True
    mask[0, 3:5, 3:5] = False  # a hole
    mask[0, 6, 4:9] = False  # a bay
    mask[0, 5, 5] = True
    mask[0, 2, 2] = False  # a hole that touches the other one only at a corner
    filled = fill_holes(mask)
    assert filled[0, 3:5, 3:5].all() and filled[0, 2, 2]
    assert not filled[0, 6, 4:9].any()
    assert filled.sum() == mask.sum() + 5


def test_a_spiral_has_no_hole():
    # Long chains of runs that meet late.
    side = 41
    mask = np.ones((side, side), dtype=bool)
    y, x, dy, dx = 0, 0, 0, 1
    mask[y, x] = False
    for _ in range(side * side):
        ahead = (y + 2 * dy, x + 2 * dx)
        inside = 0 <= y + dy < side and 0 <= x + dx < side
        taken = 0 <= ahead[0] < side and 0 <= ahead[1] < side and not mask[ahead]
        if not inside or taken:
            dy, dx = dx, -dy
            if not mask[(y + 2 * dy) % side, (x + 2 * dx) % side]:
                break
        y, x = y + dy, x + dx
        mask[y, x] = False
    assert not mask[side // 2].all()
    assert np.array_equal(fill_holes(mask[None])[0], mask)
    mask[0, :] = True
    mask[:, 0] = True
    assert np.array_equal(fill_holes(mask[None])[0], ndimage.binary_fill_holes(mask))


@pytest.mark.parametrize(
    ("grid", "size"), [((60, 60), (480, 480)), ((7, 9), (20, 31)), ((9, 8), (4, 3))]
)
def test_a_pixel_is_the_patch_its_centre_lies_in(grid, size):
    masks = np.random.default_rng(0).random((3, *grid)) < 0.5
    large = upsample_nearest(masks, size)
    assert large.shape == (3, *size) and large.dtype == bool and large.flags.c_contiguous
    for y in range(0, size[0], max(size[0] // 20, 1)):
        for x in range(0, size[1], max(size[1] // 20, 1)):
            patch = int((y + 0.5) / size[0] * grid[0]), int((x + 0.5) / size[1] * grid[1])
            assert np.array_equal(large[:, y, x], masks[:, patch[0], patch[1]])


@pytest.mark.parametrize("function", [fill_holes, lambda masks: resize_bicubic(masks, (5, 6))])
def test_no_masks_in_no_masks_out(function):
    assert len(function(np.zeros((0, 8, 9), dtype=bool))) == 0
