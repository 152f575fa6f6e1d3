"""Losses as a training writes them: read while it writes, thinned, cut off."""

import json

import numpy as np
import pytest

from promerge_fo.detector import DetectorConfig, read_losses
from promerge_fo.detector.losses import cut_losses


@pytest.fixture
def training(tmp_path):
    """A folder of two rounds of 10 iterations: one done, the other in its third."""
    config = DetectorConfig(iterations=10).to_dict()
    (tmp_path / "training.json").write_text(json.dumps({"config": config}))
    for number, count in ((1, 10), (2, 2)):
        folder = tmp_path / f"round{number}"
        folder.mkdir()
        lines = [
            json.dumps({"iteration": k, "total_loss": 10.0 - k, "loss_mask": 0.5, "lr": 0.005})
            for k in range(count)
        ]
        (folder / "losses.jsonl").write_text("".join(line + "\n" for line in lines))
    (tmp_path / "round1" / "model_final.pth").touch()
    with (tmp_path / "round2" / "losses.jsonl").open("a") as file:
        file.write('{"iteration": 2, "total')  # being written
    return tmp_path


def test_rounds_are_read_as_far_as_they_are(training):
    first, second = read_losses(training).values()
    assert first.iterations.tolist() == list(range(10))
    assert first.values["total_loss"].tolist() == [10.0 - k for k in range(10)]
    assert set(first.values) == {"total_loss", "loss_mask", "lr"}
    assert (first.wanted, first.finished) == (10, True)
    assert second.iterations.tolist() == [0, 1]
    assert not second.finished
    assert str(first) == ("10 of 10 iterations, loss 10.00 in the first tenth and 1.00 in the last")
    assert str(second).startswith("2 of 10 iterations, loss 10.00")


def test_means_of_consecutive_iterations(training):
    first = read_losses(training)[1]
    thin = first.thinned(4)  # of 2, 3, 2 and 3 iterations
    assert thin.iterations.tolist() == [0.5, 3, 5.5, 8]
    assert thin.values["total_loss"].tolist() == [9.5, 7, 4.5, 2]
    assert np.allclose(thin.values["loss_mask"], 0.5)
    assert first.thinned(10) is first


def test_a_value_that_a_line_lacks(training):
    with (training / "round1" / "losses.jsonl").open("a") as file:
        file.write('{"iteration": 10, "total_loss": 3.0}\n')
    first = read_losses(training)[1]
    assert first.values["total_loss"][-1] == 3
    assert np.isnan(first.values["loss_mask"]).tolist() == [False] * 10 + [True]


def test_a_round_that_has_just_begun(training):
    (training / "round2" / "losses.jsonl").write_text("")
    begun = read_losses(training)[2]
    assert str(begun) == "0 of 10 iterations"
    assert begun.thinned(5) is begun


def test_what_is_no_training_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no training.*training\.json"):
        read_losses(tmp_path)
    (tmp_path / "training.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="holds no training"):
        read_losses(tmp_path)


def test_what_is_trained_again_is_cut(training):
    path = training / "round1" / "losses.jsonl"
    before = path.read_text().splitlines()
    cut_losses(path, 4)
    assert path.read_text().splitlines() == before[:4]
    path = training / "round2" / "losses.jsonl"
    cut_losses(path, 5)  # a line that was cut off goes
    assert path.read_text().splitlines() == before[:2]
    cut_losses(training / "round3" / "losses.jsonl", 0)
    assert not (training / "round3").exists()
