"""Masks as single polygons, read as ultralytics reads them: cut to whole numbers and filled."""

from __future__ import annotations

from collections import Counter

import cv2
import numpy as np
import pytest
from scipy.ndimage import binary_fill_holes, gaussian_filter

from promerge_fo.annotations.polygons import least_iou, polygon_of


def read(points, size) -> np.ndarray:
    """What ultralytics makes of relative points: float32, times size, cast to int, filled."""
    height, width = size
    relative = np.asarray(points, np.float64) / (width, height)
    assert relative.min() > 0 and relative.max() < 1
    pixels = (relative.astype(np.float32) * np.float32([width, height])).astype(np.int32)
    canvas = np.zeros(size, np.uint8)
    cv2.fillPoly(canvas, [pixels], (1,))
    return canvas.astype(bool)


def iou(a, b) -> float:
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


def masks(count: int):
    """Rings, parts, blobs, ragged boxes, frames of whole images, lines and single pixels."""
    rng = np.random.default_rng(18)
    for number in range(count):
        height, width = rng.integers(8, 160, 2)
        mask = np.zeros((height, width), dtype=bool)
        y, x = np.mgrid[:height, :width]
        match number % 8:
            case 0:  # a ring, also beyond the borders
                radius = rng.uniform(2, min(height, width) / 1.5)
                d = np.hypot(y - rng.uniform(0, height), x - rng.uniform(0, width))
                mask = (d < radius) & (d > radius * rng.uniform(0.3, 0.9))
            case 1:  # two to four boxes, which may lie far apart
                for _ in range(rng.integers(2, 5)):
                    top, left = rng.integers(0, height - 4), rng.integers(0, width - 4)
                    mask[top : top + rng.integers(2, 60), left : left + rng.integers(2, 60)] = True
            case 2:  # blobs
                noise = gaussian_filter(rng.standard_normal((height, width)), rng.uniform(1, 9))
                mask = noise > np.quantile(noise, rng.uniform(0.5, 0.95))
            case 3:  # one blob with a ragged edge
                d = np.hypot(y - height / 2, x - width / 2)
                noise = rng.standard_normal((height, width)) * rng.uniform(0, 2)
                mask = d + noise < min(height, width) / 2.5
            case 4:  # ragged all over
                mask = rng.random((height, width)) < rng.uniform(0.5, 1)
            case 5:  # along all borders
                mask[:] = True
                edge = rng.integers(1, 4)
                mask[edge:-edge, edge:-edge] = False
            case 6:  # a line, straight or diagonal, whole or dotted
                length, step = rng.integers(1, min(height, width)), rng.integers(1, 3)
                along = np.arange(0, length, step)
                mask[along * rng.integers(0, 2), along * rng.integers(0, 2)] = True
            case _:  # a pixel or two
                mask[rng.integers(0, height, 2), rng.integers(0, width, 2)] = True
        if mask.any():
            yield number % 8, mask


def test_what_is_read_is_the_mask_with_its_holes_filled():
    kinds, left_out = Counter(), Counter()
    for kind, mask in masks(2000):
        polygon = polygon_of(mask)
        filled = binary_fill_holes(mask)
        found = iou(read(polygon.points, mask.shape), filled)
        assert found == pytest.approx(polygon.iou)
        kinds[kind] += 1
        if found < least_iou(mask.sum()):
            left_out[kind] += 1
        elif mask.sum() >= 64:
            assert found >= (0.95 if mask.sum() >= 400 else 0.85)
        if polygon.parts_left_out == 0 and found == 1:
            (rows, columns), (x, y) = np.nonzero(mask), polygon.points.T
            assert x.min() == columns.min() + 1 / 16 and x.max() == columns.max() + 15 / 16
            assert y.min() == rows.min() + 1 / 16 and y.max() == rows.max() + 15 / 16
    assert kinds.total() == 2000
    # what does not lie too far apart is written: of one part always, of these scattered ones most
    assert set(left_out) == {1, 2} and left_out.total() < 120


def drawn(*rows: str) -> np.ndarray:
    return np.array([[c == "#" for c in row] for row in rows])


@pytest.mark.parametrize(
    ("mask", "points", "holes"),
    [
        (drawn("#"), 4, 0),
        (drawn("##"), 4, 0),
        (drawn("#", "#", "#"), 4, 0),
        (drawn("#.", ".#"), 3, 0),
        (drawn("###", "#.#", "###"), 4, 1),
        (drawn("#####", "#...#", "#.#.#", "#...#", "#####"), 4, 1),
        (drawn("##.", "#.#", ".#."), 5, 1),  # connected by corners, and so is what it surrounds
    ],
)
def test_small_masks_are_exact_and_never_fewer_than_three_points(mask, points, holes):
    for big in (mask, np.pad(mask, 7)):
        polygon = polygon_of(big)
        assert (len(polygon.points), polygon.holes, polygon.iou) == (points, holes, 1)
        np.testing.assert_array_equal(read(polygon.points, big.shape), binary_fill_holes(big))


def test_dots_are_joined_where_the_line_is_worth_it():
    near, far = drawn("#.#.#"), np.zeros((3, 60), bool)
    assert polygon_of(near).iou == 3 / 5 and polygon_of(near).parts_left_out == 0
    far[:, :20] = far[1, 59] = True
    polygon = polygon_of(far)
    assert polygon.iou == 60 / 61 and polygon.parts_left_out == 1


def test_parts_are_joined_between_their_nearest_points():
    mask = np.zeros((50, 50), bool)
    for top, left in ((0, 0), (0, 26), (26, 0), (26, 26)):
        mask[top : top + 24, left : left + 24] = True
    polygon = polygon_of(mask)
    found = read(polygon.points, mask.shape)
    assert found[mask].all() and found.sum() - mask.sum() == 3 * 2  # three gaps of two pixels


def test_points_fit_images_of_any_size():
    mask = np.zeros((3, 60_000), bool)
    mask[1, 59_990:] = mask[0, 59_995:] = True
    np.testing.assert_array_equal(read(polygon_of(mask).points, mask.shape), mask)


def test_no_pixel_is_no_polygon():
    assert polygon_of(np.zeros((4, 4), bool)) is None
