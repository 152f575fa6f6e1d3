"""Whatever goes wrong with an image, wherever, costs this image alone, and its reason is stored."""

from __future__ import annotations

import errno
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from promerge_fo import dataset as pfo
from promerge_fo import files
from promerge_fo.dataset.runs import model as model_module
from promerge_fo.dataset.runs.resume import failures
from promerge_fo.dataset.runs.status import run_statuses

COUNT = 12
BAD = 4  # in the midst of a batch


@pytest.fixture
def many(fo, dataset, photographs, tmp_path):
    """Twelve images: the photographs, three times."""
    paths = [str(tmp_path / f"{number:02}.jpg") for number in range(COUNT)]
    for number, path in enumerate(paths):
        shutil.copy(photographs[number % 4], path)
    dataset.add_samples([fo.Sample(filepath=path) for path in paths])
    return dataset


def of_bad_image(model, dataset):
    """Whether instances or samples are the bad image's: the third call of its kind."""
    calls = []

    def is_bad(*_):
        calls.append(1)
        return len(calls) == BAD + 1

    return is_bad


def require_one_failure(dataset, report, model, *words, field="promerge", bad=None):
    dataset.reload()
    statuses = dataset.values(f"{field}.status")
    assert sorted(statuses) == ["failed"] + ["ok"] * (COUNT - 1)
    assert report.counts == {"ok": COUNT - 1, "failed": 1}
    assert report.unstored == 0
    (failure,) = failures(dataset, field, model.hash)
    for word in words:
        assert word in failure.reason
    if bad is not None:
        assert failure.path == dataset.values("filepath")[bad]
    assert dataset.values(f"{field}.run") == [model.hash] * COUNT
    record = pfo.load_run(dataset, pfo.list_runs(dataset)[-1])
    assert record["counts"] == {"ok": COUNT - 1, "failed": 1}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "MemoryError: there was not enough memory"),
        (RuntimeError("no luck"), "RuntimeError: no luck"),
        (KeyError(), "KeyError, without a message"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_while_labels_are_made(many, model, monkeypatch, error, words):
    bad = many.skip(BAD).first().filepath
    real, masks = model_module.to_detections, model.pipeline([bad])[0].masks

    def scarce(instances, run, mask_folder=None):
        if np.array_equal(instances.masks, masks) and not tried:
            tried.append(1)
            raise error
        return real(instances, run, mask_folder)

    tried: list[int] = []
    monkeypatch.setattr(model_module, "to_detections", scarce)
    report = pfo.segment_dataset(many, model)
    require_one_failure(many, report, model, words)


@pytest.mark.parametrize("place", ["add_labels", "predict_all"])
def test_an_error_while_labels_are_stored(fo, many, model, monkeypatch, place, caplog):
    bad = many.skip(BAD).first()
    error = MemoryError()
    if place == "add_labels":
        add_labels = fo.core.sample.SampleView.add_labels

        def refuse(self, *arguments, **options):
            if self.id == bad.id:
                raise error
            return add_labels(self, *arguments, **options)

        monkeypatch.setattr(fo.core.sample.SampleView, "add_labels", refuse)
    else:
        predict_all = model.predict_all

        def predict(batch, samples=None):
            if bad.filepath in batch:
                raise error
            return predict_all(batch, samples)

        monkeypatch.setattr(model, "predict_all", predict)
    report = pfo.segment_dataset(many, model)
    require_one_failure(many, report, model, "MemoryError: there was not enough memory", bad=BAD)


def test_an_error_while_masks_are_written(many, model, monkeypatch, tmp_path):
    real, calls = files.uuid.uuid4, []

    def full():
        calls.append(1)
        if len(calls) == 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real()

    monkeypatch.setattr(files.uuid, "uuid4", full)
    report = pfo.segment_dataset(many, model, output_dir=str(tmp_path / "masks"))
    require_one_failure(many, report, model, "OSError: [Errno 28] No space left on device")
    stored = many.values("promerge.detections.mask_path", unwind=True)
    found = {str(path) for path in (tmp_path / "masks").rglob("*") if path.is_file()}
    assert set(stored) == found  # nothing is left of the image that failed


def test_a_mask_folder_belongs_to_a_run_and_a_field(many, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for field in ("one", "two"):
        pfo.segment_dataset(many, model, field, output_dir="masks", limit=4)
    monkeypatch.chdir("/")
    for field in ("one", "two"):
        paths = many.values(f"{field}.detections.mask_path", unwind=True)
        assert len(set(paths)) == len(paths) > 4
        assert {Path(path).parent for path in paths} == {tmp_path / "masks" / model.hash / field}
        for sample in many.limit(4):
            expected = model.pipeline([sample.filepath])[0].masks
            found = pfo.masks_of(sample[field], expected.shape[1:])
            np.testing.assert_array_equal(found, expected)


def test_images_whose_mask_files_are_gone_are_done_again(many, model, tmp_path, caplog):
    pfo.segment_dataset(many, model, output_dir=str(tmp_path / "masks"))
    lost = many.skip(BAD).first()
    label = lost.promerge.detections[0]
    Path(label.mask_path).unlink()
    with pytest.raises(FileNotFoundError, match="run the same again, which segments such images"):
        pfo.mask_of(label, (150, 200))
    report = pfo.segment_dataset(many, model, output_dir=str(tmp_path / "masks"))
    assert (report.skipped, report.counts) == (COUNT - 1, {"ok": 1})
    assert "mask files of 1 images are gone, such as " + label.mask_path in caplog.text
    many.reload()
    for path in many.values("promerge.detections.mask_path", unwind=True):
        assert Path(path).is_file()
    assert pfo.segment_dataset(many, model).skipped == COUNT


def test_decisions_on_masks_whose_files_are_gone_are_asked_for(many, model, tmp_path):
    pfo.segment_dataset(many, model, output_dir=str(tmp_path / "masks"))
    label = many.skip(BAD).first().promerge.detections[0]
    pfo.accept(many, "promerge", [label.id])
    Path(label.mask_path).unlink()
    with pytest.raises(pfo.DecisionsLostError, match="no new mask equals 1 of them"):
        pfo.segment_dataset(many, model)
    report = pfo.segment_dataset(many, model, drop_decisions=True)
    assert report.counts == {"ok": 1}


def test_an_image_whose_document_is_nearly_full_fails_alone(many, model, fill_up):
    path = many.skip(BAD).first().filepath
    fill_up(many, many[path], 700)
    report = pfo.segment_dataset(many, model)
    require_one_failure(many, report, model, "its labels take ", "has room for 0.00 MB of 16.8",
                        "keep the masks in files (output_dir", bad=BAD)  # fmt: skip
    (status,) = run_statuses(many)
    assert (status.state, status.done, status.failed) == ("finished", COUNT, 1)
    assert pfo.segment_dataset(many, model).skipped == COUNT
    assert path == many.values("filepath")[BAD]


def test_a_document_that_takes_nothing_at_all_is_named(many, model, fill_up, caplog):
    path = many.skip(BAD).first().filepath
    fill_up(many, many[path], 60)
    with caplog.at_level(logging.WARNING, "fiftyone.promerge"):
        report = pfo.segment_dataset(many, model)
    assert report.counts == {"ok": COUNT - 1}
    assert report.unstored == 1
    assert "; 1 images have no labels, as the log says" in str(report)
    assert f"promerge: {path} has no labels (" in caplog.text
    assert "does not even take that it failed" in caplog.text
    (status,) = run_statuses(many)
    assert (status.state, status.done) == ("stopped", COUNT - 1)
