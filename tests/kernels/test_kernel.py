"""Compiled code is kept where it can be, and its place is no reason to fail."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = """
import numpy as np
from promerge_fo.kernels.connected import find_components
print(len(find_components(np.eye(3, dtype=bool)[None]).sizes))
"""


@pytest.fixture
def run(tmp_path):
    """Runs a kernel of a copy of the package, in a process to which the usual places are closed.

    A file lies where numba would make a folder: no user may write there, root neither.
    """
    package = tmp_path / "site-packages" / "promerge_fo"
    package.mkdir(parents=True)
    shutil.copytree(ROOT / "promerge_fo" / "kernels", package / "kernels")
    shutil.rmtree(package / "kernels" / "__pycache__", ignore_errors=True)
    (package / "__init__.py").touch()
    (package / "kernels" / "__pycache__").touch()
    (tmp_path / "tmp").mkdir()

    def started(**environment):
        environment = {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(package.parent),
            "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/dev/null", "TMPDIR": str(tmp_path / "tmp"),
            **environment,
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", RUN], env=environment, capture_output=True, text=True,
            cwd=tmp_path, check=True,
        )  # fmt: skip
        assert int(done.stdout) == 3
        return done.stderr

    return started


def test_kernels_are_kept_among_the_temporary_files(run, tmp_path):
    (folder,) = (tmp_path / "tmp" / f"promerge-kernels-{os.getuid()}",)
    said = run()
    assert len(said.splitlines()) == 1
    assert f"so compiled kernels are kept in {folder}; NUMBA_CACHE_DIR names another" in said
    assert folder.stat().st_mode & 0o777 == 0o700
    made = {path: path.stat().st_mtime_ns for path in folder.rglob("*.nb[ic]")}
    assert any(path.suffix == ".nbc" for path in made)
    run()  # reads them
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.nb[ic]")} == made
    assert run(NUMBA_CACHE_DIR=str(tmp_path / "mine")) == ""
    assert any((tmp_path / "mine").rglob("*.nbc"))


def test_without_any_place_kernels_are_compiled_in_memory(run, tmp_path):
    folder = tmp_path / "tmp" / f"promerge-kernels-{os.getuid()}"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)  # others may put code there
    said = run()
    assert len(said.splitlines()) == 1
    assert "so kernels are compiled in memory, anew by each process; NUMBA_CACHE_DIR names" in said
    assert not any(folder.iterdir())


def test_a_cache_that_cannot_be_written_or_read_costs_time_alone(run, tmp_path):
    place = tmp_path / "mine"
    assert run(NUMBA_CACHE_DIR=str(place)) == ""
    for path in place.rglob("*.nb[ic]"):
        path.write_bytes(b"cut off")
    said = run(NUMBA_CACHE_DIR=str(place))
    assert "a compiled kernel is not kept on disk, or not read (" in said
    assert "Traceback" not in said


def test_all_kernels_are_made_in_the_same_way():
    wrong = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "promerge_fo").rglob("*.py")
        if re.search(r"^from numba import .*jit|numba\.n?jit", path.read_text(), re.MULTILINE)
    ]
    assert wrong == ["promerge_fo/kernels/__init__.py"]
