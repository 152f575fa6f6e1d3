"""What Windows has differently, as far as it can be seen without it: text, processes, paths."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
from PIL import Image

from promerge_fo.dataset.exchange import image_index
from promerge_fo.dataset.exchange.image_index import ImageIndex
from promerge_fo.encoder import load_encoder
from promerge_fo.files import require_inside
from promerge_fo.pipeline import Pipeline
from tests.test_architecture import ROOT, parsed

CODE = [
    path
    for folder in ("promerge_fo", "operators", "plugin")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
#: What Windows lacks, or has without an effect.
POSIX = {
    "fork", "forkpty", "os.kill", "killpg", "uname", "getuid", "geteuid", "getgid", "setsid",
    "chown", "sched_getaffinity", "statvfs", "mkfifo", "nice", "wait3", "wait4", "SIGKILL",
    "SIGHUP", "SIGALRM", "SIGUSR1", "setitimer", "fcntl", "resource", "pwd", "grp", "termios",
    "pty", "start_new_session", "preexec_fn",
}  # fmt: skip
#: Where they may be, because the code asks first whether they are there or can do without.
WITH_A_WAY_AROUND = {
    "promerge_fo/kernels/__init__.py": {"getuid"},
    "promerge_fo/machine.py": {"sched_getaffinity"},
    "promerge_fo/install/doctor.py": {"start_new_session"},
}


def calls(path: Path) -> Iterator[tuple[str, str, ast.Call]]:
    """Each call: what is called, its last part, and the call."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            yield called, called.rpartition(".")[2], node


def test_text_is_utf8_whatever_the_system_takes_otherwise():
    """Python takes the code page of the country on Windows, where it is not told."""
    bare = []
    for path in CODE:
        for called, name, call in calls(path):
            binary = any("b" in str(a.value) for a in call.args if isinstance(a, ast.Constant))
            opens = name in ("read_text", "write_text") or (name == "open" and not binary)
            others = called.startswith(("Image.", "os.", "wheel."))
            if opens and not others and "encoding" not in {k.arg for k in call.keywords}:
                bare.append(f"{path.relative_to(ROOT)}:{call.lineno}: {called}")
    assert bare == []


def test_nothing_is_only_for_posix_but_where_there_is_a_way_around():
    found: dict[str, set[str]] = {}
    for path in CODE:
        names = set()
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Attribute):
                names.add(ast.unparse(node) if node.attr == "kill" else node.attr)
            elif isinstance(node, ast.keyword):
                names.add(node.arg)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                names |= {alias.name for alias in node.names}
        if used := names & POSIX:
            found[path.relative_to(ROOT).as_posix()] = used
    assert found == WITH_A_WAY_AROUND


def test_no_path_is_put_together_or_taken_apart_by_hand():
    """ "/tmp" and the like are Linux's; names of files are pathlib's business."""
    wrong = []
    for path in CODE:
        for node in ast.walk(parsed(path)):
            text = node.value if isinstance(node, ast.Constant) else None
            if str(text).startswith(("/tmp", "/dev/", "/proc", "/var/")):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: {text}")
        for called, name, call in calls(path):
            slash = any(isinstance(a, ast.Constant) and a.value == "/" for a in call.args)
            if name in ("split", "rsplit", "partition", "rpartition") and slash:
                wrong.append(f"{path.relative_to(ROOT)}:{call.lineno}: {called}")
    assert [each for each in wrong if "coco_url" not in each] == []  # a URL has slashes anywhere


def test_images_are_read_by_processes_that_are_spawned(tmp_path):
    """Windows and macOS have no fork: all that a worker gets is pickled, and nothing inherited."""
    import torch

    from promerge_fo.detector.prediction import _Images

    Image.fromarray(np.full((48, 64, 3), 9, np.uint8)).save(tmp_path / "4.png")
    (tmp_path / "x.png").write_bytes(b"no image")
    paths = [str(tmp_path / "4.png"), str(tmp_path / "x.png")]
    prepare = Pipeline(load_encoder("texture", device="cpu", image_size=32), threads=1).prepare
    with get_context("spawn").Pool(1) as pool:
        good, bad = pool.map(prepare, paths)
    assert (good.pixels.shape, good.size) == ((32, 32, 3), (48, 64))
    assert "x.png" in bad.error
    loader = torch.utils.data.DataLoader(
        _Images(paths), batch_size=None, num_workers=1, multiprocessing_context="spawn"
    )
    (first, image), (second, reason) = loader
    assert (first, second) == (0, 1)
    assert tuple(image.shape) == (48, 64, 3)
    assert "x.png" in reason


def test_paths_of_windows_are_found_by_names_with_either_slash(monkeypatch):
    monkeypatch.setattr(image_index, "PurePath", PureWindowsPath)
    index = object.__new__(ImageIndex)
    index._paths = [r"C:\photos\a\1.jpg", r"C:\photos\b\1.jpg", r"D:\two.jpg"]
    index._numbers = {}
    found = [index.find(name) for name in ("b/1.jpg", r"a\1.jpg", "two", "1.jpg", "two.jpg")]
    assert found == [1, 0, 2, None, 2]


@pytest.mark.parametrize(
    "name", [r"..\a.jpg", "../a.jpg", r"C:\a.jpg", r"\\server\share\a.jpg", "/a.jpg", r"b\..\..\a"]
)
def test_names_that_lead_out_of_a_folder_are_refused_on_every_system(name):
    with pytest.raises(ValueError, match="leads out of the folder"):
        require_inside(name)


def test_names_in_exports_have_slashes(monkeypatch):
    from promerge_fo.dataset.exchange import export

    monkeypatch.setattr(export, "Path", PureWindowsPath)
    assert export._name(r"C:\photos\a\1.jpg", PureWindowsPath(r"C:\photos")) == "a/1.jpg"
