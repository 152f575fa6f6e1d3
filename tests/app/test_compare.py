"""The compare panel: figures, and a click to the images that differ."""

import pytest

from promerge_fo import dataset as pfo
from promerge_fo.config import ProMergeConfig
from tests.app.page import wait_until


@pytest.fixture
def compared(dataset, photographs, fo, plugin):
    """Photographs with evaluations of two fields, one of which is the ground truth."""
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    for field, config in (("promerge", {}), ("unfiltered", {"filtering": "none"})):
        model = pfo.load_model(config=ProMergeConfig(image_size=96, **config), encoder="texture")
        pfo.segment_dataset(dataset, model, field)
    dataset.clone_sample_field("promerge", "ground_truth")
    for field in ("unfiltered", "promerge"):
        pfo.evaluate_instances(dataset, field, eval_key=f"eval_{field}")
    return dataset


def test_evaluations_are_compared_and_what_differs_is_opened(app, compared):
    page = app(compared)
    page.panel("ProMerge: compare")
    body = page.page.locator("body")
    wait_until(lambda: "Gain in recall at IoU 0.5" in body.inner_text(), 30)
    shown = body.inner_text()
    assert "AP and AR, percent" in shown
    figures = pfo.list_evaluations(compared)["eval_unfiltered"].figures["segm"]
    cells = page.page.locator("td").all_inner_texts()
    row = cells[cells.index("AR100") :][:3]
    assert row == ["AR100", f"{figures['AR100']:.1f}", "100.0"]

    gains = pfo.samples_by_gain(compared, "eval_promerge", "eval_unfiltered")
    assert 1 <= len(gains) < 4
    page.page.get_by_text("Open the gains").click()
    count = f"{len(gains)} sample{'s' * (len(gains) != 1)}"
    wait_until(lambda: count in body.inner_text(), 30)
    page["panel-tab-promerge_compare"].click()
    page.page.locator(".barlayer .point path").last.click(force=True)
    wait_until(lambda: "1 sample" in body.inner_text(), 30)
