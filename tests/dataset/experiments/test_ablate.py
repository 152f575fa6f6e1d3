"""Grids of settings: the pipeline's figures, calculated once."""

from __future__ import annotations

import csv
import logging
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from promerge_fo.config import MaskCutConfig, ProMergeConfig, TokenCutConfig
from promerge_fo.dataset import ablate
from promerge_fo.dataset.evaluation.evaluate import evaluate_instances
from promerge_fo.dataset.experiments.feature_store import FeatureStore, StoredFeatures
from promerge_fo.dataset.experiments.result_store import Result, ResultStore
from promerge_fo.dataset.experiments.settings import changes_between, grid, settings_of, sweep
from promerge_fo.dataset.runs.model import load_model
from promerge_fo.dataset.runs.segment import segment_dataset
from promerge_fo.encoder import load_encoder

SMALL = {"image_size": 96, "min_refined_iou": 0}
SETTINGS = {
    "default": ProMergeConfig(**SMALL),
    "stride 2": ProMergeConfig(stride=2, **SMALL),
    "no background": ProMergeConfig(filtering="none", **SMALL),
    "maskcut": MaskCutConfig(**SMALL),
    "tokencut": TokenCutConfig(**SMALL),
}


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("texture", image_size=96)


@pytest.fixture
def truth(fo, dataset, photographs):
    """The photographs, with masks of some setting as ground truth."""
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    config = ProMergeConfig(stride=3, tau_b=0.3, **SMALL)
    segment_dataset(dataset, load_model(config=config, encoder="texture"), "ground_truth")
    return dataset


class Count:
    """An encoder's images, counted."""

    def __init__(self, encoder, monkeypatch):
        self.images = 0
        encode = encoder.encode

        def counting(batch, *arguments, **options):
            self.images += len(batch)
            return encode(batch, *arguments, **options)

        monkeypatch.setattr(encoder, "encode", counting)


def test_figures_are_those_of_stored_masks(truth, encoder, tmp_path):
    ablation = ablate(truth, SETTINGS, encoder=encoder, folder=tmp_path, resamples=50)
    assert list(ablation.outcomes) == list(SETTINGS)
    for name, config in SETTINGS.items():
        field = name.replace(" ", "_")
        segment_dataset(truth, load_model(config=config, encoder=encoder), field)
        expected = evaluate_instances(truth, field).coco_metrics
        assert ablation.metrics()[name] == expected
        statuses = truth.count_values(f"{field}.status")
        assert ablation.outcomes[name].statuses == statuses
        assert ablation.outcomes[name].masks == truth.count(f"{field}.detections") / 4
    assert len({figures["segm"]["AP"] for figures in ablation.metrics().values()}) == 5
    assert ablation.kind == "segm"


def test_intervals_are_those_of_a_comparison(truth, encoder, tmp_path):
    from promerge_fo.dataset.evaluation.comparison import compare_fields

    some = {name: SETTINGS[name] for name in ("default", "maskcut")}
    ablation = ablate(truth, some, encoder=encoder, folder=tmp_path, resamples=200, seed=3)
    for name, config in some.items():
        segment_dataset(truth, load_model(config=config, encoder=encoder), name)
    expected = compare_fields(truth, list(some), resamples=200, seed=3)
    assert ablation.interval("maskcut", "AP") == expected.interval("maskcut", "AP")
    assert ablation.difference("maskcut", "AP") == expected.difference("maskcut", "AP")
    low, high = ablation.interval("default", "AP")
    assert low < ablation.metrics()["default"]["segm"]["AP"] < high


def test_nothing_is_calculated_twice(truth, encoder, tmp_path, monkeypatch):
    count, bars = Count(encoder, monkeypatch), []

    class Bar:
        def __init__(self, total):
            self.total, self.done = total, 0
            bars.append(self)

        def update(self, n):
            self.done += n

        def close(self):
            pass

    def run(*names, folder=tmp_path):
        chosen = {name: SETTINGS[name] for name in names}
        return ablate(truth, chosen, encoder=encoder, folder=folder, resamples=5, progress=Bar)

    first = run("default")
    assert count.images == 4
    second = run("default", "maskcut")  # features are there, and half of the results
    assert count.images == 4
    third = run("maskcut", "default")
    assert [(bar.total, bar.done) for bar in bars] == [(4, 4), (4, 4)]  # the third had nothing
    for ablation in (second, third):
        assert ablation.metrics()["default"] == first.metrics()["default"]
        assert ablation.outcomes["default"].seconds == first.outcomes["default"].seconds
    run("default", folder=tmp_path / "other")
    assert count.images == 8


def test_a_grid_that_was_stopped_goes_on(truth, encoder, tmp_path, monkeypatch):
    from promerge_fo.pipeline import Pipeline

    finish, finished = Pipeline.finish, []

    class Stop:
        """A bar that is stopped at the second image, as by Ctrl-C."""

        def __init__(self, total):
            self.done = 0

        def update(self, n):
            self.done += n
            if self.done == 2:
                raise KeyboardInterrupt

        def close(self):
            pass

    def counting(self, prepared, encoded):
        finished.append(prepared.size)
        return finish(self, prepared, encoded)

    some = {name: SETTINGS[name] for name in ("default", "tokencut")}
    with pytest.raises(KeyboardInterrupt):
        ablate(truth, some, encoder=encoder, folder=tmp_path, threads=1, progress=Stop)
    with ResultStore(tmp_path / "results.sqlite") as store:
        rows = store._connection.execute("select run, image from results").fetchall()
    assert len(rows) == 2 * 2
    monkeypatch.setattr(Pipeline, "finish", counting)
    again = ablate(truth, some, encoder=encoder, folder=tmp_path, threads=1)
    assert len(finished) == 2 * 2
    fresh = ablate(truth, some, encoder=encoder, folder=tmp_path / "fresh")
    assert again.metrics() == fresh.metrics()


def test_changed_images_and_damaged_features_are_calculated_again(
    truth, encoder, tmp_path, monkeypatch, photographs, caplog
):
    from PIL import Image

    count = Count(encoder, monkeypatch)
    one = {"default": SETTINGS["default"]}
    before = ablate(truth, one, encoder=encoder, folder=tmp_path / "a").metrics()
    (files,) = (tmp_path / "a" / "features").iterdir()
    damaged = sorted(files.glob("*.npz"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-5000] + b"\0" * 5000)
    (tmp_path / "a" / "results.sqlite").unlink()
    with caplog.at_level(logging.WARNING):
        assert ablate(truth, one, encoder=encoder, folder=tmp_path / "a").metrics() == before
    assert count.images == 5
    assert "is damaged and made again" in caplog.text
    assert len(list(files.glob("*.npz"))) == 4  # and nothing half written

    changed = tmp_path / "changed.png"
    Image.open(photographs[0]).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(changed)
    sample = truth.first()
    sample.filepath = str(changed)
    sample.save()
    ablate(truth, one, encoder=encoder, folder=tmp_path / "a")
    assert count.images == 6


def test_images_that_cannot_be_read_have_no_masks_and_are_tried_again(
    truth, encoder, tmp_path, photographs, caplog
):
    one = {"default": SETTINGS["default"]}
    truth.compute_metadata()
    whole = ablate(truth, one, encoder=encoder, folder=tmp_path / "a").outcomes["default"]
    samples = list(truth)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(Path(photographs[0]).read_bytes()[:300])
    samples[0].filepath = str(broken)
    samples[1].filepath = str(tmp_path / "gone.jpg")
    for sample in samples:
        sample.save()
    with caplog.at_level(logging.WARNING):
        outcome = ablate(truth, one, encoder=encoder, folder=tmp_path / "a").outcomes["default"]
    assert outcome.statuses["failed"] == 2
    assert "broken.jpg has no masks" in caplog.text
    assert "gone.jpg" in caplog.text
    assert 0 < outcome.masks < whole.masks
    broken.write_bytes(Path(photographs[0]).read_bytes())
    outcome = ablate(truth, one, encoder=encoder, folder=tmp_path / "a").outcomes["default"]
    assert outcome.statuses.get("failed", 0) == 1


def test_boxes_alone_are_measured_where_there_are_no_masks(truth, encoder, tmp_path):
    for sample in truth.iter_samples(autosave=True):
        for label in sample["ground_truth"].detections:
            label.mask = None
    one = {"default": SETTINGS["default"]}
    ablation = ablate(truth, one, encoder=encoder, folder=tmp_path, resamples=10)
    assert ablation.kind == "bbox"
    assert list(ablation.metrics()["default"]) == ["bbox"]
    assert "AP (boxes)" in ablation.table()
    assert "masks)" not in ablation.table()


def test_what_cannot_be_run_is_refused_before_work(fo, truth, encoder, tmp_path):
    run = {"encoder": encoder, "folder": tmp_path}
    with pytest.raises(ValueError, match="no settings to try"):
        ablate(truth, {}, **run)
    with pytest.raises(ValueError, match="has no class token"):
        ablate(truth, {"MHA": ProMergeConfig(prompting="attention")}, **run)
    with pytest.raises(ValueError, match="ground"):
        ablate(truth, SETTINGS, "ground", **run)
    with pytest.raises(ValueError, match="confidence is 95"):
        ablate(truth, SETTINGS, confidence=95, **run)
    with pytest.raises(ValueError, match="no image to measure on"):
        ablate(truth.limit(0), SETTINGS, **run)
    assert not (tmp_path / "features").exists()
    sample = truth.first()
    sample.metadata = fo.ImageMetadata(width=7, height=5)  # not asked: the file says it
    sample.save()
    run = {**run, "settings": {"default": SETTINGS["default"]}}
    ablate(truth, **run)
    with sqlite3.connect(tmp_path / "results.sqlite") as results:
        results.execute("update results set height = 5, width = 7")
    with pytest.raises(ValueError, match="pixels, but its results in this folder are of 7 x 5"):
        ablate(truth, **run)


def test_room_for_features_is_asked_for(encoder, tmp_path, caplog):
    store = FeatureStore(tmp_path, encoder)
    with caplog.at_level(logging.WARNING):
        store.require_room(1024, 1000)
        assert caplog.text == ""
        store.require_room(11 * 2**20, 1000)
    assert "the features of 1,000 images take 10.7 GiB" in caplog.text
    with pytest.raises(OSError, match="take fewer images, a smaller encoder or another folder"):
        store.require_room(2**40, 10**6)


def test_features_come_back_as_they_were(encoder, tmp_path):
    store = FeatureStore(tmp_path, encoder)
    features = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    for name, scores in (("a", None), ("b", features[0])):
        assert store.load(name) is None
        store.save(name, StoredFeatures(features, scores, 0.25))
        found = store.load(name)
        np.testing.assert_array_equal(found.features, features)
        assert found.features.dtype == np.float32
        assert found.seconds == 0.25
        assert (found.prompt_scores is None) == (scores is None)
    np.testing.assert_array_equal(found.prompt_scores, features[0])
    other = FeatureStore(tmp_path, load_encoder("texture", image_size=88))
    assert other.load("a") is None


def test_results_are_written_once(tmp_path):
    result = Result("run", "image", "ok", (4, 5), [{"area": 3, "score": 0.5}], 0.1, 0.2)
    with ResultStore(tmp_path / "r.sqlite") as one, ResultStore(tmp_path / "r.sqlite") as two:
        one.add([result])
        two.add([Result("run", "image", "failed", (4, 5), [], 9.0, 9.0)])
        assert two.done("run") == {"image"}
        assert two.done("other") == set()
        names = [f"none {i}" for i in range(1200)]
        assert one.read("run", [*names, "image"]) == {"image": result}


def test_settings():
    base = ProMergeConfig()
    assert list(grid(base, stride=[2, 4], filtering=["ioa", "nms"])) == [
        "stride=2, filtering=ioa",
        "stride=2, filtering=nms",
        "stride=4, filtering=ioa",
        "stride=4, filtering=nms",
    ]
    assert grid(base) == {"as given": base}
    assert sweep(base, stride=[2], tau_b=[0.1, 0.3]) == {
        "stride=2": base.replace(stride=2),
        "tau_b=0.1": base.replace(tau_b=0.1),
        "tau_b=0.3": base.replace(tau_b=0.3),
    }
    made = settings_of(
        {
            "both": {"preset": "paper", "merge_rule": "either"},
            "cut": {"method": "maskcut", "sweep": {"cuts": [1, 2]}},
        }
    )
    assert made["both"] == ProMergeConfig.preset("paper")
    assert made["cut, cuts=2"] == MaskCutConfig(cuts=2)
    changes = changes_between({"a": base, "b": base.replace(stride=2), "c": MaskCutConfig()})
    assert changes["stride"] == [4, 2, None]
    assert changes["cuts"] == [None, None, 3]
    assert "image_size" not in changes
    with pytest.raises(ValueError, match="x: there is no method 'sam'"):
        settings_of({"x": {"method": "sam"}})
    with pytest.raises(ValueError, match="stride has no values"):
        grid(base, stride=[])


def test_a_report(truth, encoder, tmp_path):
    settings = {
        **grid(ProMergeConfig(**SMALL), stride=[2, 4], tau_b=[0.1, 0.2]),
        "maskcut": SETTINGS["maskcut"],
    }
    run = {"encoder": encoder, "folder": tmp_path, "resamples": 20}
    ablation = ablate(truth, settings, **run)
    page = ablation.report(tmp_path / "report", "A grid").read_text()
    assert page.startswith("# A grid\n\n4 images against ground_truth, encoder texture")
    for picture in ("sweeps.png", "settings.png", "times.png"):
        assert f"({picture})" in page
        assert (tmp_path / "report" / picture).stat().st_size > 5000
    with (tmp_path / "report" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["setting"] for row in rows] == list(settings)
    assert [row["stride"] for row in rows] == ["2", "2", "4", "4", ""]
    for row in rows:
        expected = ablation.metrics()[row["setting"]]
        assert float(row["segm_AP"]) == round(expected["segm"]["AP"], 4)
        assert float(row["bbox_AR100"]) == round(expected["bbox"]["AR100"], 4)
        assert sum(int(part.split("=")[1]) for part in row["statuses"].split()) == 4
        line = next(line for line in page.splitlines() if line.startswith(f"| {row['setting']} |"))
        low, high = ablation.interval(row["setting"], "AP")
        assert f"{expected['segm']['AP']:.2f} [{low:.2f}, {high:.2f}]" in line
    assert float(rows[0]["AP_gain"]) == 0
    only = {name: SETTINGS[name] for name in ("default", "no background")}
    without = ablate(truth, only, **run).report(tmp_path / "none").read_text()
    assert "sweeps.png" not in without


def test_settings_along_one_number_are_a_line_against_time(truth, encoder, tmp_path, monkeypatch):
    from promerge_fo.dataset.experiments import ablation_plots

    figures = []
    monkeypatch.setattr(ablation_plots, "save", lambda figure, path: figures.append(figure))
    settings = {
        **grid(ProMergeConfig(**SMALL), stride=[4, 2]),
        **grid(MaskCutConfig(**SMALL), refine=["crf", "none"]),
    }
    ablation = ablate(truth, settings, encoder=encoder, folder=tmp_path, resamples=5)
    ablation_plots.plot_times(ablation, tmp_path / "times.png")
    (axis,) = figures[0].axes
    lines = {line.get_label(): line for line in axis.lines}
    assert list(lines) == ["promerge, by stride", "maskcut"]
    assert [line.get_linestyle() for line in lines.values()] == ["-", "None"]
    assert [text.get_text() for text in axis.texts] == ["2", "4", "refine=crf", "refine=none"]
    by_stride = lines["promerge, by stride"]
    expected = [ablation.outcomes[name] for name in ("stride=2", "stride=4")]
    assert by_stride.get_xdata().tolist() == [o.image_seconds for o in expected]
    assert by_stride.get_ydata().tolist() == [o.scores["segm"].metrics["AP"] for o in expected]
