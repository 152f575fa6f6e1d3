"""What ultralytics and torchvision write is imported as they write it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from promerge_fo import dataset as pfo
from promerge_fo.cli import main
from promerge_fo.dataset.labels import pixel_crop


def rename(samples, name) -> None:
    """Give each sample a file of its own name; those of the scenes share theirs."""
    for k, sample in enumerate(samples):
        old = Path(sample.filepath)
        new = old.parents[1] / name(k)
        os.link(old, new)
        sample.filepath = str(new)
        sample.save()


@pytest.fixture
def instances(scenes) -> list[list[tuple]]:
    """Of each sample its masks (H, W) bool with their scores; the files get names of their own."""
    rename(scenes, lambda k: f"photo.{k}.png")
    found = []
    for sample in scenes:
        size, masks = (sample.metadata.height, sample.metadata.width), []
        for label in sample.promerge.detections:
            crop, top, left = pixel_crop(label, size)
            mask = np.zeros(size, bool)
            mask[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
            masks.append((mask, label.confidence))
        found.append(masks)
    return found


def same(sample) -> bool:
    """Whether the imported labels are those of the run, up to the rounding of a box's corner."""

    def key(d):
        return [round(v, 6) for v in d.bounding_box], d.mask.tobytes()

    found, wanted = sample.found.detections, sample.promerge.detections
    return [key(d) for d in found] == [key(d) for d in wanted]


def ultralytics(scenes, instances, with_names: bool) -> list[dict]:
    """predictions.json of ``yolo segment val save_json=True``.

    Its keys, roundings and numbers from 0 are those of ultralytics: ``image_id`` is the stem of the
    file's name, as a number where it looks like one; ``file_name`` came in 2025.
    """
    entries = []
    for sample, masks in zip(scenes, instances, strict=True):
        path = Path(sample.filepath)
        for mask, score in masks:
            rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            entry = {
                "image_id": int(path.stem) if path.stem.isnumeric() else path.stem,
                "category_id": 0,
                "bbox": [round(v, 3) for v in coco_mask.toBbox(rle).tolist()],
                "score": round(score, 5),
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode("utf-8")},
            }
            if with_names:
                entry["file_name"] = path.name
            entries.append(entry)
    return entries


def test_predictions_of_ultralytics(scenes, instances, tmp_path):
    file = tmp_path / "predictions.json"
    file.write_text(json.dumps(ultralytics(scenes, instances, with_names=False)))
    report = pfo.import_predictions(scenes, file, "found")
    assert report.labels == scenes.count("promerge.detections") > 9
    scenes.reload()
    assert all(map(same, scenes))


def test_files_with_numbers_as_names_are_found_by_their_names(scenes, instances, tmp_path):
    """ "000007.png" has the image_id 7, which is no position among the samples."""
    rename(scenes, lambda k: f"{(k + 4) % 10:06d}.png")
    file = tmp_path / "predictions.json"
    file.write_text(json.dumps(ultralytics(scenes, instances, with_names=True)))
    report = pfo.import_predictions(scenes, file, "found")
    assert (report.unmatched, report.skipped) == (0, {})
    scenes.reload()
    assert all(map(same, scenes))
    gone = [{**json.loads(file.read_text())[0], "file_name": "elsewhere.png"}]
    file.write_text(json.dumps([*gone, *json.loads(file.read_text())]))
    report = pfo.import_predictions(scenes, file, "found", overwrite=True)
    assert (report.unmatched, report.unmatched_ids) == (1, ("elsewhere.png",))


def torchvision(masks: list[tuple]) -> dict[str, torch.Tensor]:
    """What a Mask R-CNN of torchvision returns for an image: masks are probabilities."""
    stacked = np.stack([mask for mask, _ in masks]) if masks else np.zeros((0, 9, 9), bool)
    boxes = [[x.min(), y.min(), x.max() + 1, y.max() + 1] for y, x in map(np.nonzero, stacked)]
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.ones(len(masks), dtype=torch.int64),
        "scores": torch.tensor([score for _, score in masks], dtype=torch.float32),
        "masks": torch.from_numpy(np.where(stacked, 0.8, 0.2).astype(np.float32))[:, None],
    }


@pytest.mark.parametrize("form", ["list", "by name", "by number"])
def test_what_torchvision_returns(scenes, instances, tmp_path, form):
    found = [torchvision(masks) for masks in instances]
    content = {
        "list": found,
        "by name": {Path(s.filepath).name: f for s, f in zip(scenes, found, strict=True)},
        "by number": dict(enumerate(found, start=1)),
    }[form]
    torch.save(content, tmp_path / "found.pt")
    report = pfo.import_predictions(scenes, tmp_path / "found.pt", "found")
    assert report.labels == scenes.count("promerge.detections")
    assert (report.unmatched, report.skipped) == (0, {})
    scenes.reload()
    assert all(map(same, scenes))
    for sample in scenes:
        scores = [[d.confidence for d in sample[f].detections] for f in ("found", "promerge")]
        assert scores[0] == pytest.approx(scores[1])


def test_boxes_alone_and_masks_without_a_pixel(scenes, tmp_path, capsys):
    size = scenes.first().metadata.height, scenes.first().metadata.width
    both = {
        "boxes": torch.tensor([[1.0, 2.0, 5.0, 8.0], [0.0, 0.0, 3.0, 3.0]]),
        "scores": torch.tensor([0.9, 0.8]),
    }
    torch.save({1: both}, tmp_path / "boxes.pth")
    argv = ["import", scenes.name, str(tmp_path / "boxes.pth"), "--label-field", "found"]
    assert main(argv) == 0
    assert "2 labels on 1 images in the field 'found', of 2 predictions" in capsys.readouterr().out
    scenes.reload()
    label = scenes.first().found.detections[0]
    assert label.mask is None
    np.testing.assert_allclose(
        label.bounding_box, [1 / size[1], 2 / size[0], 4 / size[1], 6 / size[0]]
    )
    masks = torch.zeros(2, *size)
    masks[0, 2:8, 1:5] = 1
    torch.save({1: {**both, "masks": masks}}, tmp_path / "masks.pt")
    report = pfo.import_predictions(scenes, tmp_path / "masks.pt", "found", overwrite=True)
    assert (report.labels, report.skipped) == (1, {"empty": 1})
    assert report.problems[0].startswith("entry 1: its mask has no pixel")


BOXES = torch.tensor([[1.0, 2.0, 5.0, 8.0]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"boxes": BOXES}], r"a list of 1 predictions for \d+ samples"),
        ({"boxes": BOXES}, "must hold a list with a dictionary"),
        (BOXES, "does not hold predictions as torchvision returns them, but Tensor"),
        ({1: {"boxes": BOXES[:, :3]}}, r"boxes of 1 are \(1, 3\); boxes must be \(n, 4\)"),
        ({1: {"boxes": [1, 2, 5, 8]}}, "boxes of 1 are list"),
        ({1: {"boxes": BOXES, "scores": torch.ones(2)}}, r"scores of 1 are \(2,\)"),
        ({1: {"boxes": BOXES, "masks": torch.ones(1, 9)}}, r"masks of 1 are \(1, 9\)"),
    ],
)
def test_tensors_that_are_no_predictions_are_refused(scenes, tmp_path, content, message):
    torch.save(content, tmp_path / "found.pt")
    with pytest.raises(ValueError, match=message):
        pfo.import_predictions(scenes, tmp_path / "found.pt", "found")
    assert not scenes.has_field("found")


class Code:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_code_in_a_file_of_tensors_is_not_executed(scenes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({1: Code()}, tmp_path / "found.pt")
    (tmp_path / "broken.pt").write_bytes((tmp_path / "found.pt").read_bytes()[:50])
    for name in ("found.pt", "broken.pt"):
        with pytest.raises(ValueError, match="is no file of tensors that torch.save wrote whole"):
            pfo.import_predictions(scenes, tmp_path / name, "found")
    assert not (tmp_path / "executed").exists()


def test_an_export_names_the_command_that_trains_on_it(scenes, tmp_path, capsys):
    folder = tmp_path / "a b"
    argv = ["export", scenes.name, str(folder), "--format", "yolo", "--images", "copy"]
    assert main([*argv, "--min-area", "0"]) == 0
    said = capsys.readouterr().out
    command = f'yolo segment train model=yolo11n-seg.pt data="{folder / "dataset.yaml"}"'
    assert said.splitlines()[-1] == f"ultralytics trains on it: {command}"
    assert (folder / "dataset.yaml").is_file()
    assert main(["export", scenes.name, str(tmp_path / "coco"), "--min-area", "0"]) == 0
    assert "ultralytics" not in capsys.readouterr().out
