"""``promerge evaluate``, ``compare`` and ``review``."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from promerge_fo.cli import fields, main
from promerge_fo.dataset.review.queue import ORDERS
from tests.cli.options import TEXTURE


@pytest.fixture
def measured(fo, folder, capsys):
    """The folder's dataset, with masks of two settings and a ground truth."""
    for field, tau_b in (("promerge", "0.3"), ("fine", "0.5"), ("ground_truth", "0.4")):
        options = ["--label-field", field, "--tau-b", tau_b]
        assert main(["segment", str(folder), *options, *TEXTURE]) == 1
    dataset = fo.load_dataset("photos")
    dataset.save_view("half", dataset.limit(2))
    capsys.readouterr()
    return dataset


def test_evaluate_prints_and_writes_the_figures(measured, folder, tmp_path, capsys):
    from promerge_fo.dataset import evaluate_instances

    output = tmp_path / "figures.json"
    options = ["--label-field", "fine", "--output", str(output), "--eval-key", "eval_fine"]
    assert main(["evaluate", str(folder), *options]) == 0
    said = capsys.readouterr().out
    figures = json.loads(output.read_text())
    assert figures == evaluate_instances(measured, "fine").coco_metrics
    assert 0 < figures["segm"]["AP"] < 100
    assert f"segm  {figures['segm']['AP']:7.2f}" in said
    assert f"figures: {output}" in said
    measured.reload()
    assert measured.list_evaluations() == ["eval_fine"]

    assert main(["evaluate", "photos", "--label-field", "ground_truth", "--view", "half"]) == 0
    assert "segm   100.00 100.00" in capsys.readouterr().out
    assert measured.list_evaluations() == ["eval_fine"]
    names = set(measured.distinct("ground_truth.detections.label"))
    options = ["--label-field", "fine", "--output", str(output), "--classwise"]
    assert main(["evaluate", "photos", *options]) == 0
    assert f"mean of {len(names)} classes" in capsys.readouterr().out
    assert json.loads(output.read_text())["classes"].keys() == names
    assert main(["evaluate", "photos", "--gt-field", "truth"]) == 2
    assert "the field 'truth' does not exist" in capsys.readouterr().err


def test_compare_prints_intervals_and_writes_a_report(measured, tmp_path, capsys):
    report = tmp_path / "report"
    options = ["--resamples", "50", "--confidence", "0.9", "--report", str(report)]
    assert main(["compare", "photos", "promerge", "fine", *options]) == 0
    said = capsys.readouterr().out
    assert "masks against ground_truth; in brackets, 90% intervals" in said
    assert "| fine - promerge | " in said
    assert f"plots, pictures and all figures: {report / 'report.md'}" in said
    assert {"report.md", "metrics.csv", "metrics.png"} <= {p.name for p in report.iterdir()}
    assert main(["compare", "photos", "promerge"]) == 2
    assert "must be two or more different ones" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["status", "stop", "evaluate", "compare", "review"])
def test_help_teaches_by_examples(capsys, command):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = capsys.readouterr().out
    assert f"usage: promerge {command} DATASET|DIR " in said
    assert f"\n  promerge {command} photos/" in said
    with pytest.raises(SystemExit):
        main(["--help"])
    assert f"\n    {command} " in capsys.readouterr().out


@pytest.fixture
def plugin(fo, tmp_path, monkeypatch):
    """The App's plugin, installed."""
    monkeypatch.setattr(fo.config, "plugins_dir", str(tmp_path / "plugins"))
    assert main(["plugin", "install", "--folder", str(Path(__file__).parents[2])]) == 0
    return Path(fo.config.plugins_dir)


def test_review_wants_the_plugin(measured, fo, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fo.config, "plugins_dir", str(tmp_path / "none"))
    assert main(["review", "photos"]) == 2
    assert "the plugin is not installed; promerge plugin install" in capsys.readouterr().err
    assert not measured.has_field("promerge.detections.review")


def test_review_opens_the_app_on_the_queue_and_goes_on_from_there(
    measured, fo, folder, plugin, monkeypatch, capsys
):
    from promerge_fo.dataset import accept, review_queue
    from promerge_fo.dataset.database import dataset_name, store

    opened = {}

    class Session:
        def wait(self):
            raise KeyboardInterrupt

    def launch_app(**options):
        opened.update(options)
        return Session()

    monkeypatch.setattr(fo, "launch_app", launch_app)
    options = ["--order", "size", "--limit", "3", "--port", "5999", "--remote"]
    assert main(["review", str(folder), *options]) == 0
    total = measured.count("promerge.detections")
    assert f"decided on so far: 0 of {total}\n" in capsys.readouterr().out
    page, spaces = opened.pop("view"), opened.pop("spaces")
    assert page.values("id") == review_queue(measured, "promerge", "size", limit=3).values("id")
    panels = [space.children[0] for space in spaces.children]
    assert [panel.type for panel in panels] == ["Samples", "promerge_review"]
    assert [s.active_child for s in spaces.children] == [p.component_id for p in panels]
    assert opened == {"port": 5999, "address": None, "remote": True}
    kept = store(measured).get("review")
    wanted = {"label_field": "promerge", "order": "size", "limit": 3, "page": dataset_name(page)}
    assert wanted.items() <= kept.items()
    measured.reload()
    assert measured.active_label_schemas == ["promerge"]

    accept(measured, "promerge")
    opened.clear()
    assert main(["review", "photos"]) == 0
    assert "nothing is left to decide on" in capsys.readouterr().out
    assert not opened
    assert main(["review", "photos", "--order", "disagreement"]) == 2
    assert fields._ORDERS == ORDERS


def test_review_serves_the_app_until_it_is_ended(measured, plugin):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "promerge_fo", "review", "photos", "--remote"]
    served = ["--port", str(port), "--address", "127.0.0.1"]
    process = subprocess.Popen(
        [*command, *served], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "FIFTYONE_PLUGINS_DIR": str(plugin)},
    )  # fmt: skip
    try:
        lines = iter(process.stdout.readline, "")
        assert any("Ctrl-C ends this" in line for line in lines)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/fiftyone", timeout=30) as answer:
            assert "version" in json.load(answer)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.communicate()
