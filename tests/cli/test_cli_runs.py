"""``promerge status`` and ``stop``, on runs of other processes."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time

import pytest

from promerge_fo.cli import main
from promerge_fo.dataset.runs import status
from promerge_fo.dataset.runs.resume import Failure
from promerge_fo.dataset.runs.status import Heartbeat, run_statuses
from tests.cli.options import TEXTURE
from tests.test_imports import run

PROMERGE = [sys.executable, "-m", "promerge_fo"]


@pytest.fixture
def going_on(fo, folder):
    """A run in another process, of more images than it can do while a test asks it to stop."""
    for number in range(1000):
        (folder / f"again-{number}.png").hardlink_to(folder / f"{number % 4}.png")
    with (folder.parent / "stderr.txt").open("w") as stderr:
        process = subprocess.Popen(
            [*PROMERGE, "segment", str(folder), "--name", "many", "--encoder", "texture"],
            stdout=subprocess.PIPE, stderr=stderr, text=True,
        )  # fmt: skip
    until = time.monotonic() + 60
    while not (
        fo.dataset_exists("many") and any(r.done for r in run_statuses(fo.load_dataset("many")))
    ):
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.2)
    yield process
    process.kill()
    process.communicate()


def test_stop_ends_a_run_in_another_process_and_waits_for_it(fo, folder, going_on, capsys):
    assert main(["stop", str(folder), "--label-field", "fine"]) == 0
    assert capsys.readouterr().out == "nothing to stop: no run of promerge segment goes on there\n"
    assert going_on.poll() is None
    assert main(["stop", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "many: the run on field 'promerge' is asked to stop\n" in said
    assert f"process {going_on.pid} on " in said
    assert "was stopped; run the same command again to go on" in said
    out, _ = going_on.communicate(timeout=60)
    assert going_on.returncode == 130
    assert "stopped; what was done is kept." in out
    done = int(re.search(r"done +(\d+) of 1,005 images", said)[1])
    dataset = fo.load_dataset("many")
    dataset.reload()
    assert 0 < done < 1005
    assert len(dataset.exists("promerge.run")) == done
    assert main(["stop", "many"]) == 0
    assert "nothing to stop" in capsys.readouterr().out


@pytest.mark.parametrize("pause", [0.0, 0.3, None], ids=str)
def test_ctrl_c_once_or_twice_ends_a_run_without_tracebacks(fo, folder, going_on, pause):
    going_on.send_signal(signal.SIGINT)
    if pause is not None:
        time.sleep(pause)
        going_on.send_signal(signal.SIGINT)
    out, _ = going_on.communicate(timeout=60)
    assert going_on.returncode == 130
    said = (folder.parent / "stderr.txt").read_text() + out
    assert "Traceback" not in said
    assert "KeyboardInterrupt" not in said
    if pause is None:
        assert "stopped; what was done is kept." in out
    else:
        assert "stopped" in said
    dataset = fo.load_dataset("many")
    dataset.reload()
    assert 0 < len(dataset.exists("promerge.run")) < 1005


def test_a_run_that_does_not_answer_is_not_said_to_be_stopped(fo, folder, monkeypatch, capsys):
    dataset = fo.Dataset("photos")
    dataset.add_sample(fo.Sample(filepath=str(folder / "0.png")))
    with Heartbeat(dataset, "promerge", "0" * 16, "local", 9, 0, lambda: (1, 0)):
        pass
    (last,) = run_statuses(dataset)
    gone = {**vars(last), "ended": None, "updated": time.time()}
    status.store(dataset).set("status promerge", gone)
    monkeypatch.setattr(status, "_LOST_AFTER_S", 1.0)
    assert main(["stop", "photos"]) == 1
    assert "if its process is gone, run the same command again" in capsys.readouterr().out


def test_an_image_that_failed_is_named_once():
    assert str(Failure("/a/x.png", "/a/x.png is no image")) == "/a/x.png is no image"
    assert str(Failure("/a/x.png", "out of memory")) == "/a/x.png: out of memory"


def test_it_is_said_where_all_images_that_failed_are_listed(fo, folder, capsys):
    for number in range(25):
        (folder / f"bad {number}.jpg").write_bytes(b"no image")
    assert main(["segment", str(folder), "--name", "my photos", *TEXTURE]) == 1
    said = capsys.readouterr().err
    assert said.count("failed: ") == 20
    assert (
        "26 images failed; --retry-failed runs them again, and promerge status 'my photos' "
        "--failed lists them all\n"
    ) in said
    assert main(["status", "my photos", "--failed"]) == 0
    assert capsys.readouterr().out.count(" is not an image") == 26


@pytest.mark.parametrize("arguments", [["segment"], []], ids=["segment", "promerge"])
def test_help_tells_the_exit_status(capsys, arguments):
    with pytest.raises(SystemExit):
        main([*arguments, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    wanted = "the exit status is 1" if arguments else "The exit status is 0; 1 if images failed"
    assert wanted in said


def test_what_makes_no_masks_imports_neither_torch_nor_encoders(fo, folder, tmp_path):
    assert main(["segment", str(folder), "--limit", "3", *TEXTURE]) == 0
    assert main(["segment", "photos", "--limit", "3", "--label-field", "truth", *TEXTURE]) == 0
    out = tmp_path / "out.json"
    commands = [
        ["status", str(folder), "--failed"],
        ["stop", str(folder)],
        ["evaluate", "photos", "--gt-field", "truth"],
        ["compare", "photos", "promerge", "truth", "--gt-field", "truth", "--resamples", "3"],
        ["export", "photos", str(out)],
        ["import", "photos", str(out), "--label-field", "again"],
    ]
    code = f"""
import promerge_fo.cli
for command in {commands}:
    assert promerge_fo.cli.main(command) == 0, command
assert not any(name.startswith("promerge_fo.encoder") for name in sys.modules)
"""
    assert "photos: field 'promerge', run " in run(code, ("torch", "torchvision", "timm"))
