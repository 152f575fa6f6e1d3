from __future__ import annotations

import numpy as np
import pytest

from promerge_fo import dataset as pfo
from promerge_fo.instances import Instances

pytestmark = pytest.mark.usefixtures("fo")


def instances(masks, **kwargs) -> Instances:
    return Instances(masks, np.linspace(0.9, 0.1, len(masks), dtype=np.float32), **kwargs)


def test_detections_hold_boxes_masks_and_attributes():
    masks = np.zeros((2, 10, 20), dtype=bool)
    masks[0, 2:5, 4:9] = True
    masks[0, 3, 5] = False
    masks[1, 8:, 18:] = True
    labels = pfo.to_detections(instances(masks), "0123")
    first, last = labels.detections
    assert (labels.status, labels.error, labels.run) == ("ok", None, "0123")
    assert (first.label, first.confidence) == ("fg", pytest.approx(0.9))
    assert first.bounding_box == [4 / 20, 2 / 10, 5 / 20, 3 / 10]
    assert first.mask.dtype == bool and first.mask.shape == (3, 5) and first.mask.sum() == 14
    assert (first.area, first.touches_border) == (14 / 200, False)
    assert (last.area, last.touches_border) == (4 / 200, True)


def test_proposals_have_a_level_and_the_id_of_their_parent():
    masks = np.zeros((3, 10, 20), dtype=bool)
    masks[1, 2:9, 2:9] = masks[2, 3:6, 3:6] = True  # the first has no pixel
    levels, parents = np.array([1, 1, 3]), np.array([-1, -1, 1])
    labels = pfo.to_detections(instances(masks, levels=levels, parents=parents), "").detections
    assert [label.level for label in labels] == [1, 3]
    assert [label.parent for label in labels] == [None, labels[0].id]
    assert not pfo.to_detections(instances(masks), "").detections[0].has_field("level")


def test_masks_come_back_bit_by_bit_at_any_size():
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width = rng.integers(1, 300, 2)
        masks = np.zeros((3, height, width), dtype=bool)
        for mask in masks:
            y, x = rng.integers(0, height), rng.integers(0, width)
            patch = mask[y : y + rng.integers(1, height + 1), x : x + rng.integers(1, width + 1)]
            patch[:] = rng.random(patch.shape) < 0.7
            mask[y, x] = True
        labels = pfo.to_detections(instances(masks), "")
        np.testing.assert_array_equal(pfo.masks_of(labels, (height, width)), masks)


def test_relative_boxes_name_the_same_pixels_in_huge_images():
    from promerge_fo.dataset.labels import _pixel_range

    rng = np.random.default_rng(1)
    for pixels in (1, 3, 479, 10_007, 65_535, 1_000_003):
        starts = rng.integers(0, pixels, 2000)
        stops = rng.integers(starts + 1, pixels + 1)
        for x0, x1 in zip(starts.tolist(), stops.tolist(), strict=True):
            assert _pixel_range(x0 / pixels, (x1 - x0) / pixels, pixels) == (x0, x1)


def test_an_image_without_masks_has_empty_labels_that_say_why():
    labels = pfo.to_detections(Instances.failed("broken.jpg is broken"), "0123")
    assert labels.detections == []
    assert (labels.status, labels.error) == ("failed", "broken.jpg is broken")
    assert pfo.masks_of(labels, (4, 5)).shape == (0, 4, 5)
    assert pfo.masks_of(None, (4, 5)).shape == (0, 4, 5)


def test_a_mask_without_pixels_is_left_out():
    masks = np.zeros((2, 4, 5), dtype=bool)
    masks[1, 0, 0] = True
    labels = pfo.to_detections(instances(masks), "")
    assert [d.confidence for d in labels.detections] == [pytest.approx(0.1)]


def test_a_brushed_mask_is_resized_to_its_pixel_box(fo):
    """After the App's brush, masks are uint8 at screen resolution in non-integer boxes."""
    brushed = np.zeros((30, 60), dtype=np.uint8)
    brushed[:, :30] = 255
    detection = fo.Detection(label="fg", bounding_box=[0.21, 0.19, 0.4, 0.3], mask=brushed)
    mask = pfo.mask_of(detection, (10, 20))
    wanted = np.zeros((10, 20), dtype=bool)
    wanted[2:5, 4:8] = True  # the box is columns 4 to 12 and rows 2 to 5
    np.testing.assert_array_equal(mask, wanted)


def test_a_box_beyond_the_image_is_cut_at_its_border(fo):
    mask = np.tile(np.array([True, False]), (4, 4))
    detection = fo.Detection(label="fg", bounding_box=[-0.4, 0.5, 0.8, 0.4], mask=mask)
    wanted = np.zeros((10, 10), dtype=bool)
    wanted[5:9, 0:4:2] = True
    np.testing.assert_array_equal(pfo.mask_of(detection, (10, 10)), wanted)


@pytest.mark.parametrize("box", [None, [0, 0, 1], [float("nan"), 0, 1, 1]])
def test_a_mask_without_a_place_is_named(fo, box):
    label = fo.Detection(label="fg", bounding_box=box, mask=np.ones((2, 2), bool))
    with pytest.raises(ValueError, match=rf"label {label.id} .'fg'. is no mask: .* four finite"):
        pfo.mask_of(label, (10, 10))


def test_labels_without_a_usable_mask_are_named(fo, tmp_path):
    box = [0, 0, 1, 1]
    with pytest.raises(ValueError, match="'cat'.* has a box but no mask"):
        pfo.mask_of(fo.Detection(label="cat", bounding_box=box), (4, 4))
    gone = fo.Detection(label="fg", bounding_box=box, mask_path=str(tmp_path / "gone.png"))
    with pytest.raises(FileNotFoundError, match=r"gone\.png.* is gone"):
        pfo.mask_of(gone, (4, 4))


def test_importing_the_package_does_not_import_fiftyone():
    import subprocess
    import sys

    code = "import sys, promerge_fo.install.mongod as m; assert 'fiftyone' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=_environment())


def _environment() -> dict[str, str]:
    import os
    from pathlib import Path

    import promerge_fo

    return {**os.environ, "PYTHONPATH": str(Path(promerge_fo.__file__).parents[1])}
