"""COCO's record of a stored mask, against pycocotools' own encoder."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

HEIGHT, WIDTH = 40, 60


def crops():
    """Masks in their boxes: the most stretches that a box can hold, and anything."""
    rng = np.random.default_rng(0)
    checks = np.indices((9, 11)).sum(axis=0) % 2 == 0
    stripes = np.zeros((5, 30), dtype=bool)
    stripes[::2] = True
    named = {
        "a row": np.ones((1, 30), dtype=bool),  # each of its pixels is a stretch of its own
        "a row from side to side": np.ones((1, WIDTH), dtype=bool),
        "stripes": stripes,
        "checks": checks,
        "a column": np.ones((HEIGHT, 1), dtype=bool),
        "everything": np.ones((HEIGHT, WIDTH), dtype=bool),
    }
    for k in range(20):
        named[f"random {k}"] = rng.random(rng.integers(1, 12, 2)) < rng.random()
    return named


@pytest.mark.parametrize("name", crops())
@pytest.mark.parametrize("corner", ["first", "last"])
def test_run_lengths_are_pycocotools(name, corner):
    """Without compilation, too, for compiled code writes beyond an array without a word."""
    from promerge_fo.annotations.rle import _run_lengths

    crop = crops()[name]
    rows, columns = crop.shape
    top, left = (0, 0) if corner == "first" else (HEIGHT - rows, WIDTH - columns)
    whole = np.zeros((HEIGHT, WIDTH), dtype=np.uint8, order="F")
    whole[top : top + rows, left : left + columns] = crop
    expected = coco_mask.encode(whole)
    for run in (_run_lengths.py_func, _run_lengths):
        counts, area, x0, y0, x1, y1 = run(np.ascontiguousarray(crop.T), top, left, HEIGHT, WIDTH)
        found = {"size": [HEIGHT, WIDTH], "counts": counts.tolist()}
        assert coco_mask.frPyObjects(found, HEIGHT, WIDTH)["counts"] == expected["counts"]
        assert area == whole.sum()
        if area:
            assert [x0, y0, x1 - x0, y1 - y0] == coco_mask.toBbox(expected).tolist()
