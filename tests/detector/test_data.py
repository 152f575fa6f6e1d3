"""Batches: what they hold, and that they follow from the seed and their number."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from promerge_fo.detector import DetectorConfig
from promerge_fo.detector.annotations import read_annotations
from promerge_fo.detector.data import Batches, draw, target_size, to_detectron2
from tests.detector.conftest import write_coco

CONFIG = DetectorConfig(batch_size=4, short_side_low=24, short_side_high=48, long_side=80)


def batches(path, config=CONFIG, rank=0, processes=1):
    return Batches(read_annotations(path, path.parent), config, rank, processes)


def same(a, b):
    return len(a) == len(b) and all(
        all(np.array_equal(a, b) for a, b in zip(vars(x).values(), vars(y).values(), strict=True))
        for x, y in zip(a, b, strict=True)
    )


def test_every_image_is_seen_once_before_any_is_seen_again():
    seen = [draw(10, number, seed=3) for number in range(30)]
    passes = [seen[:10], seen[10:20], seen[20:]]
    assert all(sorted(images) == list(range(10)) for images in passes)
    assert passes[0] != passes[1] != passes[2]
    assert [draw(10, number, seed=3) for number in (29, 0, 15)] == [seen[29], seen[0], seen[15]]
    assert [draw(10, number, seed=4) for number in range(10)] != passes[0]


def test_a_batch_follows_from_the_seed_and_its_number(squares):
    made = batches(squares)
    third = made.pictures(3)
    made.pictures(8)
    assert same(third, made.pictures(3))
    assert same(third, batches(squares).pictures(3))
    assert not same(third, made.pictures(4))
    assert not same(third, batches(squares, CONFIG.replace(seed=1)).pictures(3))


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_same_batch(squares, processes):
    whole = batches(squares).pictures(5)
    shares = [batches(squares, CONFIG, rank, processes).pictures(5) for rank in range(processes)]
    assert same(whole, [picture for share in shares for picture in share])
    with pytest.raises(ValueError, match="3 GPUs cannot share batches of 4 images"):
        batches(squares, CONFIG, 0, 3)


def test_sizes_and_mirroring(squares):
    config = CONFIG.replace(copy_paste=0)
    pictures = [p for i in range(30) for p in batches(squares, config).pictures(i)]
    shapes = np.array([p.image.shape for p in pictures])
    assert shapes[:, 0].min() >= 24
    assert shapes[:, 0].max() <= 48
    assert len(set(shapes[:, 0])) > 15
    assert (np.abs(shapes[:, 1] / shapes[:, 0] - 64 / 48) < 0.03).all()
    bright = [p.image[:, :, 0] > 120 for p in pictures]
    for picture, seen in zip(pictures, bright, strict=True):  # masks go where their pixels go
        union = picture.masks.any(axis=0)
        assert (union & seen).sum() / (union | seen).sum() > 0.8
    alone = [p for p in pictures if len(p.masks) == 1]
    left = np.mean([p.masks[0].nonzero()[1].mean() < p.masks.shape[2] / 2 for p in alone])
    assert 0.3 < left < 0.7  # the square is on the left of the images as they are


def test_objects_of_the_next_image_are_pasted(squares):
    """Each image's objects have a green of their own."""
    greens = []
    for iteration in range(6):
        with_objects = batches(squares).pictures(iteration)
        without = batches(squares, CONFIG.replace(copy_paste=0)).pictures(iteration)
        for k, (own, made) in enumerate(zip(without, with_objects, strict=True)):
            changed = (own.image != made.image).any(axis=2)
            other = without[(k + 1) % 4]
            green = np.median(other.image[other.masks.any(axis=0)][:, 1])
            pasted = np.median(made.image[changed][:, 1]) if changed.any() else green
            assert abs(pasted - green) <= 10  # scaled pixels blend at the edges
            assert (made.masks.sum(axis=0) <= 1).all()
            assert made.masks.any(axis=(1, 2)).all()
            greens.append(green)
    assert set(greens) == {80, 120, 160}


def test_masks_keep_their_classes(squares):
    """Resized, mirrored, pasted and covered: the green of an object tells its class."""
    content = json.loads(squares.read_text())
    for entry in content["annotations"]:
        entry["category_id"] = entry["image_id"]
    content["categories"] = [{"id": 10 * k, "name": str(k)} for k in (3, 1, 2)]
    squares.write_text(json.dumps(content))
    made = Batches(read_annotations(squares, squares.parent, classes=True), CONFIG)
    pictures = [picture for k in range(8) for picture in made.pictures(k)]
    pasted = [p for p in pictures if len(set(p.classes.tolist())) > 1]
    assert len(pasted) > 5
    for picture in pictures:
        assert len(picture.classes) == len(picture.masks)
        for mask, number in zip(picture.masks, picture.classes, strict=True):
            green = np.median(picture.image[mask][:, 1])
            assert abs(green - (80 + 40 * number)) <= 10


def test_an_image_that_cannot_be_read_makes_way_for_the_next(squares, caplog):
    (squares.parent / "1.png").write_bytes(b"no image")
    config = CONFIG.replace(copy_paste=0)
    with caplog.at_level(logging.WARNING, "promerge.detector"):
        pictures = [p for i in range(3) for p in batches(squares, config).pictures(i)]
    assert len(pictures) == 12
    assert "1.png is not an image" in caplog.text
    greens = {int(p.image[p.masks[0]][:, 1].max()) for p in pictures}
    assert greens == {80, 160}  # squares of the first and the third image
    for k in (0, 2):
        (squares.parent / f"{k}.png").unlink()
    with pytest.raises(ValueError, match="none of the 3 images can be read"):
        batches(squares, config).pictures(0)


def test_annotations_of_another_orientation_are_refused(tmp_path):
    """An image is taken as it is shown: 40 x 30 pixels in the file, turned by its EXIF data."""
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((30, 40, 3), dtype=np.uint8)
    pixels[:, :8] = 255  # the file's left is what one sees at the top
    Image.fromarray(pixels).save(path, exif=exif, quality=95)
    mask = np.zeros((40, 30), dtype=bool)
    mask[:8] = True
    image = {"id": 1, "file_name": "turned.jpg", "height": 40, "width": 30}
    write_coco(tmp_path / "a.json", [image], [(1, mask)])
    config = CONFIG.replace(batch_size=1, copy_paste=0, short_side_low=30, short_side_high=30)
    picture = batches(tmp_path / "a.json", config).pictures(0)[0]
    assert picture.image.shape == (40, 30, 3)
    assert picture.image[picture.masks[0]].min() > 200
    write_coco(tmp_path / "b.json", [{**image, "height": 30, "width": 40}], [(1, mask.T)])
    with pytest.raises(ValueError, match=r"has 30 x 40 pixels .* but the annotations say 40 x 30"):
        batches(tmp_path / "b.json", config).pictures(0)


def test_nothing_to_learn_from(squares):
    content = json.loads(squares.read_text())
    squares.write_text(json.dumps({**content, "annotations": []}))
    with pytest.raises(ValueError, match="no image has a mask to learn from"):
        batches(squares)


def test_the_long_side_is_bounded():
    assert target_size((480, 640), 800, 1333) == (800, 1067)
    assert target_size((400, 1600), 800, 1333) == (333, 1333)
    assert target_size((3, 2000), 1, 100) == (1, 100)


def test_as_detectron2_takes_them(detectron2, squares):
    made = batches(squares)
    for picture, record in zip(made.pictures(1), made[1], strict=True):
        assert (record["image"].numpy() == picture.image.transpose(2, 0, 1)).all()
        instances = record["instances"]
        assert instances.image_size == picture.image.shape[:2]
        assert (instances.gt_masks.tensor.numpy() == picture.masks).all()
        assert (instances.gt_boxes.tensor == instances.gt_masks.get_bounding_boxes().tensor).all()
        assert instances.gt_classes.tolist() == [0] * len(picture.masks)
    classes = np.arange(len(picture.masks))[::-1] + 4
    assert to_detectron2(replace(picture, classes=classes))["instances"].gt_classes.tolist() == (
        classes.tolist()
    )
