"""What a release is checked for: the checks find what they look for, and there is nothing of it."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("release_check", ROOT / ".ci/release_check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_link_of_the_pages_leads_somewhere(check):
    pages = check.pages()
    assert {"README.md", "CHANGELOG.md", "architecture.md", "export.md"} <= {p.name for p in pages}
    assert sum(len(list(check.links(p.read_text("utf-8")))) for p in pages) > 80
    assert [line for page in pages for line in check.broken_links(page)] == []


def test_links_that_lead_nowhere_are_found(check, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/b.md").write_text("# One & two\n## `x`: [y](b.md)!\n# One & two\n")
    page = tmp_path / "README.md"
    page.write_text(
        "[a](docs/b.md#one--two) [b](docs/b.md#x-y) [c](docs/b.md#one--two-1) [d](#head)\n"
        '# Head\n<img src="docs/c.png"> [e](docs/b.md#three) [f](../out.md) `[g](code)`\n'
        "[h](http://example.org) [i](https://nowhere/x) [j](https://example.org/a#b)\n"
        '![k](docs/d.png "title") <!-- [l](comment) -->\n```\n[m](fence)\n```\n[n]: docs/e.md\n'
    )
    assert [line.removeprefix("README.md: ") for line in check.broken_links(page, tmp_path)] == [
        "docs/c.png is not there",
        "docs/b.md#three: no heading has this anchor",
        "../out.md is not there",
        "http://example.org is neither https nor mailto",
        "https://nowhere/x has no host",
        "docs/d.png is not there",
        "docs/e.md is not there",
    ]


def test_an_sdist_has_all_of_the_library(check, tmp_path):
    """Built as pip builds it, from a copy of what Git knows."""
    wanted = check.wanted_in_package(ROOT)
    for name in (*wanted, "pyproject.toml", "README.md", "LICENSE"):
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "copy" / name)
    code = "from setuptools.build_meta import build_sdist; import sys; build_sdist(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path / "copy", check=True,
        capture_output=True,
    )  # fmt: skip
    (archive,) = tmp_path.glob("*.tar.gz")
    names = check.names_in(archive)
    also = {"README.md", "LICENSE", "pyproject.toml", "PKG-INFO"}
    assert check.wrong_contents(names, wanted, also, only=False) == []
    assert {
        "promerge_fo/py.typed",
        "promerge_fo/__init__.pyi",
        "promerge_fo/outlines.json",
    } <= names
    with tarfile.open(archive) as packed:
        (about,) = (m for m in packed.getmembers() if re.fullmatch(r"[^/]+/PKG-INFO", m.name))
        text = packed.extractfile(about).read().decode("utf-8")
    assert "Requires-Python: <3.15,>=3.10" in text
    for minor in range(10, 15):
        assert f"Classifier: Programming Language :: Python :: 3.{minor}\n" in text


def test_what_is_missing_or_does_not_belong_is_found(check):
    wanted = {"promerge_fo/a.py", "promerge_fo/b.json"}
    names = {"promerge_fo/a.py", "promerge_fo-1.dist-info/METADATA", "tests/c.py",
             "promerge_fo/__pycache__/a.pyc"}  # fmt: skip
    assert check.wrong_contents(names, wanted, set(), only=True) == [
        "promerge_fo/b.json is missing",
        "promerge_fo/__pycache__/a.pyc does not belong there",
        "tests/c.py does not belong there",
    ]
    assert check.wrong_contents(names, wanted, {"LICENSE"}, only=False) == [
        "LICENSE is missing",
        "promerge_fo/b.json is missing",
        "promerge_fo/__pycache__/a.pyc does not belong there",
    ]
