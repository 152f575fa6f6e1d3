"""Exports as folders: layouts, images, splits, manifests, and what other tools read of them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from promerge_fo import dataset as pfo


def tree(folder: Path) -> list[str]:
    """All files below a folder."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


def expected_masks(samples) -> dict[str, np.ndarray]:
    """The stored masks by the image's path."""
    return {
        s.filepath: pfo.masks_of(s.promerge, (s.metadata.height, s.metadata.width))
        for s in samples.iter_samples()
    }


IMAGES = [f"images/{folder}/{n}.png" for folder in ("a", "b", "b/c") for n in range(3)]


@pytest.mark.parametrize("images", ["link", "copy"])
def test_images_keep_their_folders(scenes, tmp_path, images):
    out = tmp_path / "out"
    summary = pfo.export_pseudo_labels(scenes, "promerge", out, min_area=0, images=images)
    assert tree(out) == sorted(["annotations/instances.json", "manifest.json", *IMAGES])
    assert summary["image_root"] == str(out / "images")
    assert summary["files"] == {"instances": str(out / "annotations" / "instances.json")}
    coco = COCO(summary["files"]["instances"])
    for sample, image in zip(scenes, coco.imgs.values(), strict=True):
        placed = out / "images" / image["file_name"]
        assert placed.read_bytes() == Path(sample.filepath).read_bytes()
        assert placed.is_symlink() == (images == "link")
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_images_are_left_where_they_lie(scenes, tmp_path):
    out = tmp_path / "out"
    summary = pfo.export_pseudo_labels(scenes, "promerge", out, min_area=0)
    assert tree(out) == ["annotations/instances.json", "manifest.json"]
    assert summary["image_root"] == str(tmp_path / "photos")
    for image in COCO(summary["files"]["instances"]).imgs.values():
        assert Path(summary["image_root"], image["file_name"]).is_file()


def test_two_samples_of_one_file(fo, scenes, tmp_path):
    for _ in range(2):
        scenes.add_sample(fo.Sample(filepath=scenes.first().filepath))
    summary = pfo.export_pseudo_labels(scenes, "promerge", tmp_path / "out", images="link")
    assert summary["images"] == 11
    assert sorted(IMAGES) == [name for name in tree(tmp_path / "out") if name in IMAGES]


def test_a_random_split(scenes, tmp_path):
    options = {"min_area": 0, "val_fraction": 1 / 3, "seed": 5}
    summary = pfo.export_pseudo_labels(scenes, "promerge", tmp_path / "out", **options)
    files = {name: COCO(path) for name, path in summary["files"].items()}
    assert list(files) == ["train", "val"]
    assert [len(coco.imgs) for coco in files.values()] == [6, 3]
    assert sorted([*files["train"].imgs, *files["val"].imgs]) == list(range(1, 10))
    for coco in files.values():
        assert sorted(coco.anns) == list(range(1, len(coco.anns) + 1))
    assert sum(len(coco.anns) for coco in files.values()) == summary["annotations"]
    again = pfo.export_pseudo_labels(scenes.shuffle(seed=1), "promerge", tmp_path / "b", **options)
    for name, coco in files.items():
        assert {i["file_name"] for i in COCO(again["files"][name]).imgs.values()} == {
            i["file_name"] for i in coco.imgs.values()
        }


def test_a_split_by_sample_tags(scenes, tmp_path):
    scenes.limit(4).tag_samples("train")
    scenes.skip(4).limit(2).tag_samples("val")
    summary = pfo.export_pseudo_labels(
        scenes, "promerge", tmp_path / "out", images="link", split_tags=["train", "val"]
    )
    assert (summary["images"], summary["unsplit"]) == (6, 3)
    counts = [len(COCO(path).imgs) for path in summary["files"].values()]
    assert counts == [4, 2]
    assert len([name for name in tree(tmp_path / "out") if name.startswith("images")]) == 6
    with pytest.raises(ValueError, match="either val_fraction or split_tags"):
        pfo.export_pseudo_labels(
            scenes, "promerge", tmp_path / "b", split_tags=["train"], val_fraction=0.5
        )


def test_a_folder_with_something_in_it_is_not_touched(scenes, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    pfo.export_pseudo_labels(scenes, "promerge", out)  # an empty one is fine
    (out / "weights.pth").write_text("")
    with pytest.raises(
        FileExistsError, match="is not empty; overwrite=True .--overwrite. replaces it"
    ):
        pfo.export_pseudo_labels(scenes, "promerge", out)
    assert (out / "weights.pth").exists()
    pfo.export_pseudo_labels(scenes, "promerge", out, images="copy", overwrite=True)
    assert tree(out) == sorted(["annotations/instances.json", "manifest.json", *IMAGES])
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("")
    with pytest.raises(FileExistsError, match="is not empty; give another, or an empty one"):
        pfo.export_pseudo_labels(scenes, "promerge", mine, overwrite=True)
    assert tree(mine) == ["thesis.tex"]


def test_an_interrupted_export_leaves_the_old_one(scenes, tmp_path, monkeypatch):
    from promerge_fo.dataset.exchange import export
    from promerge_fo.dataset.exchange.selection import Chosen

    out = tmp_path / "out"
    pfo.export_pseudo_labels(scenes, "promerge", out)
    before = {name: (out / name).read_bytes() for name in tree(out)}
    seen = []

    def choose(self, path, labels, size, categories):
        seen.append(size)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return Chosen()

    monkeypatch.setattr(export.Selection, "choose", choose)
    with pytest.raises(KeyboardInterrupt):
        pfo.export_pseudo_labels(scenes, "promerge", out, images="copy", overwrite=True)
    assert {name: (out / name).read_bytes() for name in tree(out)} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "photos"]


@pytest.mark.parametrize(
    ("path", "options", "error", "words"),
    [
        ("a.json", {"images": "copy"}, ValueError, "a.json is one file; for splits, images"),
        ("a.json", {"val_fraction": 0.5}, ValueError, "a.json is one file"),
        ("a", {"images": "move"}, ValueError, "images is 'move', but must be one of 'refer', 'li"),
        ("a", {"format": "voc"}, ValueError, "format is 'voc', but must be 'coco' or 'yolo'"),
        ("a", {"format": "yolo"}, ValueError, "give images='link' or images='copy'"),
        ("file", {}, FileExistsError, "file is a file; give a folder"),
        ("folder.json", {}, FileExistsError, "folder.json is a folder; give another path"),
    ],
)
def test_what_does_not_go_together_is_refused(scenes, tmp_path, path, options, error, words):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.json").mkdir()
    before = tree(tmp_path)
    with pytest.raises(error, match=words):
        pfo.export_pseudo_labels(scenes, "promerge", tmp_path / path, **options)
    assert tree(tmp_path) == before


def test_an_image_that_is_gone(scenes, tmp_path):
    Path(scenes.first().filepath).unlink()
    with pytest.raises(FileNotFoundError, match="0.png is gone; take a view without it"):
        pfo.export_pseudo_labels(scenes, "promerge", tmp_path / "out", images="link")
    assert not (tmp_path / "out").exists()


def test_patches_are_refused(scenes, tmp_path):
    with pytest.raises(ValueError, match="these samples are patches of images"):
        pfo.export_pseudo_labels(scenes.to_patches("promerge"), "promerge", tmp_path / "a.json")


def test_the_manifest_says_what_was_exported_from_what(scenes, filled_record, tmp_path):
    view = scenes.skip(2).match_tags("none", bool=False)
    summary = pfo.export_pseudo_labels(
        view, "promerge", tmp_path / "out", min_score=0.2, images="link", val_fraction=0.5, seed=9
    )
    manifest = json.loads(Path(summary["manifest"]).read_text())
    assert manifest["dataset"] == scenes.name and manifest["label_field"] == "promerge"
    assert [stage["_cls"].rsplit(".", 1)[1] for stage in manifest["view"]] == ["Skip", "MatchTags"]
    assert manifest["settings"] == {
        "min_area": 0.05, "tags": None, "min_score": 0.2, "review": "not_rejected",
        "max_per_image": None,
        "format": "coco", "images": "link", "val_fraction": 0.5, "seed": 9, "split_tags": None,
        "classes": None, "other_class": None,
    }  # fmt: skip
    counts = {k: v for k, v in summary.items() if isinstance(v, int)}
    assert manifest["problems"] == [] and manifest["unlisted_names"] == {}
    assert manifest["counts"] == counts
    assert manifest["runs"] == {"0123456789abcdef": {"images": 7, "record": filled_record}}
    assert manifest["image_root"] == summary["image_root"]
    assert {"promerge_fo", "fiftyone", "python"} <= set(manifest["versions"])
    files = manifest["files"]
    assert list(files) == ["annotations/train.json", "annotations/val.json"]
    for name, about in files.items():
        content = (tmp_path / "out" / name).read_bytes()
        assert about["sha256"] == hashlib.sha256(content).hexdigest()
        assert about["bytes"] == len(content)
        assert about["annotations"] == len(json.loads(content)["annotations"])
    assert sum(about["images"] for about in files.values()) == 7


@pytest.fixture
def filled_record(scenes):
    """A record of the run that the scenes' labels are marked with."""
    from promerge_fo.dataset.provenance import register
    from promerge_fo.run_record import RunRecord

    record = RunRecord("0123456789abcdef", "promerge", {"method": "promerge"})
    register(scenes, record)
    return record.to_dict()


def test_a_single_file_has_its_manifest_beside_it(scenes, tmp_path):
    summary = pfo.export_pseudo_labels(scenes, "promerge", tmp_path / "a.json")
    assert summary["manifest"] == str(tmp_path / "a.manifest.json")
    manifest = json.loads((tmp_path / "a.manifest.json").read_text())
    digest = hashlib.sha256((tmp_path / "a.json").read_bytes()).hexdigest()
    assert manifest["files"]["a.json"]["sha256"] == digest
    assert manifest["view"] == []
    assert manifest["runs"] == {"0123456789abcdef": {"images": 9, "record": None}}


def test_torchvision_reads_it(scenes, tmp_path):
    from torchvision.datasets import CocoDetection

    out = tmp_path / "out"
    pfo.export_pseudo_labels(scenes, "promerge", out, min_area=0, images="link")
    read = CocoDetection(out / "images", out / "annotations" / "instances.json")
    wanted = expected_masks(scenes)
    assert len(read) == 9
    for number, (image, labels) in enumerate(read, start=1):
        path = os.path.realpath(out / "images" / read.coco.imgs[number]["file_name"])
        masks = np.array([read.coco.annToMask(label) for label in labels], dtype=bool)
        assert image.size == masks.shape[:0:-1]
        np.testing.assert_array_equal(masks, wanted[path])


def test_fiftyone_reads_it(fo, scenes, tmp_path):
    out = tmp_path / "out"
    pfo.export_pseudo_labels(scenes, "promerge", out, min_area=0, images="copy")
    read = fo.Dataset.from_dir(
        dataset_type=fo.types.COCODetectionDataset,
        data_path=str(out / "images"),
        labels_path=str(out / "annotations" / "instances.json"),
        label_types="segmentations",
        label_field="promerge",
    )
    wanted = {os.path.relpath(p, tmp_path / "photos"): m for p, m in expected_masks(scenes).items()}
    found = {os.path.relpath(p, out / "images"): m for p, m in expected_masks(read).items()}
    assert found.keys() == wanted.keys()
    for name, masks in wanted.items():
        np.testing.assert_array_equal(found[name], masks)
    pairs = zip(scenes.sort_by("filepath"), read.sort_by("filepath"), strict=True)
    for ours, theirs in pairs:
        assert [d.confidence for d in theirs.promerge.detections] == pytest.approx(
            [d.confidence for d in ours.promerge.detections]
        )
        assert {d.label for d in theirs.promerge.detections} == {"fg"}
    read.delete()


def test_detectron2_reads_it(scenes, tmp_path):
    pytest.importorskip("detectron2", reason="detectron2 is not installed")
    from detectron2.data import DatasetCatalog
    from detectron2.data.datasets import register_coco_instances
    from detectron2.data.detection_utils import annotations_to_instances

    out = tmp_path / "out"
    pfo.export_pseudo_labels(scenes, "promerge", out, min_area=0, images="link")
    name = f"promerge_{out}"
    register_coco_instances(name, {}, str(out / "annotations/instances.json"), str(out / "images"))
    wanted = expected_masks(scenes)
    try:
        records = DatasetCatalog.get(name)
    finally:
        DatasetCatalog.remove(name)
    assert len(records) == 9
    for record in records:
        size = record["height"], record["width"]
        instances = annotations_to_instances(record["annotations"], size, mask_format="bitmask")
        masks = instances.gt_masks.tensor.numpy()
        np.testing.assert_array_equal(masks, wanted[os.path.realpath(record["file_name"])])
        assert instances.gt_classes.tolist() == [0] * len(masks)
