from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from promerge_fo import dataset as pfo
from promerge_fo.config import MaskCutConfig, ProMergeConfig, TokenCutConfig
from promerge_fo.encoder import load_encoder


def test_the_labels_are_those_of_the_pipeline(filled, expected):
    for sample, masks in zip(filled, expected, strict=True):
        np.testing.assert_array_equal(pfo.masks_of(sample.promerge, masks.shape[1:]), masks)
        areas = [detection.area for detection in sample.promerge.detections]
        assert areas == [mask.mean() for mask in masks]


@pytest.mark.parametrize("batch_size, num_workers", [(1, 0), (3, 2), (None, None)])
def test_batches_and_workers_change_nothing(
    fo, dataset, model, photographs, expected, batch_size, num_workers
):
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    dataset.apply_model(
        model, label_field="promerge", batch_size=batch_size, num_workers=num_workers
    )
    for sample, masks in zip(dataset, expected, strict=True):
        np.testing.assert_array_equal(pfo.masks_of(sample.promerge, masks.shape[1:]), masks)


def test_masks_on_disk_are_the_masks_in_the_database(fo, filled, model, expected, tmp_path):
    for run in (1, 2):
        filled.apply_model(
            model, "disk", batch_size=2, num_workers=0, output_dir=str(tmp_path / "masks")
        )
        stored = filled.values("disk.detections.mask_path", unwind=True)
        files = {str(path) for path in (tmp_path / "masks").iterdir()}
        assert len(set(stored)) == len(stored) and set(stored) <= files
        assert len(files) == run * len(stored)  # a rerun overwrites nothing
        assert filled.count("disk.detections.mask") == 0
        for sample, masks in zip(filled, expected, strict=True):
            np.testing.assert_array_equal(pfo.masks_of(sample.disk, masks.shape[1:]), masks)


def test_a_confidence_threshold_drops_labels_and_keeps_the_status(filled, model):
    confidences = filled.values("promerge.detections.confidence", unwind=True)
    threshold = float(np.median(confidences))
    filled.apply_model(model, "sure", batch_size=4, num_workers=0, confidence_thresh=threshold)
    kept = filled.values("sure.detections.confidence", unwind=True)
    assert sorted(kept) == sorted(c for c in confidences if c >= threshold)
    assert filled.count_values("sure.status") == {"ok": 4}


def test_a_single_image_needs_no_dataset(model, photographs, expected):
    path = photographs[0]
    pixels = np.asarray(Image.open(path))
    for image in (path, Path(path), pixels, Image.open(path), model.transforms(path)):
        masks = pfo.masks_of(model.predict(image), pixels.shape[:2])
        np.testing.assert_array_equal(masks, expected[0])
    assert model.predict("no such file.jpg").status == "failed"


def test_workers_get_no_model(model):
    import pickle

    assert len(pickle.dumps(model.build_get_item())) < 1000


def test_only_samples_in_the_view_are_segmented(fo, dataset, model, photographs):
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    dataset.save_view("half", dataset.limit(2))
    dataset.load_saved_view("half").apply_model(
        model, label_field="promerge", batch_size=2, num_workers=0
    )
    assert dataset.values("promerge.status") == ["ok", "ok", None, None]
    assert pfo.load_run(dataset, pfo.list_runs(dataset)[0])["images"] == 2


def test_the_attributes_can_be_filtered(fo, filled):
    schema = filled.get_field_schema(flat=True)
    assert isinstance(schema["promerge.status"], fo.StringField)
    assert isinstance(schema["promerge.error"], fo.StringField)
    assert isinstance(schema["promerge.run"], fo.StringField)
    assert isinstance(schema["promerge.detections.area"], fo.FloatField)
    assert isinstance(schema["promerge.detections.touches_border"], fo.BooleanField)
    area = fo.ViewField("area")
    large = filled.filter_labels("promerge", area > 0.1)
    assert min(large.values("promerge.detections.area", unwind=True)) > 0.1


def sidebar(dataset) -> dict[str, list[str]]:
    return {group.name: list(group.paths) for group in dataset.app_config.sidebar_groups}


def test_status_and_error_stand_in_the_sidebar(fo, filled, model):
    paths = ["promerge", "promerge.status", "promerge.error"]
    assert sidebar(filled)["labels"] == paths
    filled.apply_model(model, label_field="promerge", batch_size=4, num_workers=0)
    assert sidebar(filled)["labels"] == paths
    filled.apply_model(model, label_field="second", batch_size=4, num_workers=0)
    assert sidebar(filled)["labels"] == [*paths, "second", "second.status", "second.error"]


def test_the_sidebar_stays_as_the_user_arranged_it(fo, filled, model):
    group = fo.core.odm.SidebarGroupDocument
    filled.app_config.sidebar_groups = [
        group(name="labels", paths=[]),
        group(name="mine", paths=["promerge", "filepath"]),
    ]
    filled.save()
    filled.apply_model(model, label_field="promerge", batch_size=4, num_workers=0)
    mine = ["promerge", "promerge.status", "promerge.error", "filepath"]
    assert sidebar(filled) == {"labels": [], "mine": mine}
    filled.app_config.sidebar_groups = [group(name="mine", paths=["filepath"])]
    filled.save()
    filled.apply_model(model, label_field="promerge", batch_size=4, num_workers=0)
    assert sidebar(filled) == {"mine": ["filepath"]}


def test_the_run_ends_with_a_count_by_status(fo, dataset, model, photographs, caplog):
    dataset.add_samples([fo.Sample(filepath=path) for path in [*photographs, "gone.jpg"]])
    with caplog.at_level(logging.INFO, "fiftyone"):
        dataset.apply_model(model, label_field="masks", batch_size=8, num_workers=0)
    (line,) = [r for r in caplog.records if r.name == "fiftyone.promerge"]
    assert line.getMessage().startswith("promerge: 5 images in ")
    assert line.getMessage().endswith(
        "4 ok, 1 failed (see dataset.match(F('masks.status') == 'failed'))"
    )
    assert len(dataset.match(fo.ViewField("masks.status") == "failed")) == 1
    assert logging.getLogger("fiftyone").handlers  # which show it to the user


def test_labels_that_fiftyone_did_not_store_are_reported(fo, dataset, model, photographs, caplog):
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    dataset.add_sample_field("promerge", fo.StringField)
    dataset.apply_model(model, label_field="promerge", batch_size=2, num_workers=0)
    assert "did not store the labels of 4 images" in caplog.text
    assert pfo.list_runs(dataset) == []


def test_an_image_that_could_not_be_computed_fails_alone(filled, model, monkeypatch):
    finish, calls = model.pipeline.finish, []

    def broken(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise RuntimeError("no luck")
        return finish(*arguments)

    monkeypatch.setattr(model.pipeline, "finish", broken)
    monkeypatch.setattr(model.pipeline, "threads", 1)
    filled.apply_model(model, label_field="new", batch_size=2, num_workers=0)
    assert filled.values("new.status") == ["failed", "ok", "ok", "ok"]
    assert filled.first().new.error == "RuntimeError: no luck"
    assert filled.values("new.detections.area")[1:] == filled.values("promerge.detections.area")[1:]


def test_a_batch_that_could_not_be_computed_is_reported(filled, model, monkeypatch, caplog):
    prepare, calls = model.pipeline.prepare, []

    def broken(path):
        calls.append(path)
        if len(calls) == 1:
            raise RuntimeError("no luck")
        return prepare(path)

    monkeypatch.setattr(model.pipeline, "prepare", broken)
    monkeypatch.setattr(model.pipeline, "readers", 1)
    filled.apply_model(model, label_field="new", batch_size=2, num_workers=0)
    assert "no luck" in caplog.text
    assert "did not store the labels of 2 images" in caplog.text
    assert filled.values("new.status") == [None, None, "ok", "ok"]
    assert filled.values("new.detections.area")[2:] == filled.values("promerge.detections.area")[2:]


def test_batches_that_fiftyone_leaves_out_shift_no_labels(filled, model, monkeypatch):
    predict_all, calls = model.predict_all, []

    def sometimes(batch, samples=None):
        calls.append(batch)
        if len(calls) == 2:
            raise RuntimeError("left out")
        return predict_all(batch, samples)

    monkeypatch.setattr(model, "predict_all", sometimes)
    filled.apply_model(model, label_field="new", batch_size=1, num_workers=0)
    areas = filled.values("promerge.detections.area")
    assert filled.values("new.detections.area") == [areas[0], None, areas[2], areas[3]]


def test_images_that_were_not_foreseen_are_segmented_too(model, photographs, expected):
    from promerge_fo.dataset.runs.model import _ReadAhead

    asked = []

    def run(paths):
        asked.append(list(paths))
        return model.pipeline.run(paths, 2, then=len)

    a, b, c, d = photographs
    ahead = _ReadAhead([a, b, c], run)
    assert ahead.take([a, d]) == [len(expected[0]), len(expected[3])]
    assert ahead.take([c]) == [len(expected[2])]
    assert asked == [[a, b, c], [d]]
    ahead.close()


def test_the_next_batches_are_computed_while_fiftyone_stores_one(
    fo, dataset, model, photographs, monkeypatch
):
    import threading

    finish, finished = model.pipeline.finish, threading.Semaphore(0)
    monkeypatch.setattr(model.pipeline, "finish", lambda *a: (finish(*a), finished.release())[0])
    add_labels, waited = fo.core.sample.SampleView.add_labels, []

    def when_all_are_finished(self, *arguments, **options):
        if not waited:
            waited.append(all(finished.acquire(timeout=20) for _ in photographs))
        return add_labels(self, *arguments, **options)

    monkeypatch.setattr(fo.core.sample.SampleView, "add_labels", when_all_are_finished)
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    dataset.apply_model(model, label_field="promerge", batch_size=1, num_workers=0)
    assert waited == [True]


def test_labels_are_stored_in_bulk(fo, dataset, model, photographs, monkeypatch):
    from fiftyone.core import odm

    bulk_write, sizes = odm.bulk_write, []

    def noted(ops, *arguments, **options):
        sizes.append(len(ops))
        return bulk_write(ops, *arguments, **options)

    monkeypatch.setattr(odm, "bulk_write", noted)
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs * 25])
    sizes.clear()
    dataset.apply_model(model, label_field="promerge", batch_size=10, num_workers=0)
    assert sum(sizes) == 100
    assert len([size for size in sizes if size]) < 50
    assert dataset.count("promerge.detections") > 100


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_is_recorded_as_such(
    fo, dataset, model, photographs, monkeypatch, caplog, stop
):
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    prepare = model.pipeline.prepare

    def interrupted(path):
        if path == photographs[3]:
            raise stop
        return prepare(path)

    monkeypatch.setattr(model.pipeline, "prepare", interrupted)
    with pytest.raises(stop):
        dataset.apply_model(
            model, label_field="promerge", batch_size=3, num_workers=0, skip_failures=False
        )
    record = pfo.load_run(dataset, pfo.list_runs(dataset)[0])
    assert record["interrupted"] is True
    assert record["counts"] == {"ok": 3}
    assert dataset.values("promerge.status") == ["ok", "ok", "ok", None]
    assert "promerge was interrupted; promerge: 3 images" in caplog.text

    monkeypatch.undo()
    dataset.apply_model(model, label_field="promerge", batch_size=3, num_workers=0)
    record = pfo.load_run(dataset, pfo.list_runs(dataset)[0])
    assert record["interrupted"] is False and record["counts"] == {"ok": 4}


def test_presets_and_arguments_reach_the_pipeline(fo):
    model = pfo.load_model(encoder="texture", image_size=240, resize="aspect")
    assert model.config == ProMergeConfig(image_size=240)
    assert model.pipeline.encoder.image_size == 240
    assert model.pipeline.encoder.resize == "aspect"
    assert pfo.load_model(preset="fast", encoder="texture").config.stride == 2
    config = ProMergeConfig(tau_b=0.3, image_size=160)
    model = pfo.load_model(config=config, encoder="texture")
    assert model.config == config and model.pipeline.encoder.image_size == 160
    loaded = load_encoder("texture", image_size=160)
    assert pfo.load_model(config=config, encoder=loaded).hash == model.hash


def test_methods(fo):
    encoder = load_encoder("texture")
    for method, config in {
        "promerge": ProMergeConfig(),
        "maskcut": MaskCutConfig(),
        "tokencut": TokenCutConfig(),
    }.items():
        by_name = pfo.load_model(method, encoder=encoder)
        assert by_name.config == config
        assert by_name.pipeline.identity()["method"] == method
        assert pfo.load_model(config=config, encoder=encoder).hash == by_name.hash
        assert pfo.load_model(method, config=config, encoder=encoder).hash == by_name.hash
        official = pfo.load_model(method, preset="official", encoder=encoder)
        assert official.config == config.replace(score="constant")
    small = pfo.load_model("maskcut", encoder="texture", image_size=240)
    assert small.config == MaskCutConfig(image_size=240)
    assert small.pipeline.encoder.image_size == 240


@pytest.mark.parametrize("method", ["maskcut", "tokencut"])
def test_other_methods_fill_a_dataset(fo, dataset, photographs, method):
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    model = pfo.load_model(method, encoder="texture", image_size=160)
    dataset.apply_model(model, label_field=method, batch_size=4, num_workers=0)
    assert dataset.count_values(f"{method}.status") == {"ok": 4}
    for sample in dataset:
        result = model.pipeline([sample.filepath])[0]
        masks = pfo.masks_of(sample[method], result.masks.shape[1:])
        np.testing.assert_array_equal(masks, result.masks)
        assert len(masks) <= (3 if method == "maskcut" else 1)
    record = pfo.load_run(dataset, pfo.list_runs(dataset)[0])
    assert (record["method"], record["run_hash"]) == (method, model.hash)
    assert type(model.config).from_dict(record["config"]) == model.config


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"method": "magic"}, ValueError, "no method 'magic'; the methods are: 'promerge'"),
        ({"preset": "magic"}, ValueError, "no preset 'magic'"),
        ({"preset": "fast", "config": ProMergeConfig()}, ValueError, "give one of them"),
        ({"config": {"tau_b": 0.3}}, TypeError, "config is a dict.*from_dict"),
        ({"image_size": 240, "config": ProMergeConfig()}, ValueError, "leave image_size out"),
        (
            {"method": "tokencut", "config": MaskCutConfig()},
            ValueError,
            "method is 'tokencut', but config is a MaskCutConfig; .* or a TokenCutConfig",
        ),
        ({"method": "maskcut", "preset": "paper"}, ValueError, "no preset 'paper'"),
        ({"image_size": 240, "encoder": load_encoder("texture")}, ValueError, "give image_size to"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else None,
)
def test_contradictions_are_refused(fo, arguments, error, message):
    with pytest.raises(error, match=message):
        pfo.load_model(**{"encoder": "texture", **arguments})
