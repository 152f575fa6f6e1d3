"""From photographs to a detector, and back: with the real detectron2, on a CPU."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import skimage

from promerge_fo.cli import main
from promerge_fo.detector import DetectorConfig

pytestmark = pytest.mark.timeout(2400)  # three trainings

SETTINGS = {
    "iterations": 100,
    "batch_size": 2,
    "learning_rate": 0.005,
    "warmup": 0.1,
    "drop_at": 0.8,
    "short_side_low": 64,
    "short_side_high": 80,
    "long_side": 160,
    "test_short_side": 80,
    "regions": 16,
    "proposals": 200,
    "precise_norm": 4,
    "confident": 0.05,
}
EVERY = ["--checkpoint-every", "20", "--pictures-every", "100", "--num-workers", "1"]
FLAGS = [x for k, v in SETTINGS.items() for x in ("--" + k.replace("_", "-"), str(v))]


def command(annotations, output):
    return ["train", str(annotations), "--output", str(output), "--from-scratch", *FLAGS, *EVERY]


def losses(folder, number=1):
    lines = (folder / f"round{number}" / "losses.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def dataset(fo, tmp_path_factory):
    """The demo's six photographs, with masks by ProMerge and their objects' outlines."""
    from promerge_fo.config import ProMergeConfig
    from promerge_fo.dataset.runs.model import load_model
    from promerge_fo.demo import PHOTOGRAPHS, add_outlines

    folder, source = tmp_path_factory.mktemp("photographs"), Path(skimage.__file__).parent / "data"
    made = fo.Dataset()
    for file, name in PHOTOGRAPHS.items():
        path = folder / f"{name}{Path(file).suffix}"
        shutil.copyfile(source / file, path)
        made.add_sample(fo.Sample(filepath=str(path)))
    add_outlines(made)
    model = load_model(encoder="texture", config=ProMergeConfig(image_size=240))
    made.apply_model(model, label_field="promerge", batch_size=6, progress=False)
    yield made
    made.delete()


@pytest.fixture(scope="module")
def pseudo(dataset, tmp_path_factory):
    """Their export."""
    from promerge_fo.dataset.exchange.export import export_pseudo_labels

    path = tmp_path_factory.mktemp("export") / "pseudo.json"
    assert export_pseudo_labels(dataset, "promerge", path, min_area=0.01)["annotations"] >= 4
    return path


@pytest.fixture(scope="module")
def trained(detectron2, pseudo, tmp_path_factory):
    """The folder of a training that nothing has stopped."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    assert main(command(pseudo, folder)) == 0
    yield folder
    for checkpoint in folder.rglob("*.pth"):  # half a gigabyte each
        checkpoint.unlink()


def test_training_lowers_the_loss(trained):
    found = losses(trained)
    assert [line["iteration"] for line in found] == list(range(100))
    total = [line["total_loss"] for line in found]
    assert np.mean(total[-10:]) < 0.95 * np.mean(total[:10])
    parts = [name for name in found[0] if name.startswith("loss_")]
    assert len(parts) == 9
    assert total[7] == pytest.approx(sum(found[7][name] for name in parts))
    assert found[10]["lr"] == pytest.approx(0.005)
    assert found[-1]["lr"] == pytest.approx(0.001)


def test_tensorboard_shows_losses_and_predictions(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "round1"))
    events.Reload()
    assert [e.step for e in events.Scalars("total_loss")] == [19, 39, 59, 79, 99]
    names = [f"labels, predictions/{k}" for k in range(4)]
    assert set(names) <= set(events.Tags()["images"])
    image = events.Images(names[0])[0]
    assert image.height == 400
    assert image.width >= 2 * 400  # two of them, side by side


def test_a_killed_training_goes_on_with_the_same_losses(trained, pseudo, tmp_path):
    """Killed between two checkpoints: what came after the last one is trained again."""
    folder = tmp_path / "out"
    call = [sys.executable, "-m", "promerge_fo", *command(pseudo, folder)]
    repository = str(Path(__file__).parents[2])
    path = os.pathsep.join([repository, os.environ.get("PYTHONPATH", "")])
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            call, env={**os.environ, "PYTHONPATH": path}, stdout=log, stderr=log
        )
        written = folder / "round1" / "losses.jsonl"
        end = time.monotonic() + 1200
        while process.poll() is None and time.monotonic() < end:
            if written.exists() and len(written.read_text().splitlines()) >= 24:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
    before = len(losses(folder))
    assert 24 <= before < 40
    assert not (folder / "round1" / "model_final.pth").exists()

    from promerge_fo.detector import train

    lines, done = [], []

    class Bar:
        """Ends the training some iterations after it went on."""

        def __init__(self, total):
            done.append(total)

        def update(self, n):
            done.append(n)
            if len(done) > 15:
                raise KeyboardInterrupt

        def close(self):
            done.append("closed")

    with pytest.raises(KeyboardInterrupt):
        train(
            pseudo,
            folder,
            DetectorConfig(**SETTINGS),
            num_workers=0,  # other workers, the same batches
            checkpoint_every=1000,
            pictures_every=1000,
            say=lines.append,
            progress=Bar,
        )
    assert "going on at iteration 20" in lines
    assert done == [80, *[1] * 15, "closed"]
    whole, broken = losses(trained), losses(folder)
    assert [line["iteration"] for line in broken] == list(range(35))
    for name in whole[0]:
        difference = np.abs([a[name] - b[name] for a, b in zip(whole, broken, strict=False)])
        assert difference.max() < 1e-4, (name, difference)
    # what was done is kept, and what the killed process left is not
    kept = sorted(path.name for path in folder.rglob("*.pth"))
    assert kept == ["model_0000019.pth", "model_0000034.pth"]
    assert (folder / "round1" / "last_checkpoint").read_text() == "model_0000034.pth"
    for checkpoint in folder.rglob("*.pth"):
        checkpoint.unlink()


def test_predictions_are_imported_evaluated_and_compared(
    trained, dataset, pseudo, tmp_path, capsys
):
    from promerge_fo.dataset.evaluation.comparison import compare_fields
    from promerge_fo.dataset.evaluation.evaluate import evaluate_instances
    from promerge_fo.dataset.exchange.imports import import_predictions
    from promerge_fo.detector import predict

    path = tmp_path / "coco_instances_results.json"
    report = predict(trained, dataset, path, device="cpu", num_workers=0)
    assert (report.images, report.failed) == (6, ())
    found = json.loads(path.read_text())
    assert len(found) == report.predictions > 20
    assert {p["category_id"] for p in found} == {1}
    assert sorted({p["image_id"] for p in found}) == [1, 2, 3, 4, 5, 6]
    for number in range(1, 7):
        scores = [p["score"] for p in found if p["image_id"] == number]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) <= 100

    # the same images by their annotation file give the same predictions; one that is gone, none
    content = json.loads(pseudo.read_text())
    gone = {"id": 99, "file_name": "gone.jpg", "height": 9, "width": 9}
    content["images"].insert(2, gone)
    listed = tmp_path / "listed.json"
    listed.write_text(json.dumps(content))
    root = str(Path(dataset.first().filepath).parent)
    arguments = ["--output", str(tmp_path / "again.json"), "--device", "cpu", "--image-root", root]
    assert (
        main(["predict", str(trained / "round1" / "model_final.pth"), str(listed), *arguments]) == 1
    )
    printed = capsys.readouterr().out
    assert f"{len(found)} predictions on 6 images\n1 images could not be read:" in printed
    assert "gone.jpg does not exist" in printed
    assert json.loads((tmp_path / "again.json").read_text()) == found

    imported = import_predictions(dataset, path, "promerge_plus", overwrite=True)
    assert (imported.labels, imported.unmatched, imported.skipped) == (len(found), 0, {})
    evaluate_instances(dataset, "promerge_plus", gt_field="promerge", eval_key="plus")
    recall = dataset.load_evaluation_results("plus").metrics()["segm"]["AR100"]
    assert 0 < recall < 100
    comparison = compare_fields(dataset, ["promerge", "promerge_plus"], gt_field="ground_truth")
    assert "promerge_plus" in str(comparison)


def test_a_kill_just_before_the_last_file(trained, pseudo, capsys):
    import torch

    folder = trained / "round1"
    final = folder / "model_final.pth"
    before = torch.load(final, weights_only=True)["model"]
    final.unlink()
    (folder / "last_checkpoint").write_text("model_0000099.pth")
    assert main(command(pseudo, trained)) == 0
    after = torch.load(final, weights_only=True)["model"]
    assert all((before[name] == after[name]).all() for name in before)
    assert len(losses(trained)) == 100


def test_a_second_round_is_trained_on_confident_predictions(trained, pseudo, capsys, monkeypatch):
    from promerge_fo.detector import loop

    real, started_from = loop.load_detector, []

    def load_detector(model, state, path):
        started_from.append(path)
        real(model, state, path)

    monkeypatch.setattr(loop, "load_detector", load_detector)
    assert main([*command(pseudo, trained), "--rounds", "2"]) == 0
    printed = capsys.readouterr().out
    assert "round 1 of 2 is done" in printed
    second = trained / "round2"
    assert (second / "model_final.pth").is_file()
    assert len(losses(trained, 2)) == 100
    old = json.loads(pseudo.read_text())
    new = json.loads((second / "pseudo_labels.json").read_text())
    assert [i["file_name"] for i in new["images"]] == [i["file_name"] for i in old["images"]]
    sure = [a for a in new["annotations"] if "score" in a]
    assert min(a["score"] for a in sure) >= 0.05
    assert len(new["annotations"]) - len(sure) <= len(old["annotations"])
    assert started_from == [trained / "round1" / "model_final.pth"]


def test_a_folder_of_another_training_is_refused(trained, pseudo, tmp_path, capsys):
    assert main([*command(pseudo, trained), "--learning-rate", "0.01"]) == 2
    error = capsys.readouterr().err
    assert f"{trained} holds a training of other config; give another folder" in error
    (tmp_path / "notes.txt").write_text("mine")
    assert main(command(pseudo, tmp_path)) == 2
    assert "is not empty, and holds no training" in capsys.readouterr().err


def test_a_start_that_failed_does_not_hold_the_folder(detectron2, pseudo, tmp_path, capsys):
    import torch

    torch.save({"features.0.weight": torch.zeros(2)}, tmp_path / "alexnet.pth")
    call = [x for x in command(pseudo, tmp_path / "out") if x != "--from-scratch"]
    for weights, words in (
        ("dino.pkl", "dino.pkl is a pickle"),
        ("dino.pth", "dino.pth does not exist. DINO's ResNet-50 is published at https"),
        ("alexnet.pth", "no tensor of a ResNet"),
    ):
        assert main([*call, "--weights", str(tmp_path / weights)]) == 2
        assert words in capsys.readouterr().err
    assert main([*call, "--weights", str(tmp_path / "alexnet.pth"), "--iterations", "9"]) == 2
    assert "no tensor of a ResNet" in capsys.readouterr().err


def test_the_last_finished_round_is_taken(tmp_path):
    from promerge_fo.detector.prediction import find_detector

    for number in (1, 2, 10, 11):
        (tmp_path / f"round{number}").mkdir()
        if number < 11:
            (tmp_path / f"round{number}" / "model_final.pth").touch()
    assert find_detector(tmp_path) == tmp_path / "round10" / "model_final.pth"
    assert find_detector(tmp_path / "x.pth") == tmp_path / "x.pth"


def test_what_is_no_detector_is_refused(detectron2, pseudo, tmp_path, capsys):
    import torch

    assert main(["predict", str(tmp_path), str(pseudo)]) == 2
    assert "holds no trained detector" in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "cutler.pkl"), str(pseudo)]) == 2
    assert "cutler.pkl is a pickle" in capsys.readouterr().err
    torch.save({"conv1.weight": torch.zeros(2)}, tmp_path / "other.pth")
    assert main(["predict", str(tmp_path / "other.pth"), str(pseudo)]) == 2
    assert "is of another network" in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "other.pth"), "nowhere"]) == 2
    assert "there is no dataset 'nowhere'" in capsys.readouterr().err
