"""Grouped datasets: functions take the active slice, and leave the others alone."""

from __future__ import annotations

import json
import logging

import pytest

from promerge_fo import dataset as pfo
from promerge_fo.config import ProMergeConfig
from promerge_fo.encoder import load_encoder

SMALL = ProMergeConfig(image_size=96, min_refined_iou=0)


@pytest.fixture
def grouped(fo, dataset, photographs):
    """Four groups of two photographs and a point cloud, of which the right ones are active."""
    dataset.add_group_field("group", default="left")
    for left, right in zip(photographs, reversed(photographs), strict=True):
        group = fo.Group()
        files = {"left": left, "right": right, "lidar": "points.pcd"}
        dataset.add_samples(
            [fo.Sample(filepath=path, group=group.element(name)) for name, path in files.items()]
        )
    dataset.group_slice = "right"
    return dataset


def sliced(grouped, name):
    return grouped.select_group_slices(name)


@pytest.fixture
def masks(grouped):
    """The groups with masks of two settings in the slices left and right; right is active."""
    both = sliced(grouped, ["left", "right"])
    for field, changes in (("found", {}), ("truth", {"filtering": "none"})):
        model = pfo.load_model(encoder="texture", config=SMALL.replace(**changes))
        pfo.segment_dataset(both, model, field)
    return grouped


def test_the_active_slice_is_segmented_and_the_log_says_so(grouped, model, expected, caplog):
    with caplog.at_level(logging.INFO, logger="fiftyone.promerge"):
        report = pfo.segment_dataset(grouped, model, "promerge")
    assert f"{grouped.name!r} holds groups; their slice 'right' is taken" in caplog.text
    assert report.counts == {"ok": 4}
    counts = {
        name: sliced(grouped, name).values("promerge.status") for name in grouped.group_slices
    }
    assert counts == {"right": ["ok"] * 4, "left": [None] * 4, "lidar": [None] * 4}
    assert pfo.segment_dataset(grouped, model, "promerge").skipped == 4
    found = [len(labels.detections) for labels in sliced(grouped, "right").values("promerge")]
    assert found == [len(each) for each in reversed(expected)]

    one = grouped.limit(1)
    one.group_slice = "left"  # a view has an active slice of its own
    assert pfo.segment_dataset(one, model, "promerge").counts == {"ok": 1}
    assert sliced(grouped, "left").values("promerge.status") == ["ok", None, None, None]


def test_the_active_slice_is_evaluated_and_compared(masks):
    right = pfo.evaluate_instances(sliced(masks, "right"), "found", "truth")
    results = pfo.evaluate_instances(masks, "found", "truth", "mine")
    assert results.coco_metrics == right.coco_metrics
    assert masks.load_evaluation_results("mine", cache=False).coco_metrics == right.coco_metrics
    assert None not in sliced(masks, "right").values("mine_tp")
    assert sliced(masks, "left").values("mine_tp") == [None] * 4
    masks.clone_sample_field("found", "same")
    comparison = pfo.compare_fields(masks, ["found", "same"], "truth", resamples=10)
    assert comparison.metrics()["same"] == right.coco_metrics["segm"]
    assert {image.sample_id for image in comparison.images} == set(
        sliced(masks, "right").values("id")
    )


def test_several_slices_are_evaluated_together(masks):
    both = sliced(masks, ["left", "right"])
    results = pfo.evaluate_instances(both, "found", "truth", "both")
    assert results.config.images == 8
    found = dict(zip(both.values("id"), both.values("both_tp"), strict=True))
    marked = {
        sample.id: [label["both"] for label in sample.found.detections].count("tp")
        for sample in both
    }
    assert found == marked
    pfo.evaluate_instances(masks, "found", "truth", "both")  # the right ones alone
    right = sliced(masks, "right")
    assert right.values("both_tp") == [found[i] for i in right.values("id")]
    assert sliced(masks, "left").values("both_tp") == [None] * 4


def test_the_active_slice_is_exported_and_takes_predictions(masks, tmp_path):
    path = tmp_path / "labels.json"
    summary = pfo.export_pseudo_labels(masks, "found", path, min_area=0)
    right = sliced(masks, "right")
    assert (summary["images"], summary["annotations"]) == (4, right.count("found.detections"))
    predictions = tmp_path / "predictions.json"
    predictions.write_text(json.dumps(json.loads(path.read_text())["annotations"]))
    pfo.import_predictions(masks, predictions, "again")
    assert right.count("again.detections") == summary["annotations"]
    assert sliced(masks, "left").count("again.detections") == 0


def test_settings_are_tuned_on_the_active_slice(masks, tmp_path):
    run = {"encoder": load_encoder("texture", image_size=96), "folder": tmp_path, "folds": 2}
    settings = pfo.search_space(SMALL, filtering=["none"])
    tuning = pfo.tune(masks, settings, "truth", repeats=2, **run)
    assert tuning.ablation.images == 4
    assert tuning.best == "filtering=none"
    masks.group_slice = "lidar"
    with pytest.raises(TypeError, match=r"select_group_slices\(\['left', 'right'\]\)"):
        pfo.tune(masks, settings, "truth", **run)


def test_the_active_slice_is_reviewed(masks):
    right, left = sliced(masks, "right"), sliced(masks, "left")
    total = right.count("found.detections")
    page = pfo.review_queue(masks, "found", limit=2)
    ids = set(right.values("found.detections.id", unwind=True))
    assert len(page) == 2
    assert set(page.values("id")) <= ids
    pfo.reject(left, "found")
    assert pfo.accept(masks, "found", page.values("id"), "Ada") == 2
    assert str(pfo.review_progress(masks, "found")) == f"2 of {total}, 100 % accepted"
    assert pfo.accept(masks, "found") == total
    assert [pfo.undo(masks, "found") for _ in range(3)] == [total, 2, 0]
    assert pfo.review_progress(left, "found").rejected == left.count("found.detections")
    assert pfo.review_histograms(masks, "found")["area"].progress().total == total
    assert pfo.select_between(masks, "found", "score").values("id") == right.values("id")
    attribute = pfo.measure_agreement(masks, "found", "truth")
    assert None not in right.values(f"found.detections.{attribute}", unwind=True)
    assert set(left.values(f"found.detections.{attribute}", unwind=True)) == {None}


def test_a_deleted_run_goes_from_all_slices_and_other_runs_stay(grouped):
    models = [
        pfo.load_model(encoder="texture", config=SMALL.replace(tau_b=tau_b)) for tau_b in (0.2, 0.4)
    ]
    for name, model in zip(("left", "right"), models, strict=True):
        pfo.segment_dataset(sliced(grouped, name), model, "promerge", limit=3)
        pfo.segment_dataset(sliced(grouped, name), model, "promerge")
    left, right = pfo.list_runs(grouped)
    assert [pfo.load_run(grouped, key)["images"] for key in (left, right)] == [4, 4]
    assert pfo.delete_run(grouped, right) == 4
    assert sliced(grouped, "right").values("promerge.status") == [None] * 4
    assert sliced(grouped, "left").values("promerge.status") == ["ok"] * 4
    assert pfo.delete_run(grouped, left) == 4
    assert not grouped.has_field("promerge")
