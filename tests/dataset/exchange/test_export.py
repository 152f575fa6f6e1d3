from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from promerge_fo import dataset as pfo


def load(path):
    from pycocotools.coco import COCO

    return COCO(str(path))


def test_masks_come_back_whole(filled, expected, photographs, tmp_path):
    path = tmp_path / "new" / "pseudo.json"
    summary = pfo.export_pseudo_labels(filled, "promerge", path, min_area=0)
    coco = load(path)
    assert summary == {
        "path": str(path),
        "image_root": str(Path(photographs[0]).parent),
        "files": {"instances": str(path)},
        "manifest": str(tmp_path / "new" / "pseudo.manifest.json"),
        "problems": [],
        "unlisted_names": {},
        "images": 4,
        "annotations": sum(map(len, expected)),
        "untagged": 0,
        "unreviewed": 0,
        "unlisted": 0,
        "bad_box": 0,
        "bad_confidence": 0,
        "bad_mask": 0,
        "lost_mask": 0,
        "low_score": 0,
        "too_small": 0,
        "beyond_limit": 0,
        "scattered": 0,
        "unreadable": 0,
        "unsplit": 0,
        "holes_filled": 0,
        "parts_left_out": 0,
    }
    assert coco.dataset["categories"] == [{"id": 1, "name": "fg"}]
    assert sorted(coco.imgs) == [1, 2, 3, 4]
    assert sorted(coco.anns) == list(range(1, summary["annotations"] + 1))
    for image_id, (photo, masks, sample) in enumerate(
        zip(photographs, expected, filled, strict=True), start=1
    ):
        image = coco.imgs[image_id]
        assert image["file_name"] == Path(photo).name
        assert (image["height"], image["width"]) == masks.shape[1:]
        annotations = coco.imgToAnns[image_id]
        confidences = [d.confidence for d in sample.promerge.detections]
        assert [a["score"] for a in annotations] == confidences
        for annotation, mask in zip(annotations, masks, strict=True):
            np.testing.assert_array_equal(coco.annToMask(annotation), mask)
            rows, columns = np.nonzero(mask)
            x, y, w, h = annotation["bbox"]
            assert (x, y) == (columns.min(), rows.min())
            assert (x + w - 1, y + h - 1) == (columns.max(), rows.max())
            assert annotation["area"] == mask.sum()
            assert (annotation["iscrowd"], annotation["category_id"]) == (0, 1)
            assert isinstance(annotation["segmentation"]["counts"], str)


def test_small_masks_are_left_out(filled, tmp_path):
    areas = filled.values("promerge.detections.area", unwind=True)
    limit = sorted(areas)[len(areas) // 2]
    summary = pfo.export_pseudo_labels(filled, "promerge", tmp_path / "a.json", min_area=limit)
    assert summary["annotations"] == sum(area >= limit for area in areas)
    assert summary["too_small"] == len(areas) - summary["annotations"]
    assert len(load(tmp_path / "a.json").anns) == summary["annotations"]


def test_only_labels_with_a_wanted_tag(filled, tmp_path):
    labels = filled.values("promerge.detections.id", unwind=True)
    filled.select_labels(ids=labels[:1]).tag_labels("accepted")
    filled.select_labels(ids=labels[1:2]).tag_labels("edited")
    for tags, count in (("accepted", 1), (["accepted", "edited"], 2), ([], 0)):
        summary = pfo.export_pseudo_labels(filled, "promerge", tmp_path / "a.json", 0, tags)
        assert summary["annotations"] == count
        assert summary["untagged"] == len(labels) - count


@pytest.mark.parametrize("field", ["coco_id", "ground_truth_coco_id"])  # as FiftyOne's importer
def test_images_keep_their_coco_ids_where_all_have_one(filled, tmp_path, field):
    path = tmp_path / "a.json"
    filled.set_values(field, [139, 285, 632, 724])
    pfo.export_pseudo_labels(filled, "promerge", path)
    assert list(load(path).imgs) == [139, 285, 632, 724]
    filled.set_values(field, [139, 285, 632, None])
    pfo.export_pseudo_labels(filled, "promerge", path)
    assert list(load(path).imgs) == [1, 2, 3, 4]


def test_images_without_masks_are_listed_and_unreadable_ones_are_not(
    fo, filled, model, photographs, tmp_path
):
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "unseen.jpg").write_bytes(Path(photographs[0]).read_bytes())
    filled.add_sample(fo.Sample(filepath=str(folder / "broken.jpg")))
    filled.apply_model(model, label_field="promerge", batch_size=8, num_workers=0)
    filled.add_sample(fo.Sample(filepath=str(folder / "unseen.jpg")))
    summary = pfo.export_pseudo_labels(filled, "promerge", tmp_path / "a.json")
    coco = load(tmp_path / "a.json")
    assert (summary["images"], summary["unreadable"]) == (5, 1)
    assert coco.imgs[6]["file_name"] == "more/unseen.jpg" or coco.imgs[6]["file_name"].endswith(
        "/more/unseen.jpg"
    )
    assert coco.imgToAnns[6] == []


def test_an_export_that_fails_leaves_the_old_file(filled, tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text("old")

    def fail(self, image):
        raise OSError("the disk is full")

    monkeypatch.setattr("promerge_fo.dataset.exchange.writers.CocoFile.add", fail)
    with pytest.raises(OSError, match="the disk is full"):
        pfo.export_pseudo_labels(filled, "promerge", path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_wrong_fields_and_areas_are_refused(fo, filled, tmp_path):
    with pytest.raises(ValueError, match="no samples to export"):
        pfo.export_pseudo_labels(filled.limit(0), "promerge", tmp_path / "a.json")
    filled.add_sample_field("title", fo.StringField)
    with pytest.raises(ValueError, match="'nothing' does not exist.* that do: 'promerge'"):
        pfo.export_pseudo_labels(filled, "nothing", tmp_path / "a.json")
    with pytest.raises(ValueError, match="'title' holds"):
        pfo.export_pseudo_labels(filled, "title", tmp_path / "a.json")
    with pytest.raises(ValueError, match="min_area is 5"):
        pfo.export_pseudo_labels(filled, "promerge", tmp_path / "a.json", min_area=5)


def test_the_file_is_plain_json(filled, tmp_path):
    pfo.export_pseudo_labels(filled.limit(1), "promerge", tmp_path / "a.json", min_area=1)
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["annotations"] == [] and len(content["images"]) == 1


def test_crowds_stay_crowds_and_boxes_boxes(fo, filled, tmp_path):
    filled.compute_metadata()
    sample = filled.first()
    crowd = sample.promerge.detections[0].copy()
    crowd["iscrowd"] = True
    box = fo.Detection(label="fg", bounding_box=[0.25, 0.5, 0.5, 0.25], confidence=0.5)
    sample.promerge.detections = [crowd, box]
    sample.save()
    pfo.export_pseudo_labels(filled.limit(1), "promerge", tmp_path / "a.json", min_area=0)
    first, second = json.loads((tmp_path / "a.json").read_text())["annotations"]
    assert (first["iscrowd"], second["iscrowd"]) == (1, 0)
    assert "segmentation" in first and "segmentation" not in second
    width, height = sample.metadata.width, sample.metadata.height
    assert second["bbox"] == [0.25 * width, 0.5 * height, 0.5 * width, 0.25 * height]
    assert second["area"] == pytest.approx(0.125 * width * height)
