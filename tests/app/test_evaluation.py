"""Evaluations in the App: in its Model Evaluation panel, and made while masks are reviewed."""

import pytest

from promerge_fo import dataset as pfo
from promerge_fo.config import ProMergeConfig


@pytest.fixture
def measured(dataset, photographs, fo, plugin):
    """The photographs with a ground truth, all of its masks again, and those of other settings."""
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    for field, changes in (("truth", {}), ("others", {"filtering": "none"})):
        config = ProMergeConfig(image_size=160, **changes)
        pfo.segment_dataset(dataset, pfo.load_model(encoder="texture", config=config), field)
    dataset.clone_sample_field("truth", "found")
    return dataset


def test_figures_stand_in_the_model_evaluation_panel(app, measured):
    pfo.evaluate_instances(measured, "found", "truth", "ours")
    page = app(measured)
    shown = page.evaluation("ours")
    lines = [line.strip() for line in shown.splitlines() if line.strip()]
    for label in ("AP (masks, %)", "AP50 (boxes, %)", "AR100 (masks, %)"):
        assert lines[lines.index(label) + 1] == "100", label  # the field against itself
    for label in ("mAP", "Accuracy", "Precision", "Recall", "F1-Score"):
        assert lines[lines.index(label) + 1] == "1", label
    assert lines[lines.index("Support") + 1] == str(measured.count("truth.detections"))


def test_whole_images_are_measured_while_patches_are_reviewed(app, measured):
    total = measured.count("others.detections")
    page = app(measured)
    page.operator("ProMerge: review instances")
    page.choose("Field", "others")
    page.execute()
    page["entry-counts"].get_by_text(f"{total} patches").wait_for(timeout=60_000)

    page.operator("ProMerge: evaluate instances")
    page.form.get_by_text("The images of the whole dataset").wait_for(timeout=60_000)
    page.choose("Ground truth", "truth")
    page.choose("Predictions", "others")
    page.execute("Evaluate")
    figures = pfo.evaluate_instances(measured, "others", "truth").coco_metrics["segm"]
    assert f"{figures['AR100']:.2f}" in page.finish("AR100")
    measured.reload()
    assert pfo.list_evaluations(measured)["eval_others"].images == 4

    page.operator("ProMerge: compare fields")
    page.form.get_by_text("The images of the whole dataset").wait_for(timeout=60_000)
