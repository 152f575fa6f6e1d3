import numpy as np
import pytest

from promerge_fo.instances import Instances, mask_boxes


def test_boxes_are_tight_and_exclusive():
    masks = np.zeros((3, 7, 9), dtype=bool)
    masks[0, 2, 3] = True
    masks[1, 0, 0] = masks[1, 6, 8] = True
    assert mask_boxes(masks).tolist() == [[3, 2, 4, 3], [0, 0, 9, 7], [0, 0, 0, 0]]


@pytest.mark.parametrize("shape", [(0, 5, 5), (0, 0, 0), (2, 0, 3)])
def test_boxes_of_nothing(shape):
    assert mask_boxes(np.zeros(shape, dtype=bool)).tolist() == [[0, 0, 0, 0]] * shape[0]


def test_failed_instances_are_empty():
    failed = Instances.failed("cannot be read", (4, 6))
    assert (len(failed), failed.status, failed.error) == (0, "failed", "cannot be read")
    assert failed.masks.shape == (0, 4, 6)
    assert failed.boxes.shape == (0, 4)
    assert failed.areas.tolist() == []
    assert Instances.failed("no file").boxes.shape == (0, 4)
