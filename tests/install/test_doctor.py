"""``promerge doctor``: each line as soon as it is known, and nothing heavy before the last ones."""

from __future__ import annotations

import os
import subprocess
import sys
from threading import Timer

from tests.test_imports import run

SUBJECTS = [
    "Python", "folders", "weights", "reference CRF", "database", "FiftyOne",
    "PyTorch", "device", "CRF", "detector",
]  # fmt: skip


def subjects(said: str) -> list[str]:
    """What the lines of a doctor are about."""
    lines = (line.split(":")[0].split(maxsplit=1) for line in said.splitlines())
    return [words[1] for words in lines if words[0] in ("ok", "note", "problem")]


def test_a_line_is_printed_as_soon_as_it_is_known():
    code = """
import sys
from promerge_fo.cli import main
from promerge_fo.install import doctor

def examine():
    yield doctor.Finding("first", "note", "known", "a remedy")
    sys.stdin.readline()  # until the first one was read
    yield doctor.Finding("second", "ok", "known")

doctor.examine = examine
main(["doctor"])
"""
    buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=buffered,
    )  # fmt: skip
    timer = Timer(30, process.kill)  # where nothing comes, the lines below are empty
    timer.start()
    assert process.stdout.readline() == "    note  first: known\n"
    assert process.stdout.readline().endswith("-> a remedy\n")
    timer.cancel()
    assert process.communicate("\n") == ("      ok  second: known\n", None)


def test_what_imports_torch_is_looked_at_in_another_process_and_comes_last(fo):
    code = """
from promerge_fo.cli import main
main(["doctor"])
assert not {"torch", "timm", "numba"} & sys.modules.keys()
"""
    assert subjects(run(code, ())) == SUBJECTS


def test_a_torch_that_kills_its_process_leaves_the_other_lines(fo, tmp_path):
    (tmp_path / "timm.py").write_text("import os\nos._exit(11)\n")
    done = subprocess.run(
        [sys.executable, "-m", "promerge_fo", "doctor"], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert subjects(done.stdout) == SUBJECTS
    assert " problem  PyTorch: the process that looked at it died\n" in done.stdout
    said = " ".join(done.stdout.split())
    assert f'-> {sys.executable} -c "import torch, torchvision, timm, numba" shows where' in said


def test_a_torch_and_torchvision_that_are_no_pair_are_told(fo, tmp_path):
    (tmp_path / "torchvision.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "promerge_fo", "doctor"], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert " problem  PyTorch: timm cannot be imported here (RuntimeError: operator" in done.stdout
    assert "torch and torchvision must be builds for each other" in done.stdout
    assert " ok  CRF: refines a white square" in done.stdout
