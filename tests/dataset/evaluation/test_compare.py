"""Fields against each other: figures, intervals, views, report."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from promerge_fo import dataset as pfo
from promerge_fo.dataset.evaluation.coco_metrics import METRICS, bootstrap
from tests.dataset.evaluation.test_evaluation import Scene

SIZE = (48, 64)


def square(fo, y, x, side=12, confidence=None):
    height, width = SIZE
    box = [x / width, y / height, side / width, side / height]
    mask = np.ones((side, side), dtype=bool)
    return fo.Detection(label="fg", bounding_box=box, mask=mask, confidence=confidence)


@pytest.fixture
def two(fo, dataset, tmp_path):
    """Four images of two objects: "good" finds both, then "bad" one, one, none, and one that
    "good" misses."""
    for i in range(4):
        path = tmp_path / f"{i}.png"
        Image.new("RGB", SIZE[::-1], (30 * i, 90, 120)).save(path)
        left, right = square(fo, 4, 4, confidence=0.9), square(fo, 30, 40, confidence=0.8)
        both = [left.copy(), right.copy()]
        dataset.add_sample(
            fo.Sample(
                filepath=str(path),
                ground_truth=fo.Detections(detections=[square(fo, 4, 4), square(fo, 30, 40)]),
                good=fo.Detections(detections=both if i < 3 else both[:1]),
                bad=fo.Detections(detections=[[left], [left], [], [right]][i]),
            )
        )
    return dataset


def test_figures_are_those_of_each_evaluation(two):
    comparison = pfo.compare_fields(two, ["bad", "good"], resamples=50)
    for field in ("bad", "good"):
        alone = pfo.evaluate_instances(two, field).metrics()["segm"]
        assert comparison.metrics()[field] == alone
    assert comparison.kind == "segm"
    apart, low, high = comparison.difference("good", "AR100")
    assert apart == pytest.approx(100 * (7 - 3) / 8)
    assert low <= apart <= high
    assert comparison.interval("good", "AR100")[1] <= 100


@pytest.mark.parametrize("seed", range(8))
def test_a_bootstrap_in_which_every_image_is_drawn_once_gives_the_figures(
    fo, dataset, tmp_path, seed
):
    scene = Scene(fo, seed, tmp_path)
    dataset.add_samples(scene.samples(8))
    dataset.clone_sample_field("found", "other")
    comparison = pfo.compare_fields(dataset, ["found", "other"], "truth", resamples=3)
    for field in ("found", "other"):
        scores = comparison.scores[field]
        once = bootstrap(scores.ranked, np.ones((1, 8), np.int64))
        for name in METRICS:
            if scores.metrics[name] == -1:
                assert np.isnan(once[name][0])
            else:
                assert once[name][0] == pytest.approx(scores.metrics[name], abs=1e-9)
    assert comparison.difference("other", "AP") == (0, 0, 0)  # paired: no noise between equals


def test_drawing_an_image_twice_is_having_it_twice(fo, dataset, tmp_path):
    scene = Scene(fo, 5, tmp_path)
    samples = scene.samples(5)
    for sample in samples:
        for k, label in enumerate(sample["found"].detections if sample.has_field("found") else []):
            label.confidence = 1 / (1 + k + 100 * samples.index(sample))  # no ties
    dataset.add_samples([s.copy() for s in samples])
    dataset.clone_sample_field("found", "other")
    scores = pfo.compare_fields(dataset, ["found", "other"], "truth", resamples=2).scores["found"]
    drawn = bootstrap(scores.ranked, np.array([[2, 1, 0, 1, 3]]))
    dataset.clear()
    picked = [samples[i].copy() for i in (0, 0, 1, 3, 4, 4, 4)]
    for sample in picked:
        sample["coco_id"] = None
    dataset.add_samples(picked)
    expected = pfo.evaluate_instances(dataset, "found", "truth").coco_metrics
    expected = expected.get("segm", expected["bbox"])
    for name in METRICS:
        value = -1 if np.isnan(drawn[name][0]) else drawn[name][0]
        assert value == pytest.approx(expected[name], abs=1e-9)


def test_intervals_shrink_with_the_number_of_images(fo, dataset, tmp_path):
    scene = Scene(fo, 3, tmp_path)
    scene.masks = "boxes"
    widths = []
    for count in (20, 320):
        dataset.clear()
        dataset.add_samples(scene.samples(count))
        dataset.clone_sample_field("found", "other")
        comparison = pfo.compare_fields(dataset, ["found", "other"], "truth", resamples=200)
        low, high = comparison.interval("found", "AR100")
        assert low < comparison.metrics()["found"]["AR100"] < high
        widths.append(high - low)
        dataset.delete_sample_field("other")
    assert widths[1] < widths[0] / 2


def test_views_show_where_fields_differ(two):
    comparison = pfo.compare_fields(two, ["bad", "good"], resamples=20)
    ids = two.values("id")
    assert comparison.gains("good").values("id") == [ids[2], ids[0], ids[1]]
    assert comparison.gains("good", most=1).values("id") == [ids[2]]
    assert len(comparison.losses("good")) == 0
    assert list(comparison.recalls("bad")) == [0.5, 0.5, 0, 0.5]
    only = comparison.found_only_by("good", "bad")
    assert only.count("ground_truth.detections") == 5
    (missed,) = comparison.found_only_by("bad", "good").values(
        "ground_truth.detections.id", unwind=True
    )
    assert missed == two.last().ground_truth.detections[1].id


def test_a_report_has_tables_plots_and_pictures(two, tmp_path):
    comparison = pfo.compare_fields(two, ["bad", "good"], resamples=20)
    path = comparison.report(tmp_path / "report")
    text = path.read_text()
    assert comparison.table() in text
    assert "5 objects are found by good alone, 1 by bad alone" in text
    pictures = [part.split(")")[0] for part in text.split("](")[1:]]
    assert len(pictures) == 4
    for name in pictures:
        assert np.ptp(np.asarray(Image.open(path.parent / name).convert("L"))) > 50
    with (path.parent / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(METRICS)
    good = next(row for row in rows if (row["field"], row["metric"]) == ("good", "AR100"))
    assert float(good["difference"]) == pytest.approx(50)
    with (path.parent / "samples.csv").open() as file:
        assert [row["recall_bad"] for row in csv.DictReader(file)] == ["0.5", "0.5", "0.0", "0.5"]


def test_bad_input_is_refused(two):
    for fields in (["good"], ["good", "good"]):
        with pytest.raises(ValueError, match="must be two or more different ones"):
            pfo.compare_fields(two, fields)
    with pytest.raises(ValueError, match="the field 'none' does not exist"):
        pfo.compare_fields(two, ["good", "none"])
    with pytest.raises(ValueError, match="confidence is 95"):
        pfo.compare_fields(two, ["good", "bad"], confidence=95)
