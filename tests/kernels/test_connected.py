"""Connected components against SciPy's."""

import numpy as np
import pytest
from scipy import ndimage

from promerge_fo.kernels.connected import draw, find_components

IN_ITS_OWN_MASK = np.stack([np.zeros((3, 3)), ndimage.generate_binary_structure(2, 1)] * 2)[:3]


@pytest.mark.parametrize("seed", range(4))
def test_components_are_those_of_scipy(seed):
    rng = np.random.default_rng(seed)
    for _ in range(25):
        masks = rng.random(rng.integers(1, [5, 30, 30])) < rng.random()
        labels, count = ndimage.label(masks, IN_ITS_OWN_MASK)
        found = find_components(masks)
        assert len(found.sizes) == count
        for component in range(count):  # SciPy numbers them in raster order, too
            drawn = np.zeros((1, *masks.shape[1:]), dtype=bool)
            draw(found, np.where(np.arange(count) == component, 0, -1), drawn)
            k = found.masks[component]
            np.testing.assert_array_equal(drawn[0], labels[k] == component + 1)
            assert found.sizes[component] == drawn.sum()


def test_several_components_in_one_mask_and_none_in_another():
    masks = np.array([[[1, 0, 1, 0, 1]]], dtype=bool)
    drawn = np.zeros((3, 1, 5), dtype=bool)
    draw(find_components(masks), np.array([2, -1, 2]), drawn)
    np.testing.assert_array_equal(drawn[:, 0], [[0] * 5, [0] * 5, [1, 0, 0, 0, 1]])


@pytest.mark.parametrize("shape", [(0, 4, 5), (3, 0, 5), (3, 4, 0), (2, 4, 5)])
def test_where_nothing_is_set_there_are_no_components(shape):
    found = find_components(np.zeros(shape, dtype=bool))
    assert [len(part) for part in found] == [0] * 5
