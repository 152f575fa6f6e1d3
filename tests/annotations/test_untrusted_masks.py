"""Masks of strangers' files: those of pycocotools where they are sound, else refused."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from promerge_fo.annotations.untrusted_masks import EntryError, box_of, crop_of, number


def painted(segmentation, size) -> np.ndarray:
    """The mask at the image's size, after a look at its box."""
    crop = crop_of(segmentation, size)
    assert crop.mask.any(axis=1)[[0, -1]].all() and crop.mask.any(axis=0)[[0, -1]].all()
    mask = np.zeros(size, dtype=bool)
    h, w = crop.mask.shape
    mask[crop.top : crop.top + h, crop.left : crop.left + w] = crop.mask
    return mask


def random_masks(count: int):
    rng = np.random.default_rng(0)
    for _ in range(count):
        size = tuple(int(n) for n in rng.integers(1, 40, 2))
        mask = rng.random(size) < rng.choice([0.02, 0.3, 0.7, 1.0])
        if mask.any():
            yield mask


def rle(mask: np.ndarray) -> dict:
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def plain(mask: np.ndarray) -> dict:
    pixels = np.concatenate([[0], mask.T.ravel().astype(int), [1 - mask.T.ravel()[-1]]])
    edges = np.flatnonzero(np.diff(pixels))
    counts = np.diff(np.concatenate([[0], edges, [mask.size]]))
    return {"size": list(mask.shape), "counts": [int(n) for n in counts]}


def test_runs_of_either_kind_are_those_of_pycocotools():
    count = 0
    for mask in random_masks(500):
        np.testing.assert_array_equal(painted(rle(mask), mask.shape), mask)
        np.testing.assert_array_equal(painted(plain(mask), mask.shape), mask)
        count += 1
    assert count > 400


def test_large_runs():
    mask = np.zeros((3000, 4000), dtype=bool)
    mask[100:2900, 7] = True
    mask[:, 1000:3000] = True
    np.testing.assert_array_equal(painted(rle(mask), mask.shape), mask)


def test_runs_of_no_length_are_harmless():
    mask = np.zeros((3, 2), dtype=bool)
    mask[1, 0] = True
    segmentation = {"size": [3, 2], "counts": [1, 0, 0, 1, 0, 0, 4, 0]}
    np.testing.assert_array_equal(painted(segmentation, (3, 2)), mask)


def test_polygons_are_those_of_pycocotools():
    rng = np.random.default_rng(1)
    drawn = 0
    for _ in range(300):
        size = tuple(int(n) for n in rng.integers(8, 60, 2))
        parts = [
            (rng.random(2 * int(rng.integers(3, 9))) * (max(size) + 4) - 2).tolist()
            for _ in range(int(rng.integers(1, 4)))
        ]
        wanted = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(parts, *size))).astype(bool)
        if wanted.any():
            np.testing.assert_array_equal(painted(parts, size), wanted)
            drawn += 1
    assert drawn > 250


BIG = 10**30
RLE = {"size": [4, 5], "counts": [3, 2, 15]}


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        (7, "neither RLE nor polygons"),
        ("0110", "neither RLE nor polygons"),
        ({}, r"size of its segmentation is not \[height, width\]"),
        ({**RLE, "size": [5, 4]}, "of 4 x 5 pixels .width x height., but its image has 5 x 4"),
        ({**RLE, "size": [4.0, 5]}, "is not .height"),
        ({**RLE, "size": [True, 5]}, "is not .height"),
        ({**RLE, "size": [10**5, 10**5]}, "of 100000 x 100000 pixels"),
        ({**RLE, "size": [10**4000, 5]}, "of 5 x 1000000000"),
        ({"size": [4, 5]}, "neither text nor a list"),
        ({**RLE, "counts": None}, "neither text nor a list"),
        ({**RLE, "counts": [3, 2, 14]}, "add up to 19 pixels, but its image has 20"),
        ({**RLE, "counts": [3, 2, 16]}, "add up to 21 pixels"),
        ({**RLE, "counts": [3, -2, 19]}, "not all whole numbers from 0 to 20"),
        ({**RLE, "counts": [3, 2.0, 15]}, "not all whole numbers"),
        ({**RLE, "counts": [3, True, 16]}, "not all whole numbers"),
        ({**RLE, "counts": [3, "2", 15]}, "not all whole numbers"),
        ({**RLE, "counts": [BIG]}, "not all whole numbers"),
        ({**RLE, "counts": [[20]]}, "not all whole numbers"),
        ({**RLE, "counts": [20]}, "has no pixel"),
        ({**RLE, "counts": []}, "add up to 0 pixels"),
        ({**RLE, "counts": ""}, "add up to 0 pixels"),
        ({**RLE, "counts": "3"}, "add up to 3 pixels"),
        ({**RLE, "counts": "3 2"}, "a character that compressed RLE does not have"),
        ({**RLE, "counts": "\u00e9"}, "no compressed RLE"),
        ({**RLE, "counts": "3\x7f"}, "a character that"),
        ({**RLE, "counts": "3o"}, "break off within a number"),
        ({**RLE, "counts": "o" * 100}, "go beyond the 20 pixels"),
        ({**RLE, "counts": "o" * 9 + "0"}, "go beyond the 20 pixels"),
        ({**RLE, "counts": "ooooo0"}, "go beyond the 20 pixels"),
        ({**RLE, "counts": "3N"}, "have a negative run"),
        ([], "has 0 polygons"),
        ([[]], "not a list of three or more points"),
        ([[0, 0, 4, 0]], "not a list of three or more points"),
        ([[0, 0, 4, 0, 4]], "not a list of three or more points"),
        ([[0, 0, 4, 0, 4, 4, 1]], "not a list of three or more points"),
        ([0, 0, 4, 0, 4, 4], "not a list of three or more points"),
        ([[0, 0, 4, 0, 4, "4"]], "other than finite numbers"),
        ([[0, 0, 4, 0, 4, float("nan")]], "other than finite numbers"),
        ([[0, 0, 4, 0, 4, float("inf")]], "other than finite numbers"),
        ([[0, 0, 4, 0, 4, BIG]], "leaves its image .5 x 4. far behind"),
        ([[0, 0, 4, 0, 4, 10**400]], "other than finite numbers"),
        ([[0, 0, 4, 0, -1e6, 4]], "far behind"),
        ([[0, 0, 5, 4, 0, 4] * 200], "pixels long, which is no shape"),
        ([[0, 0, 1, 0, 1, 1]] * 5000, "has 5,000 polygons, and 1 to 4,096 can be drawn"),
        ([[-3, -3, -2, -3, -2, -2]], "has no pixel"),
    ],
)
def test_what_is_no_mask_of_the_image_is_refused(segmentation, words):
    with pytest.raises(EntryError, match=words):
        crop_of(segmentation, (4, 5))


def test_no_more_memory_is_taken_than_the_image_has():
    import tracemalloc

    tracemalloc.start()
    for segmentation in (
        {"size": [10**6, 10**6], "counts": [10**11, 9 * 10**11]},
        {"size": [64, 64], "counts": "o" * 14 + "0"},
        [[0, 0, 64, 64, 0, 64] * 1000],
    ):
        with pytest.raises(EntryError):
            crop_of(segmentation, (64, 64))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(
    ("value", "box"),
    [
        ([1, 2, 3, 1], (1, 2, 4, 3)),
        ([-1.5, 2, 3, 9], (0, 2, 1.5, 4)),
        ([0, 0, 1e308, 1e308], (0, 0, 5, 4)),
    ],
)
def test_boxes_are_cut_at_the_edges(value, box):
    assert box_of(value, (4, 5)) == box


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "not four finite numbers"),
        ([1, 2, 3], "not four finite numbers"),
        ([1, 2, 3, "4"], "not four finite numbers"),
        ([1, 2, 3, True], "not four finite numbers"),
        ([1, 2, 3, float("nan")], "not four finite numbers"),
        ([1, 2, 3, 10**400], "not four finite numbers"),
        ({"x": 1}, "not four finite numbers"),
        ([1, 2, -3, 4], "has the width -3 and the height 4"),
        ([1, 2, 0, 4], "covers nothing of the image .5 x 4."),
        ([9, 2, 3, 4], "covers nothing"),
        ([-9, 2, 3, 4], "covers nothing"),
    ],
)
def test_what_is_no_box_in_the_image_is_refused(value, words):
    with pytest.raises(EntryError, match=words):
        box_of(value, (4, 5))


def test_numbers():
    given = (1, 2.5, True, "1", None, float("nan"), float("-inf"), 10**400, [1])
    assert [number(value) for value in given] == [1.0, 2.5, *[None] * 7]
