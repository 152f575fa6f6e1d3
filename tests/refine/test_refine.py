"""Patch masks to pixel masks, from end to end."""

from __future__ import annotations

import doctest
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

import promerge_fo.refine
from promerge_fo.config import ProMergeConfig
from promerge_fo.refine import crf_size, refine_masks, refine_resized
from tests.needs import need

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
SMALL = ProMergeConfig(image_size=96)


def square(h=12, w=12):
    masks = np.zeros((1, h, w), dtype=bool)
    masks[0, h // 4 : h - h // 4, w // 4 : w - w // 4] = True
    return masks


def iou(a, b):
    return (a & b).sum(axis=(1, 2)) / (a | b).sum(axis=(1, 2))


@pytest.mark.parametrize("name", ["coffee", "chelsea"])
@pytest.mark.parametrize("refine", ["crf", "pydensecrf"])
def test_masks_are_those_of_the_released_code(name, refine):
    if refine == "pydensecrf":
        need("pydensecrf.densecrf", 'pip install "promerge-fo[crf-reference]"')
    golden = np.load(GOLDEN / f"crf_{name}.npz")
    n, height, width = golden["final_shape"]
    final = np.unpackbits(golden["final"], axis=1)[:, : height * width]
    final = final.reshape(n, height, width).astype(bool)
    config = ProMergeConfig.preset("official").replace(refine=refine)
    refined = refine_masks(getattr(data, name)(), golden["merged"], config)
    assert refined.masks.shape == final.shape
    agreement = iou(refined.masks, final)
    assert agreement.mean() >= 0.995
    assert agreement.min() >= 0.99


def test_records_are_consistent():
    image = data.astronaut()
    masks = np.zeros((4, 30, 30), dtype=bool)
    masks[0, 5:25, 8:22] = True
    masks[2, 1:9, 20:29] = True
    masks[3, 14, 3] = True
    everything = refine_masks(image, masks, ProMergeConfig(image_size=240, min_refined_iou=0))
    assert everything.masks.shape == (len(everything), 512, 512)
    assert everything.masks.dtype == bool
    assert everything.kept.dtype == np.int64 and everything.agreement.dtype == np.float32
    assert everything.masks.any(axis=(1, 2)).all()
    assert 1 not in everything.kept and (np.diff(everything.kept) > 0).all()
    # A higher threshold drops exactly the masks below it, and changes no other.
    low, high = sorted(everything.agreement[[0, 1]].tolist())
    strict = refine_masks(
        image, masks, ProMergeConfig(image_size=240, min_refined_iou=(low + high) / 2)
    )
    passed = everything.agreement >= (low + high) / 2
    assert 0 < passed.sum() < len(everything)
    assert np.array_equal(strict.kept, everything.kept[passed])
    assert np.array_equal(strict.masks, everything.masks[passed])
    assert np.array_equal(strict.agreement, everything.agreement[passed])


def test_agreement_is_the_iou_before_and_after():
    masks = np.zeros((1, 12, 12), dtype=bool)
    masks[0, 2:10, 2:10] = True
    image = np.asarray(Image.fromarray(data.chelsea()).resize((96, 96)))
    refined = refine_masks(image, masks, SMALL.replace(min_refined_iou=0))
    before = masks.repeat(8, axis=1).repeat(8, axis=2)
    assert refined.agreement == pytest.approx(iou(before, refined.masks), abs=1e-6)
    assert 0.5 < refined.agreement[0] < 1


def test_one_by_one_is_all_at_once():
    masks = np.random.default_rng(0).random((33, 12, 12)) < 0.5
    masks = masks.repeat(2, axis=1).repeat(2, axis=2)
    image = data.coffee()[:200, :300]
    together = refine_masks(image, masks, SMALL.replace(min_refined_iou=0.2))
    assert len(together) > 0
    single = [refine_masks(image, mask[None], SMALL.replace(min_refined_iou=0.2)) for mask in masks]
    assert together.kept.tolist() == [i for i, one in enumerate(single) if len(one)]
    assert np.array_equal(together.masks, np.concatenate([one.masks for one in single]))
    assert np.array_equal(together.agreement, np.concatenate([one.agreement for one in single]))


def test_holes_are_filled_only_on_request():
    image = np.full((96, 96, 3), 40, np.uint8)
    image[20:76, 20:76] = 220
    image[36:60, 36:60] = 120
    masks = np.zeros((1, 24, 24), dtype=bool)
    masks[0, 5:19, 5:19] = True
    masks[0, 9:15, 9:15] = False
    filled = refine_masks(image, masks, SMALL)
    open_ = refine_masks(image, masks, SMALL.replace(fill_holes=False))
    assert np.array_equal(filled.masks[0], image[..., 0] != 40)
    assert np.array_equal(open_.masks[0], image[..., 0] == 220)
    assert open_.agreement[0] == 1
    assert filled.agreement[0] == pytest.approx((56**2 - 24**2) / 56**2)


def test_an_image_resized_before_gives_the_same_masks():
    image = data.rocket()
    masks = square(20, 30)
    config = ProMergeConfig(image_size=200)
    height, width = crf_size((20, 30), config)
    resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))
    whole = refine_masks(image, masks, config)
    handed = refine_resized(resized, masks, image.shape[:2], config)
    assert np.array_equal(whole.masks, handed.masks)
    assert np.array_equal(whole.agreement, handed.agreement)
    # An image that is a little off the CRF's size is brought to it.
    nearly = np.asarray(Image.fromarray(image).resize((width - 4, height - 4)))
    other = refine_resized(nearly, masks, image.shape[:2], config)
    assert other.masks.shape == whole.masks.shape
    assert iou(other.masks, whole.masks).min() > 0.9


@pytest.mark.parametrize(
    ("grid", "image_size", "size"),
    [
        ((60, 60), 480, (480, 480)),
        ((59, 59), 480, (480, 480)),
        ((45, 80), 480, (360, 640)),
        ((34, 34), 476, (476, 476)),
        ((1, 10000), 32, (1, 3200)),
        ((1, 1), 32, (32, 32)),
    ],
)
def test_the_crf_keeps_the_shape_of_the_grid(grid, image_size, size):
    assert crf_size(grid, ProMergeConfig(image_size=image_size)) == size


def test_the_crf_of_a_smaller_image_finds_the_same_outline():
    image = np.full((240, 240, 3), 255, dtype=np.uint8)
    image[60:160, 70:170] = (200, 30, 30)
    patches = np.zeros((1, 30, 30), dtype=bool)
    patches[0, 8:20, 9:20] = True
    config = ProMergeConfig(image_size=240)
    assert crf_size((30, 30), config.replace(crf_scale=0.5)) == (120, 120)
    assert crf_size((15, 20), config.replace(crf_scale=0.5)) == (104, 139)
    for scale in (1.0, 0.5, 0.25):
        (mask,) = refine_masks(image, patches, config.replace(crf_scale=scale)).masks
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        found = np.array([rows[0], rows[-1], columns[0], columns[-1]])
        off = np.abs(found - [60, 159, 70, 169])
        assert off.max() <= (0 if scale == 1 else 1 / scale)  # one of the CRF's pixels
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.9


def test_without_refinement_patches_are_enlarged():
    masks = np.concatenate([square(5, 4), np.zeros((1, 5, 4), dtype=bool), square(5, 4)])
    image = np.zeros((50, 80, 3), np.uint8)
    refined = refine_masks(image, masks, ProMergeConfig(refine="none", min_refined_iou=1))
    assert np.array_equal(refined.masks[0], masks[0].repeat(10, axis=0).repeat(20, axis=1))
    assert refined.kept.tolist() == [0, 2]
    assert refined.agreement.tolist() == [1, 1]


@pytest.mark.parametrize("refine", ["crf", "none"])
def test_no_masks_in_no_masks_out(refine):
    image = np.zeros((50, 80, 3), np.uint8)
    masks = np.zeros((0, 12, 12), dtype=bool)
    refined = refine_masks(image, masks, SMALL.replace(refine=refine))
    assert refined.masks.shape == (0, 50, 80) and refined.masks.dtype == bool
    assert refined.kept.shape == refined.agreement.shape == (0,)
    assert refined.kept.dtype == np.int64 and refined.agreement.dtype == np.float32


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 3), (700, 90)])
@pytest.mark.parametrize("grid", [(12, 12), (1, 7), (5, 2)])
def test_any_size_works(size, grid):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    refined = refine_masks(image, np.ones((1, *grid), dtype=bool), SMALL)
    assert refined.masks.shape == (1, *size)
    assert refined.masks.all()
    assert refined.agreement.tolist() == [1]


def test_masks_that_vanish_at_the_images_size_are_dropped():
    masks = np.zeros((2, 12, 12), dtype=bool)
    masks[0, 3:6, 3:6] = True
    masks[1, :, :6] = True
    image = np.zeros((1, 2, 3), np.uint8)
    refined = refine_masks(image, masks, SMALL.replace(min_refined_iou=0))
    assert refined.kept.tolist() == [1]
    assert refined.masks.tolist() == [[[True, False]]]


GOOD_IMAGE, GOOD_MASKS = np.zeros((8, 9, 3), np.uint8), np.ones((1, 4, 4), dtype=bool)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (Image.new("RGB", (9, 8)), TypeError, r"of type Image, but must be a uint8 array"),
        (GOOD_IMAGE / 255, TypeError, r"float64 \(8, 9, 3\), but must be a uint8 .*convert\('RGB'"),
        (GOOD_IMAGE[..., 0], ValueError, r"shape \(8, 9\), but must be .*\(H, W, 3\)"),
        (np.zeros((8, 9, 4), np.uint8), ValueError, r"shape \(8, 9, 4\)"),
        (np.zeros((0, 9, 3), np.uint8), ValueError, r"shape \(0, 9, 3\).*at least 1"),
    ],
)
def test_bad_images_are_refused(image, error, message):
    for call in (
        lambda: refine_masks(image, GOOD_MASKS),
        lambda: refine_resized(image, GOOD_MASKS, (8, 9)),
    ):
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize(
    ("masks", "error", "message"),
    [
        ([[[True]]], TypeError, r"of type list, but must be a boolean array"),
        (np.ones((1, 4, 4)), TypeError, r"float64 \(1, 4, 4\).*masks.astype\(bool\)"),
        (np.ones((1, 4, 4), np.uint8), TypeError, r"uint8 \(1, 4, 4\).*masks.astype\(bool\)"),
        (np.ones((4, 4), dtype=bool), ValueError, r"shape \(4, 4\).*masks\[None\]"),
        (np.ones((1, 0, 4), dtype=bool), ValueError, r"shape \(1, 0, 4\).*at least 1"),
    ],
)
def test_bad_masks_are_refused(masks, error, message):
    with pytest.raises(error, match=message):
        refine_masks(GOOD_IMAGE, masks)


def test_a_bad_size_is_refused():
    with pytest.raises(ValueError, match=r"size is \(0, 9\)"):
        refine_resized(GOOD_IMAGE, GOOD_MASKS, (0, 9))


def test_a_missing_pydensecrf_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    with pytest.raises(
        ImportError, match=r"promerge-fo\[crf-reference\].*compiler.*refine=\"crf\""
    ):
        refine_masks(GOOD_IMAGE, GOOD_MASKS, SMALL.replace(refine="pydensecrf"))


def test_examples_run():
    results = doctest.testmod(promerge_fo.refine)
    assert results.attempted > 5 and results.failed == 0
