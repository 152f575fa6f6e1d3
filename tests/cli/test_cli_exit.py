"""What the exit status says, and what is said where there is nothing to do or to measure."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from promerge_fo.cli import main, runs
from tests.cli.options import SMALL, TEXTURE


@pytest.fixture
def broken(tmp_path):
    """A folder with two files that are no images."""
    folder = tmp_path / "broken"
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.jpg").write_bytes(b"no image")
    return folder


def test_where_every_image_failed_there_are_no_masks_to_look_at(fo, broken, tmp_path, capsys):
    out = tmp_path / "masks.json"
    for _ in range(2):  # the second time, nothing is left to do
        assert main(["segment", str(broken), "--output", str(out), *TEXTURE]) == 1
        said = capsys.readouterr()
        assert "2 images failed; --retry-failed runs them again" in said.err
        assert "masks.json: 0 masks of 0 images\n2 images are not in it: they cannot" in said.out
        assert "look at" not in said.out
    assert main(["export", str(broken), str(out)]) == 1
    assert "images left out: 2 unreadable" in capsys.readouterr().out


def test_images_without_any_label_are_no_success(fo, folder, monkeypatch, capsys):
    from promerge_fo.dataset.runs import segment
    from promerge_fo.dataset.runs.passes import Report

    monkeypatch.setattr(segment, "segment_dataset", lambda *_, **__: Report(unstored=5))
    assert main(["segment", str(folder), *TEXTURE]) == 1
    said = capsys.readouterr()
    assert "5 images have no labels, as the log says" in said.err
    assert "look at" not in said.out


@pytest.fixture
def without_objects(tmp_path, photographs):
    """A COCO file without annotations, and the folder of its images, as options."""
    with Image.open(photographs[0]) as image:
        width, height = image.size
    name = os.path.basename(photographs[0])  # noqa: PTH119
    entry = {"id": 1, "file_name": name, "width": width, "height": height}
    file = tmp_path / "truth.json"
    categories = [{"id": 1, "name": "fg"}]
    file.write_text(json.dumps({"images": [entry], "annotations": [], "categories": categories}))
    return ["--coco", str(file), "--images", os.path.dirname(photographs[0])]  # noqa: PTH120


@pytest.mark.parametrize("command", ["tune", "ablate", "reproduce"])
def test_without_ground_truth_nothing_is_run(
    fo, without_objects, tmp_path, monkeypatch, capsys, command
):
    folder = tmp_path / "kept"
    more = ["--encoder", "texture", "--folder", str(folder)]
    arguments = [*(["table3"] if command == "reproduce" else SMALL), *without_objects, *more]
    if command == "ablate":
        arguments += ["--vary", "stride=2,4"]
    assert main([command, *arguments]) == 2
    said = capsys.readouterr()
    assert "has ground truth: " in said.err
    assert "ground_truth" in said.err
    assert said.out == ""
    assert not folder.exists()


def test_what_cannot_be_measured_is_said_in_words(fo, photographs, tmp_path, capsys):
    dataset = fo.Dataset("photos")
    tune = ["tune", "--dataset", "photos", "--encoder", "texture", "--folder", str(tmp_path)]
    assert main(tune) == 2
    assert "there is no image to measure on: 'photos' is empty here" in capsys.readouterr().err
    for path in photographs:
        dataset.add_sample(fo.Sample(filepath=path, ground_truth=fo.Detections()))
    said = "no image of 'photos' has ground truth: the field 'ground_truth' has no object in any"
    evaluate = ["evaluate", "photos", "--label-field", "ground_truth"]
    compare = ["compare", "photos", "ground_truth", "ground_truth"]
    for command in (tune, evaluate, compare):
        assert main(command) == 2
        assert said in capsys.readouterr().err


def test_settings_that_failed_on_images_are_no_success(fo, broken, tmp_path, capsys):
    dataset = fo.Dataset("photos")
    truth = fo.Detections(detections=[fo.Detection(label="fg", bounding_box=[0, 0, 0.5, 0.5])])
    for number in range(2):
        path, size = str(broken / f"{number}.jpg"), fo.ImageMetadata(width=40, height=30)
        dataset.add_sample(fo.Sample(filepath=path, metadata=size, ground_truth=truth.copy()))
    data = ["--dataset", "photos", "--folder", str(tmp_path / "kept")]
    vary = ["--vary", "stride=2,4"]
    assert main(["ablate", *data, *vary, "--encoder", "texture", *SMALL]) == 1
    assert "2 images failed, as the log says" in capsys.readouterr().err


def replace_status(monkeypatch, function):
    function.__name__ = "status"
    monkeypatch.setattr(runs, "status", function)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "promerge: MemoryError: there was not enough memory"),
        (ValueError(), "promerge: ValueError, without a message"),
        (FileNotFoundError(2, "No such file", "x"), "promerge: x does not exist; check the path"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_message_is_empty(monkeypatch, capsys, error, words):
    def fail(**_):
        raise error

    replace_status(monkeypatch, fail)
    assert main(["status", "x"]) == 2
    assert capsys.readouterr().err == f"{words}\n"


def test_a_database_that_does_not_answer_is_told_in_a_line(monkeypatch, capsys):
    from pymongo.errors import AutoReconnect

    def fail(**_):
        raise AutoReconnect("connection refused")

    replace_status(monkeypatch, fail)
    assert main(["status", "x"]) == 2
    assert capsys.readouterr().err == "promerge: connection refused\n"


def test_faults_of_the_package_keep_their_traceback(monkeypatch):
    def fail(**_):
        raise KeyError("x")

    replace_status(monkeypatch, fail)
    with pytest.raises(KeyError):
        main(["status", "x"])


def test_names_that_cannot_be_shown_are_shown_as_bytes(tmp_path):
    odd = os.fsencode(tmp_path) + b"/caf\xe9.png"
    command = [sys.executable, "-X", "importtime", "-m", "promerge_fo", "explain", odd]
    done = subprocess.run([*command, "--encoder", "texture"], capture_output=True)
    assert done.returncode == 2
    assert b" PIL.Image\n" in done.stderr
    assert b" torch\n" not in done.stderr
    assert b"caf\\udce9.png does not exist; check the path" in done.stderr
    assert b"Traceback" not in done.stderr


def test_ctrl_c_in_a_destructor_is_heard():
    code = """
import os, signal, time
from promerge_fo import cli

class Gone:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

cli._own_process()
try:
    Gone()
    time.sleep(5)
except KeyboardInterrupt:
    print("stopped")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped\n", "")


@pytest.mark.parametrize("lost", [False, True], ids=["raised", "taken for an error"])
def test_ctrl_c_while_modules_are_imported(lost):
    """An import that is broken off may end in an error that knows nothing of Ctrl-C."""
    code = f"""
import os, signal, sys
from promerge_fo import cli

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                if {lost}:
                    raise ImportError("numpy's C-extensions failed")
                raise

sys.meta_path.insert(0, Slow())
sys.argv = ["promerge", "status", "x"]
sys.exit(cli.main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nstopped\n")
