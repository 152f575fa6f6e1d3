"""Exports in YOLO's format: one line a mask, read back as ultralytics reads them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_fill_holes

from promerge_fo import dataset as pfo
from promerge_fo.instances import Instances
from tests.annotations.test_polygons import iou, read
from tests.dataset.exchange.test_export_folders import tree


@pytest.fixture
def add(fo, dataset, tmp_path):
    """Adds an image with masks to the dataset."""
    (tmp_path / "photos").mkdir()

    def add(masks, name="a.png"):
        masks = np.asarray(masks, dtype=bool)
        path = tmp_path / "photos" / name
        Image.fromarray(np.zeros((*masks.shape[1:], 3), np.uint8)).save(path)
        scores = np.linspace(1, 0.5, len(masks), dtype=np.float32)
        labels = pfo.to_detections(Instances(masks, scores), run="0123456789abcdef")
        dataset.add_sample(fo.Sample(filepath=str(path), promerge=labels))
        return dataset

    return add


def export(dataset, out, **options):
    """The summary of an export to YOLO of all masks, and the lines of each file by its name."""
    options = {"min_area": 0, "images": "link", "format": "yolo", **options}
    summary = pfo.export_pseudo_labels(dataset, "promerge", out, **options)
    files = sorted((out / "labels").rglob("*.txt"))
    return summary, {file.stem: file.read_text().splitlines() for file in files}


def points_of(line: str, size) -> tuple[int, np.ndarray]:
    """The category and the points in pixels of a line, which ultralytics takes for no box."""
    category, *numbers = line.split()
    assert len(numbers) >= 6 and len(numbers) % 2 == 0
    return int(category), np.array(numbers, dtype=float).reshape(-1, 2) * size[::-1]


@pytest.mark.parametrize("images", ["link", "copy"])
def test_yolo(fo, scenes, tmp_path, images):
    out = tmp_path / "out"
    summary = pfo.export_pseudo_labels(
        scenes, "promerge", out, min_area=0.1, images=images, format="yolo", val_fraction=1 / 3
    )
    assert summary["files"] == {"dataset": str(out / "dataset.yaml")}
    placed = [name for name in tree(out) if name.startswith("images/")]
    assert len(placed) == 9
    assert all((out / name).is_symlink() == (images == "link") for name in placed)
    manifest = json.loads(Path(summary["manifest"]).read_text())
    assert manifest["files"]["labels/train"]["images"] == 6
    assert manifest["files"]["labels/val"]["images"] == 3
    total = 0
    for split in ("train", "val"):
        read = fo.Dataset.from_dir(
            dataset_dir=str(out),
            dataset_type=fo.types.YOLOv5Dataset,
            split=split,
            label_type="polylines",
            label_field="found",
        )
        for sample in read:
            total += len(sample.found.polylines)
            name = os.path.relpath(sample.filepath, out / "images" / split)
            assert (tmp_path / "photos" / name).is_file()
            assert all(len(p.points) == 1 for p in sample.found.polylines)
            assert {p.label for p in sample.found.polylines} <= {"fg"}
        read.delete()
    assert total == summary["annotations"] > 9
    assert (
        total + summary["scattered"] == scenes.count("promerge.detections") - summary["too_small"]
    )


def test_one_line_a_mask_whatever_its_shape(add, tmp_path):
    size = (90, 120)
    y, x = np.mgrid[: size[0], : size[1]]
    masks = np.zeros((7, *size), dtype=bool)
    d = np.hypot(y - 45, x - 60)
    masks[0] = (d < 40) & (d > 25)  # a ring
    masks[1, 10:40, 10:40] = masks[1, 10:40, 44:80] = masks[1, 44:80, 10:40] = True  # parts
    masks[2] = True  # along the borders
    masks[2, 2:-2, 2:-2] = False
    masks[3, 50, 50] = True
    masks[4, 60, 10:12] = True
    masks[5, np.arange(20), np.arange(20)] = True
    masks[6, ::3, ::3] = True  # dots that no line can join
    summary, files = export(add(masks), tmp_path / "out")
    assert (summary["annotations"], summary["scattered"], summary["holes_filled"]) == (6, 1, 2)
    assert len(files["a"]) == 6
    for mask, line, least in zip(masks, files["a"], (1, 0.99, 1, 1, 1, 1), strict=False):
        category, points = points_of(line, size)
        assert category == 0
        assert iou(read(points, size), binary_fill_holes(mask)) >= least
    manifest = json.loads(Path(summary["manifest"]).read_text())
    assert manifest["counts"]["scattered"] == 1 and manifest["counts"]["holes_filled"] == 2
    assert manifest["files"]["labels/train"]["annotations"] == 6


def test_boxes_without_masks_are_polygons_within_the_image(fo, add, tmp_path):
    dataset = add(np.ones((1, 20, 40)))
    sample = dataset.first()
    boxes = ([0.5, 0.25, 0.25, 0.5], [0.75, -0.25, 0.5, 0.5])
    sample.promerge.detections += [fo.Detection(label="box", bounding_box=b) for b in boxes]
    sample.save()
    _, files = export(dataset, tmp_path / "out")
    _, whole, beyond = (points_of(line, (20, 40))[1] for line in files["a"])
    assert (*whole.min(axis=0), *whole.max(axis=0)) == (20, 5, 30, 15)
    assert (*beyond.min(axis=0), *beyond.max(axis=0)) == (30, 0, 40, 5)


def test_images_that_differ_in_their_suffix_do_not_share_a_file(add, tmp_path):
    add(np.ones((1, 20, 40)), "a.png")
    dataset = add(np.ones((2, 20, 40)), "a.jpg")
    _, files = export(dataset, tmp_path / "out")
    assert {name: len(lines) for name, lines in files.items()} == {"a": 1, "a-2": 2}
    placed = [name for name in tree(tmp_path / "out") if name.startswith("images")]
    assert placed == ["images/train/a-2.jpg", "images/train/a.png"]


def test_folders_of_the_name_that_ultralytics_replaces(add, tmp_path):
    (tmp_path / "photos" / "a" / "images").mkdir(parents=True)
    (tmp_path / "photos" / "b" / "images").mkdir(parents=True)
    add(np.ones((1, 20, 40)), "a/images/1.png")
    dataset = add(np.ones((2, 20, 40)), "b/images/1.png")
    out = tmp_path / "out"
    export(dataset, out)
    for image in (out / "images").rglob("*.png"):
        head, tail = str(image.with_suffix(".txt")).rsplit("/images/", 1)
        assert len(Path(f"{head}/labels/{tail}").read_text().splitlines()) in (1, 2)
    assert sum(path.is_symlink() for path in (out / "images").rglob("*.png")) == 2


def test_splits_are_named_like_nothing_else_in_the_yaml_file(add, tmp_path):
    import yaml

    dataset = add(np.ones((1, 20, 40)))
    dataset.tag_samples(["names", "on"])
    with pytest.raises(ValueError, match="cannot be named 'names'; use other tags"):
        export(dataset, tmp_path / "out", split_tags=["names"])
    export(dataset, tmp_path / "out", split_tags=["on"])
    content = yaml.safe_load((tmp_path / "out" / "dataset.yaml").read_text())
    assert content["on"] == "./images/on/"


def test_the_yaml_file_is_what_ultralytics_wants(add, tmp_path):
    import yaml

    for name in "abcd":
        dataset = add(np.ones((1, 20, 40)), f"{name}.png")
    export(dataset, tmp_path / "out", val_fraction=0.25)
    content = yaml.safe_load((tmp_path / "out" / "dataset.yaml").read_text())
    assert content == {
        "names": {0: "fg"}, "train": "./images/train/", "val": "./images/val/",
    }  # fmt: skip
