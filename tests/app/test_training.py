"""The training panel, and what the forms say where detectron2 is missing."""

import json
import sys

import pytest

from promerge_fo.detector import DetectorConfig
from tests.app.page import wait_until


@pytest.fixture
def training(tmp_path):
    """The folder of a training, 60 of 100 iterations old."""
    (tmp_path / "round1").mkdir()
    record = {"config": DetectorConfig(iterations=100).to_dict()}
    (tmp_path / "training.json").write_text(json.dumps(record))
    lines = [
        json.dumps(
            {
                "iteration": k,
                "total_loss": 2 + 30 / (k + 10),
                "loss_mask": 0.7 - k / 200,
                "loss_cls_stage0": 20 / (k + 10),
                "lr": 0.005,
            }
        )
        for k in range(60)
    ]
    (tmp_path / "round1" / "losses.jsonl").write_text("".join(line + "\n" for line in lines))
    return tmp_path


def test_the_losses_of_a_folder_are_shown(app, dataset, photographs, fo, training):
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    page = app(dataset)
    page.panel("ProMerge: training")
    body = page.page.locator("body")
    wait_until(lambda: "No losses yet" in body.inner_text(), 30)
    page.page.get_by_role("combobox").last.fill(str(training))
    page.page.keyboard.press("Enter")
    page.page.keyboard.press("Escape")  # the menu of folders
    wait_until(lambda: "Round 1: 60 of 100 iterations" in body.inner_text(), 30)
    wait_until(lambda: page.page.locator(".scatterlayer .trace path.js-line").count() == 3, 30)
    assert "Parts of the loss, round 1" in body.inner_text()
    assert {"mask", "cls stage0", "round 1"} <= set(body.inner_text().split("\n"))

    with (training / "round1" / "losses.jsonl").open("a") as file:
        file.write(json.dumps({"iteration": 60, "total_loss": 2.4, "lr": 0.005}) + "\n")
    page.page.get_by_text("Look again").click()
    wait_until(lambda: "61 of 100 iterations" in body.inner_text(), 30)


def test_the_form_says_how_to_get_detectron2(app, dataset, photographs, fo, monkeypatch):
    from promerge_fo.install.plugin import install_plugin

    monkeypatch.setitem(sys.modules, "detectron2", None)
    install_plugin()
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    page = app(dataset)
    page.operator("ProMerge: train a detector")
    wait_until(lambda: "the detector needs detectron2" in page.form.inner_text(), 20)
    assert "pip install --no-build-isolation" in page.form.inner_text()
