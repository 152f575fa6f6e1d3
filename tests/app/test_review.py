"""Review in the App, by mouse and keyboard: decisions, undo, histograms, and a mended mask."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from promerge_fo import dataset as pfo
from tests.app.page import wait_until

FIELD = "promerge"


def mark(page, number, *modifiers):
    """Click the corner of a patch, where its mark is."""
    page.drawn()
    patch = page.page.locator('[data-cy="looker"]').nth(number)
    patch.click(position={"x": 12, "y": 12}, modifiers=list(modifiers))


def decisions(dataset):
    """(id, review, reviewer) of each label that is decided on, from the database."""
    dataset.reload()
    listed = pfo.list_labels(dataset, FIELD)
    return {(row["id"], row["review"], row["reviewer"]) for row in listed if row["review"]}


def test_masks_are_accepted_and_rejected_and_undone_by_mouse(app, segmented):
    total = segmented.count(f"{FIELD}.detections")
    assert total >= 4
    queue = [label for _, label in sorted(
        (label["score"], label["id"]) for label in pfo.list_labels(segmented, FIELD)
    )]  # fmt: skip
    page = app(segmented)

    page.operator("ProMerge: review instances")
    page.fill("Reviewer", "Ada")
    page.execute()
    said = page["panel-content-promerge_review"]
    said.get_by_text(f"0 of {total}", exact=True).wait_for(timeout=60_000)
    count = page["entry-counts"]
    count.get_by_text(f"{total} patches").wait_for(timeout=60_000)

    mark(page, 0)
    mark(page, 1, "Alt")
    said.get_by_text("Decide by thumbs").click()
    count.get_by_text(f"{total - 2} patches").wait_for(timeout=60_000)
    said.get_by_text(f"2 of {total}, 50 % accepted", exact=True).wait_for(timeout=60_000)
    both = {(queue[0], "accepted", "Ada"), (queue[1], "rejected", "Ada")}
    assert decisions(segmented) == both

    mark(page, 0)
    said.get_by_text("Reject selected").click()
    said.get_by_text(f"3 of {total}, 33 % accepted", exact=True).wait_for(timeout=60_000)
    assert decisions(segmented) == both | {(queue[2], "rejected", "Ada")}
    said.get_by_text("Undo", exact=True).click()
    said.get_by_text(f"2 of {total}, 50 % accepted", exact=True).wait_for(timeout=60_000)
    count.get_by_text(f"{total - 2} patches").wait_for(timeout=60_000)
    assert decisions(segmented) == both

    # The sidebar of the App filters what was decided.
    page["btn-clear-view-bar"].click()
    count.get_by_text("4 samples").wait_for(timeout=60_000)
    page["sidebar-field-arrow-enabled-promerge"].click()
    page["selector-sidebar-search-promerge.detections.review"].click()
    page.page.keyboard.type("accepted")
    page.page.keyboard.press("Enter")
    count.get_by_text("1 sample", exact=True).wait_for(timeout=60_000)


def test_patches_have_their_scores_the_wheel_scrolls_and_undo_opens_the_queue_again(app, segmented):
    total = segmented.count(f"{FIELD}.detections")
    page = app(segmented)
    page.operator("ProMerge: review instances")
    page.execute()
    said = page["panel-content-promerge_review"]
    said.get_by_text(f"0 of {total}", exact=True).wait_for(timeout=60_000)
    page["entry-counts"].get_by_text(f"{total} patches").wait_for(timeout=60_000)
    page.drawn()
    scores = segmented.values(f"{FIELD}.detections.confidence", unwind=True)
    page["fo-grid"].get_by_text(f"{min(scores):.3g}").wait_for(timeout=60_000)

    plot = page.page.locator(".plotly").first
    before = plot.bounding_box()
    page.page.mouse.move(before["x"] + 150, before["y"] + 100)
    page.page.mouse.wheel(0, 250)
    wait_until(lambda: plot.bounding_box()["y"] < before["y"] - 200, 30)
    page.page.mouse.wheel(0, -1000)

    said.get_by_text("Accept all shown").click()
    said.get_by_text(f"Yes, accept {total} masks").click()
    page.page.get_by_text("Everything here is decided").wait_for(timeout=60_000)
    page["entry-counts"].get_by_text("4 samples").wait_for(timeout=60_000)
    said.get_by_text("Undo", exact=True).click()
    page["entry-counts"].get_by_text(f"{total} patches").wait_for(timeout=60_000)
    assert decisions(segmented) == set()


def test_the_thumbs_above_an_open_image_mean_this_image(app, segmented):
    first = {label.id for label in segmented.first()[FIELD].detections}
    page = app(segmented)
    open_sample(page)
    page.page.get_by_text("thumb_up", exact=True).first.click()
    page.form.wait_for(timeout=60_000)
    page.settle()
    assert page.form.get_by_label("Every mask of this image").is_checked()
    page.execute()
    wait_until(lambda: {i for i, *_ in decisions(segmented)} == first, 60)


def test_a_bar_of_the_histogram_opens_what_it_counts(app, segmented):
    histogram = pfo.review_histograms(segmented, FIELD)["score"]
    bars = np.flatnonzero(histogram.counts["undecided"])
    wanted = pfo.select_between(segmented, FIELD, "score", *histogram.bounds(bars[0]))
    assert 0 < len(wanted) < 4
    page = app(segmented)

    page.panel("ProMerge review")
    drawn = page.page.locator(".plotly").first.locator(".point")
    wait_until(lambda: any(box["height"] > 5 for box in boxes(drawn)), 60)
    first = next(i for i, box in enumerate(boxes(drawn)) if box["height"] > 5)
    assert first == bars[0]
    box = boxes(drawn)[first]
    page.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    shown = f"{len(wanted)} sample{'s' if len(wanted) > 1 else ''}"
    page["entry-counts"].get_by_text(shown, exact=True).wait_for(timeout=60_000)

    page["panel-tab-promerge_review"].click()
    said = page["panel-content-promerge_review"]
    said.get_by_text("Reject all shown").click()
    labels = wanted.values(f"{FIELD}.detections.id", unwind=True)
    said.get_by_text(f"Reject all {len(labels)} masks that are shown?").wait_for(timeout=60_000)
    said.get_by_text("No", exact=True).click()
    page.settle()
    assert decisions(segmented) == set()
    said.get_by_text("Reject all shown").click()
    said.get_by_text(f"Yes, reject {len(labels)} masks").click()
    wait_until(lambda: decisions(segmented) == {(i, "rejected", None) for i in labels}, 60)


def boxes(locator):
    return [one.bounding_box() or {"height": 0} for one in locator.all()]


def test_masks_of_one_image_are_decided_beside_it(app, segmented):
    ids = segmented.first()[FIELD].detections
    page = app(segmented)
    open_sample(page)
    page["panel-tab-promerge_sample"].click()
    said = page["panel-content-promerge_sample"]
    said.get_by_text(f"0 of {len(ids)} masks decided").wait_for(timeout=60_000)
    said.get_by_text("Accept", exact=True).nth(1).click()
    said.get_by_text(f"1 of {len(ids)} masks decided").wait_for(timeout=60_000)
    assert decisions(segmented) == {(ids[1].id, "accepted", None)}
    said.get_by_text("Reject all").click()
    said.get_by_text(f"{len(ids)} of {len(ids)} masks decided").wait_for(timeout=60_000)
    assert decisions(segmented) == {(label.id, "rejected", None) for label in ids}
    said.get_by_text("Undo", exact=True).click()
    said.get_by_text(f"1 of {len(ids)} masks decided").wait_for(timeout=60_000)
    assert decisions(segmented) == {(ids[1].id, "accepted", None)}


def open_sample(page):
    """Open the first image, away from the corner that selects it."""
    image = page["looker"]
    box = image.bounding_box()
    image.click(position={"x": box["width"] / 2, "y": box["height"] - 15})
    page["modal"].wait_for(timeout=60_000)


def test_a_mask_that_is_mended_with_the_brush_is_exported(app, segmented, tmp_path):
    pfo.enable_annotation(segmented, FIELD)
    segmented.compute_metadata()
    segmented.clone_sample_field(FIELD, "before")
    sample = segmented.first()
    label = sample[FIELD].detections[1]
    pfo.accept(segmented[:1], FIELD, [label.id], reviewer="Ada")
    size = sample.metadata.height, sample.metadata.width
    before = pfo.masks_of(sample["before"], size)
    row, columns = free_row(before.any(axis=0))
    page = app(segmented)

    open_sample(page)
    brush(page, label, size, row, columns)
    wait_until(lambda: is_painted(sample), 60)
    accepted = segmented.filter_labels(FIELD, {"$eq": ["$$this.review", "accepted"]})
    pfo.export_pseudo_labels(accepted, FIELD, tmp_path / "accepted.json", min_area=0)
    (annotation,) = json.loads((tmp_path / "accepted.json").read_text())["annotations"]
    mended = coco_mask.decode(annotation["segmentation"]).astype(bool)
    assert mended.shape == size
    assert mended[row, columns[0] : columns[1]].all()
    added = mended & ~before[1]
    rows = np.flatnonzero(added.any(axis=1))
    assert abs(rows.mean() - row) < 3 and added.sum() >= columns[1] - columns[0]
    assert (before[1] & ~mended).mean() < 0.01
    assert annotation["area"] == mended.sum()

    after = pfo.masks_of(sample[FIELD], size)
    others = [i for i in range(len(before)) if i != 1]
    np.testing.assert_array_equal(after[others], before[others])
    np.testing.assert_array_equal(after[1], mended)
    pfo.evaluate_instances(segmented, FIELD, "before", eval_key="mended")
    iou = (before[1] & mended).sum() / (before[1] | mended).sum()
    sample.reload()
    ious = [found.mended_iou for found in sample[FIELD].detections]
    assert ious[1] == pytest.approx(iou) and iou < 0.99
    assert [ious[i] for i in others] == [1.0] * len(others)


def brush(page, label, size, row, columns):
    """Paint at an open image's second mask, from one column to another."""
    page["annotate"].click()
    page["select-action"].wait_for(timeout=60_000)
    page.page.get_by_text("fg", exact=True).nth(1).click()
    page.page.get_by_text(label.id).wait_for(timeout=60_000)
    page["brush"].click()
    page.page.get_by_text("Paint to create a mask").wait_for(timeout=60_000)
    stroke(page, size, row, columns)


def stroke(page, size, row, columns):
    """Draw in the open image, from one column to another."""
    canvas = page["lighter-sample-renderer-canvas"].bounding_box()
    zoom = min(canvas["width"] / size[1], canvas["height"] / size[0])
    left = canvas["x"] + (canvas["width"] - zoom * size[1]) / 2
    top = canvas["y"] + (canvas["height"] - zoom * size[0]) / 2
    page.page.mouse.move(left + zoom * columns[0], top + zoom * (row + 0.5))
    page.page.mouse.down()
    page.page.mouse.move(left + zoom * columns[1], top + zoom * (row + 0.5), steps=10)
    page.page.mouse.up()


def test_a_decision_in_an_open_image_outlives_the_brush(app, segmented):
    """The tab that draws has held the label, with its decision, since before the last one."""
    pfo.enable_annotation(segmented, FIELD)
    segmented.compute_metadata()
    sample = segmented.first()
    label = sample[FIELD].detections[1]
    size = sample.metadata.height, sample.metadata.width
    row, columns = free_row(pfo.masks_of(sample[FIELD], size).any(axis=0))
    pfo.accept(segmented, FIELD, [label.id], reviewer="Ada")
    page = app(segmented)
    open_sample(page)
    brush(page, label, size, row, columns)
    wait_until(lambda: is_painted(sample), 60)

    page["panel-tab-promerge_sample"].click()
    said = page["panel-content-promerge_sample"]
    said.get_by_text("Reject", exact=True).nth(1).click()
    said.get_by_text("rejected").first.wait_for(timeout=60_000)
    assert decisions(segmented) == {(label.id, "rejected", None)}
    page["panel-tab-fo-sample-modal-plugin"].click()
    page.settle()  # the image is drawn again, and takes no stroke before
    with page.page.expect_response(lambda r: r.request.method == "PATCH" and r.ok):
        stroke(page, size, row + 10, columns)
    assert decisions(segmented) == {(label.id, "rejected", None)}


def is_painted(sample):
    """Whether the second mask of a sample has been drawn in the App."""
    sample.reload()
    return sample[FIELD].detections[1].mask.dtype == np.uint8


def free_row(taken):
    """A row and 30 columns in the right half of an image that what is taken is far from.

    Before FiftyOne 1.22 the brush selects another mask instead, where it is put down on one.
    """
    height, width = taken.shape
    for row in range(12, height - 12):
        for first in range(width // 2, width - 45):
            if not taken[row - 8 : row + 9, first - 8 : first + 38].any():
                return row, (first, first + 30)
    raise AssertionError("masks are everywhere")
