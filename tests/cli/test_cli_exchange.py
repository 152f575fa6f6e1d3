"""promerge export and promerge import."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from promerge_fo.cli import main
from promerge_fo.instances import Instances


@pytest.fixture
def named(fo, tmp_path):
    """A dataset "shapes" of four images with two masks each, the second one small."""
    from promerge_fo.dataset.labels import to_detections

    dataset = fo.Dataset("shapes")
    for number in range(4):
        path = tmp_path / "photos" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30)).save(path)
        masks = np.zeros((2, 30, 40), dtype=bool)
        masks[0, 5:25, 5:20] = True
        masks[1, 2:4, 30:33] = True
        labels = to_detections(Instances(masks, np.float32([0.75, 0.5])), run="0123456789abcdef")
        dataset.add_sample(fo.Sample(filepath=str(path), promerge=labels))
    dataset.save_view("half", dataset.limit(2))
    yield dataset
    dataset.delete()


def test_export_and_import(named, tmp_path, capsys):
    out = tmp_path / "train"
    options = ["--val-fraction", "0.25", "--images", "link", "--max-per-image", "5"]
    assert main(["export", "shapes", str(out), *options]) == 0
    printed = capsys.readouterr().out
    assert f"{out}: 4 masks of 4 images" in printed
    assert "masks left out: 4 too small" in printed
    assert f"images lie in {out}/images; {out}/manifest.json says what this is made of" in printed
    val = out / "annotations" / "val.json"
    results = json.loads(val.read_text())["annotations"]
    (tmp_path / "results.json").write_text(json.dumps([*results, {"image_id": 99}, 17]))
    command = ["import", "shapes", str(tmp_path / "results.json"), "--label-field", "plus"]
    assert main([*command, "--annotations", str(val)]) == 0
    printed = capsys.readouterr().out
    assert "1 labels on 1 images in the field 'plus', of 3 predictions" in printed
    assert "entry 2: it is no object" in printed
    named.reload()
    assert named.count("plus.detections") == 1
    assert main([*command, "--annotations", str(val)]) == 2
    assert "replace them with overwrite=True (--overwrite)" in capsys.readouterr().err
    options = ["--annotations", str(val), "--overwrite", "--min-score", "0.9", "--class-names"]
    assert main([*command, *options, "--top-k", "3"]) == 0
    assert "1 below the least score" in capsys.readouterr().out


def test_every_option_of_export_is_handed_on(named, tmp_path, monkeypatch):
    from promerge_fo.dataset.exchange import export

    given = {}

    def record(samples, *args, **options):
        given.update(options, samples=samples, args=args)
        raise ValueError("seen")

    monkeypatch.setattr(export, "export_pseudo_labels", record)
    options = (
        "--view half --label-field fine --min-area 0.1 --tags a b --min-score 0.2 "
        "--review accepted --max-per-image 3 --seed 4 --split-tags train val "
        "--images copy --format yolo --classes cat dog --other-class rest --overwrite"
    )
    assert main(["export", "shapes", "out", *options.split()]) == 2
    assert given.pop("samples") == named.load_saved_view("half")
    assert given == {
        "args": ("fine", "out", 0.1, ["a", "b"]), "min_score": 0.2, "review": "accepted",
        "max_per_image": 3, "val_fraction": None, "seed": 4, "split_tags": ["train", "val"],
        "images": "copy", "format": "yolo", "classes": ["cat", "dog"], "other_class": "rest",
        "overwrite": True,
    }  # fmt: skip


def test_what_is_not_there_is_named(named, tmp_path, capsys):
    for arguments, words in (
        (["export", "forms", "a.json"], "there is no dataset 'forms'; the datasets are: "),
        (["export", "shapes", "a.json", "--view", "all"], "no saved view 'all'; it has: half"),
        (["export", "shapes", "a.json", "--label-field", "x"], "'x' does not exist"),
        (["import", "shapes", "/nowhere.json", "--label-field", "x"], "/nowhere.json"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("promerge: ") and words in error and "Traceback" not in error


def test_images_that_cannot_be_read_are_named(named, tmp_path, caplog, capsys):
    from promerge_fo.dataset import evaluate_instances

    gone = named.first().filepath
    named.set_field("metadata", None).save()
    (tmp_path / "photos" / "0.png").unlink()
    assert main(["export", "shapes", str(tmp_path / "masks.json")]) == 0
    words = f"1 images cannot be read and are left out: {gone}"
    assert words in caplog.text
    assert "images left out: 1 unreadable" in capsys.readouterr().out
    caplog.clear()
    evaluate_instances(named, "promerge", "promerge")
    assert words in caplog.text


def test_it_is_said_which_report_has_what_was_left_out(named, tmp_path, caplog):
    from promerge_fo.dataset import import_predictions

    (tmp_path / "results.json").write_text(
        json.dumps([{"image_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}, {"image_id": 99}, 17])
    )
    report = import_predictions(named, tmp_path / "results.json", "plus")
    assert (len(report.problems), report.unmatched_ids) == (1, (99,))
    assert (
        "1 predictions are malformed, and 1 are of images that are not among the samples; problems "
        "and unmatched_ids of the report that is returned have them, and promerge import prints"
    ) in caplog.text
