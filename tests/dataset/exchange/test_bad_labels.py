"""Labels that cannot be used: each is named, counted and left out, and costs nothing else."""

from __future__ import annotations

import json
import math
import re
from collections import Counter

import bson
import numpy as np
import pytest
from PIL import Image

from promerge_fo import dataset as pfo

NAN, INF = math.nan, math.inf
FINE = [0.25, 0.25, 0.5, 0.5]
#: What is set in a label as the database stores it, how it is counted, and words of the reason.
BAD = {
    "no box": ({"bounding_box": None}, "bad_box", "it has no box"),
    "an empty box": ({"bounding_box": []}, "bad_box", "it has no box"),
    "three numbers": ({"bounding_box": [0, 0, 1]}, "bad_box", r"its box is \[0, 0, 1\]"),
    "NaN in the box": ({"bounding_box": [NAN, 0, 1, 1]}, "bad_box", "four finite numbers"),
    "an infinite box": ({"bounding_box": [0, 0, INF, 1]}, "bad_box", "four finite numbers"),
    "text in the box": ({"bounding_box": ["0", 0, 1, 1]}, "bad_box", "four finite numbers"),
    "a box of text": ({"bounding_box": "0011"}, "bad_box", "four finite numbers"),
    "no width": ({"bounding_box": [0.5, 0.5, 0, 0.5]}, "bad_box", "has no size"),
    "less than no height": ({"bounding_box": [0.5, 0.5, 0.5, -0.1]}, "bad_box", "has no size"),
    "a box in pixels": ({"bounding_box": [10, 8, 30, 20]}, "bad_box", "lies outside of its image"),
    "a huge box": ({"bounding_box": [0, 0, 1e300, 1]}, "bad_box", "lies outside of its image"),
    "NaN": ({"confidence": NAN}, "bad_confidence", "its confidence is nan"),
    "infinity": ({"confidence": -INF}, "bad_confidence", "its confidence is -inf"),
    "text": ({"confidence": "high"}, "bad_confidence", "its confidence is 'high'"),
    "a broken mask": ({"mask": b"no mask"}, "bad_mask", "its mask cannot be used"),
    "a mask of text": ({"mask": "no mask"}, "bad_mask", "its mask cannot be used"),
    "a lost mask": ({"mask": None, "mask_path": "/gone.png"}, "lost_mask", "/gone.png .* is gone"),
    "a path of numbers": ({"mask": None, "mask_path": 7}, "bad_mask", "its mask cannot be used"),
}  # fmt: skip


def label(fo, **attributes):
    given = {"label": "fg", "bounding_box": FINE, "confidence": 0.9, **attributes}
    return fo.Detection(mask=np.ones((20, 30), bool), **given)


@pytest.fixture
def spoil(fo, dataset, tmp_path):
    """Adds one image, whose predictions and ground truth are a good label and a bad one."""

    def spoil(changes, in_truth=False):
        number = len(dataset)
        path = tmp_path / "photos" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(path)
        sample = fo.Sample(filepath=str(path))
        for field in ("promerge", "other", "truth"):
            sample[field] = fo.Detections(detections=[label(fo), label(fo)])
        dataset.add_sample(sample)
        field = "truth" if in_truth else "promerge"
        bad = sample[field].detections[1].id
        change = {f"{field}.detections.1.{name}": value for name, value in changes.items()}
        dataset._sample_collection.update_one({"_id": bson.ObjectId(sample.id)}, {"$set": change})
        return f"{path}, label {bad}"

    return spoil


COUNTS = Counter(what for _, what, _ in BAD.values())


@pytest.mark.parametrize("style", ["coco", "yolo"])
def test_an_export_names_counts_and_leaves_out(spoil, dataset, tmp_path, caplog, style):
    where = [spoil(changes) for changes, _, _ in BAD.values()]
    options = {"format": style, "images": "link", "min_area": 0, "min_score": 0.1}
    summary = pfo.export_pseudo_labels(dataset, "promerge", tmp_path / "out", **options)
    assert summary["annotations"] == len(BAD)
    assert {what: summary[what] for what in COUNTS} == COUNTS
    for problem, place, (_, _, words) in zip(summary["problems"], where, BAD.values(), strict=True):
        assert problem.startswith(f"{place}: ")
        assert re.search(words, problem), problem
    assert f"{len(BAD)} labels cannot be used and are left out" in caplog.text
    assert summary["problems"][0] in caplog.text
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(), parse_constant=fail)
    assert manifest["problems"] == summary["problems"]
    for path in (tmp_path / "out" / "annotations").glob("*.json"):
        content = json.loads(path.read_text(), parse_constant=fail)
        assert [entry["score"] for entry in content["annotations"]] == [0.9] * len(BAD)


def fail(constant):
    raise AssertionError(f"{constant} is no JSON")


@pytest.mark.parametrize("in_truth", [False, True])
def test_evaluation_and_comparison_leave_out_too(spoil, dataset, caplog, in_truth):
    where = [spoil(changes, in_truth) for changes, _, _ in BAD.values()]
    results = pfo.evaluate_instances(dataset, "promerge", "truth", eval_key="eval")
    assert results.config.left_out == COUNTS and where[0] in caplog.text
    assert dataset.get_evaluation_info("eval").config.left_out == COUNTS
    # two equal predictions or two equal objects an image, of which one finds its counterpart
    expected = (1, 1, 0) if in_truth else (1, 0, 1)
    for kind, count in zip(("tp", "fp", "fn"), expected, strict=True):
        assert dataset.values(f"eval_{kind}") == [count] * len(BAD)
    comparison = pfo.compare_fields(dataset, ["other", "promerge"], "truth", resamples=10)
    assert comparison.left_out == COUNTS
    assert f"labels left out: {COUNTS['bad_box']} bad box, " in str(comparison)


def test_a_report_of_a_comparison_has_its_pictures(spoil, dataset, tmp_path):
    spoil(BAD["no box"][0])
    comparison = pfo.compare_fields(dataset, ["other", "promerge"], "truth", resamples=10)
    comparison.report(tmp_path / "report")
    assert list((tmp_path / "report").glob("*.png"))


def test_agreement_and_histograms_go_on(spoil, dataset):
    from promerge_fo.dataset.review.agreement import measure_agreement
    from promerge_fo.dataset.review.histograms import review_histograms, select_between

    for changes, _, _ in BAD.values():
        spoil(changes)
    attribute = measure_agreement(dataset, "promerge", "other")
    agreements = dataset.values(f"promerge.detections.{attribute}")
    assert agreements == [[1.0, 0.0]] * len(BAD)
    histograms = review_histograms(dataset, "promerge")
    scores = histograms["score"]
    assert scores.missing == 3 and sum(map(sum, scores.counts.values())) == 2 * len(BAD) - 3
    first = select_between(dataset, "promerge", "score", *scores.bounds(0))
    assert first.count("promerge.detections") == 0
    assert sum(map(sum, histograms["area"].counts.values())) == 2 * len(BAD)


def test_only_some_of_many_are_named(spoil, dataset, tmp_path, caplog):
    for _ in range(120):
        spoil(BAD["NaN"][0])
    summary = pfo.export_pseudo_labels(dataset, "promerge", tmp_path / "a.json")
    assert summary["bad_confidence"] == 120 and len(summary["problems"]) == 100
    assert caplog.text.count("its confidence is nan") == 10 and "and 110 more" in caplog.text


def test_what_is_not_wanted_anyway_is_not_named(spoil, dataset, tmp_path, caplog):
    spoil(BAD["NaN"][0])
    summary = pfo.export_pseudo_labels(dataset, "promerge", tmp_path / "a.json", tags="wanted")
    assert (summary["untagged"], summary["problems"]) == (
        2,
        [],
    ) and "cannot be used" not in caplog.text


@pytest.mark.parametrize("style", ["coco", "yolo"])
def test_a_swapped_width_and_height_is_not_exported(fo, spoil, dataset, tmp_path, style):
    spoil({})
    sample = dataset.first()
    sample.metadata = fo.ImageMetadata(width=40, height=60)  # it is 60 x 40
    sample.save()
    options = {"format": style, "images": "link", "min_area": 0}
    pfo.export_pseudo_labels(dataset, "promerge", tmp_path / "out", **options)
    if style == "coco":
        content = json.loads((tmp_path / "out" / "annotations" / "instances.json").read_text())
        (image,) = content["images"]
        assert (image["width"], image["height"]) == (60, 40)
        sizes = [entry["segmentation"]["size"] for entry in content["annotations"]]
        assert sizes == [[40, 60], [40, 60]]
        boxes = [entry["bbox"] for entry in content["annotations"]]
        assert boxes == [[15, 10, 30, 20]] * 2
        report = pfo.import_predictions(
            dataset, tmp_path / "out" / "annotations" / "instances.json", "again"
        )
        assert report.labels == 2 and report.skipped == {}
    else:
        (file,) = (tmp_path / "out" / "labels").rglob("*.txt")
        for line in file.read_text().splitlines():
            points = np.array(line.split()[1:], float).reshape(-1, 2) * [60, 40]
            assert np.abs(points.min(axis=0) - [15, 10]).max() < 0.1
            assert np.abs(points.max(axis=0) - [45, 30]).max() < 0.1


def test_a_queue_of_a_review_goes_on(spoil, dataset):
    from promerge_fo.dataset.review.queue import review_queue

    for changes, _, _ in BAD.values():
        spoil(changes)
    for order in ("score", "size"):
        page = review_queue(dataset, "promerge", order, limit=5)
        assert len(page) == 5
