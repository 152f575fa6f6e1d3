"""Copy-paste, on images small enough to be drawn by hand."""

import numpy as np
import pytest

from promerge_fo.detector.copy_paste import copy_paste


class Script:
    """A random generator that says what it is told to."""

    def __init__(self, random=(), uniform=(), integers=()):
        self._random, self._uniform, self._integers = list(random), list(uniform), list(integers)

    def random(self, n):
        assert len(self._random) == n
        return np.array(self._random)

    def uniform(self, low, high):
        value = self._uniform.pop(0)
        assert low <= value <= high
        return value

    def integers(self, high, size=None):
        value = self._integers.pop(0)
        assert 0 <= value < high
        return value if size is None else np.array([value])


def rectangle(shape, top, left, bottom, right):
    mask = np.zeros(shape, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def test_an_object_is_scaled_and_put_where_it_was_drawn():
    image = np.zeros((6, 8, 3), dtype=np.uint8)
    source = np.zeros((6, 8, 3), dtype=np.uint8)
    source[1:5, 2:8] = 9  # 4 x 6 pixels become 2 x 3
    own = rectangle((6, 8), 0, 0, 3, 4)
    made, masks, origins = copy_paste(
        image,
        own[None],
        source,
        rectangle((6, 8), 1, 2, 5, 8)[None],
        Script(random=[0.2], uniform=[0.5], integers=[3, 2]),  # left 3, top 2
    )
    pasted = rectangle((6, 8), 2, 3, 4, 6)
    assert (made == np.where(pasted[:, :, None], 9, 0)).all()
    assert (masks == [own & ~pasted, pasted]).all()
    assert masks[0].sum() == 11  # of 12
    assert origins.tolist() == [0, 1]
    assert not image.any()  # what was given stays


def test_later_objects_cover_earlier_ones_and_what_is_covered_wholly_goes():
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    source = np.full((4, 4, 3), 7, dtype=np.uint8)
    small, large = rectangle((4, 4), 0, 0, 1, 1), rectangle((4, 4), 0, 0, 2, 2)
    hidden, seen = rectangle((4, 4), 1, 1, 2, 2), rectangle((4, 4), 3, 3, 4, 4)
    _, masks, origins = copy_paste(
        image,
        np.array([hidden, seen]),
        source,
        np.array([small, large]),
        Script(random=[0.1, 0.3], uniform=[1.0, 1.0], integers=[2, 2, 1, 1]),
    )
    # the small one, at (2, 2), lies under the large one, at (1, 1) to (2, 2)
    assert (masks == [seen, rectangle((4, 4), 1, 1, 3, 3)]).all()
    assert origins.tolist() == [1, 3]  # the second of the image's two, and the source's second


def test_one_object_at_least_is_taken():
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    source = np.full((4, 4, 3), 7, dtype=np.uint8)
    objects = np.array([rectangle((4, 4), 0, 0, 2, 2), rectangle((4, 4), 2, 2, 3, 4)])
    made, masks, origins = copy_paste(
        image,
        np.zeros((0, 4, 4), dtype=bool),
        source,
        objects,
        Script(random=[0.5, 0.9], uniform=[1.0], integers=[1, 0, 0]),  # object 1, at (0, 0)
    )
    assert (masks == [rectangle((4, 4), 0, 0, 1, 2)]).all()
    assert made[:, :, 0].sum() == 14
    assert origins.tolist() == [1]


def test_an_object_larger_than_the_image_is_made_to_fit():
    image = np.zeros((4, 10, 3), dtype=np.uint8)
    source = np.full((40, 20, 3), 7, dtype=np.uint8)
    whole = np.ones((1, 40, 20), dtype=bool)
    _, masks, origins = copy_paste(
        image,
        np.zeros((0, 4, 10), dtype=bool),
        source,
        whole,
        Script(random=[0.0], uniform=[0.9], integers=[8, 0]),  # 40 x 20 at 1/10: 4 x 2
    )
    assert origins.tolist() == [0]
    assert (masks == [rectangle((4, 10), 0, 8, 4, 10)]).all()


def test_nothing_to_paste():
    image = np.zeros((4, 4, 3), dtype=np.uint8)
    own = np.ones((1, 4, 4), dtype=bool)
    made, masks, origins = copy_paste(image, own, image, np.zeros((0, 4, 4), dtype=bool), Script())
    assert made is image
    assert masks is own
    assert origins.tolist() == [0]


@pytest.mark.parametrize("seed", range(20))
def test_masks_are_what_is_to_be_seen(seed):
    """Every pixel of the result is the image's or the source's, as the masks say."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 100, (20, 30, 3)).astype(np.uint8)
    source = np.full((25, 15, 3), 200, dtype=np.uint8)
    objects = np.array([rectangle((25, 15), *(0, k, 5 + k, 6 + 2 * k)) for k in range(4)])
    own = np.array([rectangle((20, 30), 2 * k, 3 * k, 2 * k + 6, 3 * k + 8) for k in range(5)])
    made, masks, origins = copy_paste(image, own, source, objects, np.random.default_rng(seed))
    shown = (made == 200).all(axis=2)
    assert (made[~shown] == image[~shown]).all()
    of_objects = masks[[bool(shown[m].all()) for m in masks]]
    assert (of_objects.sum(axis=0) == shown).all()  # they cover what was pasted, each pixel once
    assert len(of_objects) >= 1
    kept = masks[[not shown[m].any() for m in masks]]
    assert len(kept) + len(of_objects) == len(masks)
    expected = own & ~shown
    assert (kept == expected[expected.any(axis=(1, 2))]).all()
    assert origins[: len(kept)].tolist() == np.flatnonzero(expected.any(axis=(1, 2))).tolist()
    assert (origins[len(kept) :] >= 5).all()
