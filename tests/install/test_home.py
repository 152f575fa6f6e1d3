"""A home that nobody can write to: everything works whose place is named elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = """
import sys
from pathlib import Path
from promerge_fo.cli import main

photos, out = sys.argv[1:]
name = "nowhere-" + str(Path(out).parent.name)
assert main(["segment", photos, "--name", name, "--encoder", "texture", "--image-size", "64"]) == 0
assert main(["export", name, out, "--min-area", "0"]) == 0
assert main(["plugin", "install"]) == 0
import fiftyone as fo
fo.delete_dataset(name)
"""


def test_segment_export_and_install_without_a_home(fo, photographs, tmp_path):
    """A file lies where folders would be made: no user may write there, root neither."""
    (tmp_path / "home").touch()
    environment = {
        **{k: v for k, v in os.environ.items() if k != "XDG_CACHE_HOME"},
        "HOME": str(tmp_path / "home"),
        "FIFTYONE_PLUGINS_DIR": str(tmp_path / "plugins"),
        "PYTHONPATH": str(ROOT),
    }
    photos = (
        Path(photographs[0]).parent if not isinstance(photographs, (str, Path)) else photographs
    )
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(photos), str(tmp_path / "out.json")],
        env=environment, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "out.json").read_text())["images"]
    assert (tmp_path / "plugins" / "@promerge" / "promerge" / "fiftyone.yml").is_file()
    assert (tmp_path / "home").read_bytes() == b""


def test_plugins_that_cannot_be_put_anywhere(fo, tmp_path, monkeypatch):
    from promerge_fo.install.plugin import install_plugin

    (tmp_path / "file").touch()
    monkeypatch.setattr(fo.config, "plugins_dir", str(tmp_path / "file" / "plugins"))
    with pytest.raises(ValueError, match="cannot be written to .*set FIFTYONE_PLUGINS_DIR to"):
        install_plugin()
