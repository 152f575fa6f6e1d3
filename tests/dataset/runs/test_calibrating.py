"""A dataset's images calibrate the model, once; the run keeps the calibration."""

import numpy as np
import pytest
from PIL import Image

from promerge_fo import dataset as pfo
from promerge_fo.calibration import calibrate
from promerge_fo.config import ProMergeConfig
from tests.scenes import Lifted, painted_scene

SIZE = 160


def lifted(config=None):
    encoder = Lifted(device="cpu", image_size=SIZE)
    return pfo.load_model(encoder=encoder, config=config or ProMergeConfig(image_size=SIZE))


@pytest.fixture
def painted(fo, dataset, tmp_path):
    """A dataset of six painted scenes."""
    for seed in range(6):
        Image.fromarray(painted_scene(seed)[0]).save(tmp_path / f"{seed}.png")
    paths = sorted(map(str, tmp_path.glob("*.png")))
    dataset.add_samples([fo.Sample(filepath=path) for path in paths])
    return dataset


def test_a_run_is_calibrated_and_its_record_says_how(painted, caplog):
    model = lifted()
    with caplog.at_level("INFO", "fiftyone.promerge"):
        report = pfo.segment_dataset(painted, model)
    assert report.counts == {"ok": 6}
    assert report.instances > 12
    assert "promerge: calibrated (6 images measured with texture, facet 'texture'; " in caplog.text
    record = pfo.load_run(painted, pfo.list_runs(painted)[-1])
    assert record["run_hash"] == model.hash
    assert record["calibration"]["images"] == 6
    assert record["config"]["tau_b"] == record["calibration"]["parameters"]["tau_b"]
    assert len(record["calibration"]["centre"]) == 15


def test_the_next_run_takes_the_same_calibration(fo, painted, tmp_path):
    first = lifted()
    pfo.segment_dataset(painted, first, limit=3)  # as if it had been stopped
    Image.fromarray(np.full((99, 99, 3), 7, np.uint8)).save(tmp_path / "new.png")
    painted.add_sample(fo.Sample(filepath=str(tmp_path / "new.png")))
    again = lifted()
    report = pfo.segment_dataset(painted, again)
    assert again.hash == first.hash
    assert report.skipped == 3
    assert sum(report.counts.values()) == 4
    other = pfo.load_model(
        encoder=Lifted(device="cpu", image_size=SIZE - 8), config=ProMergeConfig()
    )
    pfo.segment_dataset(painted, other, "other", limit=1)
    assert other.pipeline.calibration.images == 7


def test_it_can_be_switched_off_and_named_parameters_stay(painted, caplog):
    model = lifted()
    with caplog.at_level("WARNING", "fiftyone.promerge"):
        report = pfo.segment_dataset(painted, model, calibrate=False)
    assert report.counts == {"all_filtered": 6}
    assert report.diagnosis.startswith("6 of 6 images have no masks (6 all_filtered): ")
    assert "(5, 25, 50, 75, 95 %), tau_b is 0.2. " in report.diagnosis
    assert "were not made for" not in caplog.text
    assert model.pipeline.calibration is None
    again = pfo.segment_dataset(painted, model, calibrate=False)
    assert again.skipped == 6
    assert again.diagnosis.startswith("6 of 6 images have no masks")
    named = lifted(ProMergeConfig(image_size=SIZE, tau_b=0.9))
    pfo.segment_dataset(painted, named, "named")
    assert named.config.tau_b == 0.9
    assert named.config.tau_f_bg == named.pipeline.calibration.parameters["tau_f_bg"]


@pytest.mark.parametrize("preset", ["official", "paper"])
def test_the_papers_presets_are_not_calibrated(painted, preset):
    config = ProMergeConfig.preset(preset).replace(image_size=SIZE)
    model = lifted(config)
    pfo.segment_dataset(painted, model)
    assert model.config == config
    assert model.pipeline.calibration is None


def test_apply_model_alone_says_that_a_calibration_is_wanted(painted, caplog):
    model = lifted()
    with caplog.at_level("WARNING", "fiftyone.promerge"):
        painted.apply_model(model, label_field="bare", num_workers=0)
    assert "the paper's thresholds were not made for the features of texture" in caplog.text
    assert "model.calibrate(dataset.values('filepath'))" in caplog.text
    assert painted.count_values("bare.status") == {"all_filtered": 6}
    caplog.clear()
    calibration = model.calibrate(painted.values("filepath"))
    with caplog.at_level("WARNING", "fiftyone.promerge"):
        painted.apply_model(model, label_field="bare", num_workers=0)
    assert not caplog.text
    assert painted.count_values("bare.status") == {"ok": 6}
    loaded = pfo.load_model(
        encoder=Lifted(device="cpu", image_size=SIZE),
        config=ProMergeConfig(image_size=SIZE),
        calibration=calibration,
    )
    assert loaded.hash == model.hash


def test_images_that_cannot_be_read_leave_the_model_as_it_was(fo, dataset, tmp_path, caplog):
    (tmp_path / "bad.png").write_text("no image")
    dataset.add_sample(fo.Sample(filepath=str(tmp_path / "bad.png")))
    model = lifted()
    with caplog.at_level("WARNING", "fiftyone.promerge"):
        report = pfo.segment_dataset(dataset, model)
    assert report.counts == {"failed": 1}
    assert "not calibrated for texture: none of 1 images" in caplog.text
    assert model.pipeline.calibration is None


def test_settings_are_compared_on_calibrated_features(painted, tmp_path):
    from promerge_fo.dataset.labels import to_detections

    encoder = Lifted(device="cpu", image_size=SIZE)
    for sample in painted.iter_samples(autosave=True):
        truth = painted_scene(int(sample.filepath[-5]))[1]
        from promerge_fo.instances import Instances

        sample["ground_truth"] = to_detections(
            Instances(truth, np.ones(len(truth), np.float32)), run="0" * 16
        )
    calibration = calibrate(encoder, painted.values("filepath"))
    plain = pfo.load_model(encoder=encoder, config=ProMergeConfig(image_size=SIZE)).pipeline
    settings = {
        "calibrated": ProMergeConfig(image_size=SIZE),
        "as the paper": ProMergeConfig.preset("official").replace(image_size=SIZE),
        "left as it is": plain,
    }
    measured = pfo.ablate(
        painted, settings, encoder=encoder, calibration=calibration, folder=tmp_path / "ablation"
    )
    scores = {name: metrics["segm"]["AP50"] for name, metrics in measured.metrics().items()}
    assert scores["calibrated"] > 50
    assert scores["as the paper"] == scores["left as it is"] == 0
    assert len(list((tmp_path / "ablation" / "features").iterdir())) == 1
