"""The whole way of a new user, by mouse and keyboard: from images to a comparison."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import skimage

from promerge_fo import dataset as pfo
from promerge_fo.demo import PHOTOGRAPHS, add_outlines
from tests.app.page import wait_until
from tests.app.test_review import decisions, mark


@pytest.fixture
def photographed(fo, dataset, tmp_path):
    """The demo's photographs with their ground truth, and the plugin installed."""
    source = Path(skimage.__file__).parent / "data"
    for file, name in PHOTOGRAPHS.items():
        path = tmp_path / f"{name}{Path(file).suffix}"
        shutil.copyfile(source / file, path)
        dataset.add_sample(fo.Sample(filepath=str(path)))
    dataset.compute_metadata()
    add_outlines(dataset)
    return dataset


def test_from_images_to_a_comparison(app, photographed, fo, tmp_path):
    dataset = photographed
    page = app(dataset)
    body = page.page.locator("body")
    before = page.grid()

    page.operator("ProMerge: segment instances")
    page.fill("Encoder", "texture")
    page.picture("walk-1-segment")
    page.execute("Segment")
    page.finish("images/s", close=True)
    dataset.reload()
    assert set(dataset.values("promerge.status")) == {"ok"}
    page.open()
    assert page["sidebar-field-promerge"].count() == 1
    page.picture("walk-2-masks")
    drawn = (np.abs(page.grid().astype(int) - before).max(axis=2) > 20).mean()
    assert drawn > 0.05, f"only {drawn:.1%} of the grid changed"

    total = dataset.count("promerge.detections")
    page.operator("ProMerge: review instances")
    page.choose("Field", "promerge")
    page.fill("Reviewer", "Ada")
    page.execute()
    said = page["panel-content-promerge_review"]
    said.get_by_text(f"0 of {total}", exact=True).wait_for(timeout=60_000)
    page["entry-counts"].get_by_text(f"{total} patches").wait_for(timeout=60_000)
    for number in range(3):
        mark(page, number)
    mark(page, 3, "Alt")
    page.picture("walk-3-review")
    said.get_by_text("Decide by thumbs").click()
    said.get_by_text(f"4 of {total}, 75 % accepted", exact=True).wait_for(timeout=60_000)
    assert sorted(state for _, state, _ in decisions(dataset)) == ["accepted"] * 3 + ["rejected"]
    page["btn-clear-view-bar"].click()
    page["entry-counts"].get_by_text("6 samples").wait_for(timeout=60_000)

    page.operator("ProMerge: evaluate instances")
    page.choose("Predictions", "promerge")
    page.picture("walk-4-evaluate")
    page.execute("Evaluate")
    told = page.finish("AR100")
    dataset.reload()
    figures = pfo.list_evaluations(dataset)["eval_promerge"].figures["segm"]
    assert f"{figures['AR100']:.2f}" in told
    page.evaluation("eval_promerge")
    page.picture("walk-5-figures")

    exported = tmp_path / "accepted.json"
    page.operator("ProMerge: export pseudo-labels")
    assert page.form.get_by_text("Say where to.").count() == 1
    wrong = page.form.get_by_text("This does not work yet")
    assert wrong.count() == 0, "nothing is wrong before anything was typed"
    page.fill("Where to", "relative.json")
    assert wrong.count() == 1
    assert page.form.get_by_text("is no absolute path").count() == 1
    page.choose("Field", "promerge")
    page.fill("Where to", str(exported))
    page.fill("Smallest mask", "0")
    page.choose("Reviewed", "accepted ones alone")
    page.picture("walk-6-export")
    page.execute("Export")
    page.finish("3 masks of 6 images")
    written = json.loads(exported.read_text())
    assert len(written["annotations"]) == 3

    results = tmp_path / "coco_instances_results.json"
    results.write_text(json.dumps(written["annotations"]))
    page.operator("ProMerge: import predictions")
    page.fill("Predictions", str(results))
    page.fill("Label field", "detector")
    page.picture("walk-7-import")
    page.execute("Import")
    page.finish("3 labels on")
    dataset.reload()
    assert dataset.count("detector.detections") == 3

    page.operator("ProMerge: compare fields")
    page.choose("Baseline", "promerge")
    page.execute("Compare")
    page.finish("detector - promerge")
    wait_until(lambda: "Gain in recall at IoU 0.5" in body.inner_text(), 60)
    page.picture("walk-8-compare")
    dataset.reload()
    assert set(pfo.list_evaluations(dataset)) == {"eval_promerge", "eval_detector"}
