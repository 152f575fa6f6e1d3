"""Without detectron2: one clear message, and everything else works."""

import sys

import pytest

from promerge_fo.cli import main
from promerge_fo.detector import DetectorConfig, predict, require_detectron2, train


@pytest.fixture
def absent(monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "detectron2"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "detectron2", None)


WORDS = r"the detector needs detectron2\.[\s\S]*pip install --no-build-isolation git\+https"


def test_the_message_says_how_to_get_it(absent, tmp_path):
    for call in (
        require_detectron2,
        lambda: train(tmp_path / "a.json", tmp_path / "out", DetectorConfig()),
        lambda: predict(tmp_path / "model.pth", tmp_path / "a.json"),
    ):
        with pytest.raises(ImportError, match=WORDS):
            call()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command",
    [
        ["train", "a.json", "--output", "out", "--from-scratch"],
        ["predict", "model.pth", "a.json"],
    ],
)
def test_the_commands_say_so(absent, command, capsys):
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("promerge: the detector needs detectron2.")
    assert "docs/detector.md" in error
    assert "Traceback" not in error


def test_help_teaches_every_setting(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for record in DetectorConfig.describe():
        assert "--" + record["name"].replace("_", "-") in text
        assert record["meaning"] in text


def test_weights_are_asked_for(capsys):
    with pytest.raises(SystemExit):
        main(["train", "a.json", "--output", "out"])
    assert "--weights --from-scratch" in capsys.readouterr().err


def test_the_doctor_knows(absent, monkeypatch):
    from promerge_fo.install import doctor

    finding = doctor._detector()
    assert finding.state == "note"
    assert "docs/detector.md" in finding.remedy
