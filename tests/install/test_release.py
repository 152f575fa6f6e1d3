"""What a release is checked for: the checks find what they look for, and there is nothing of it."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
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


@pytest.fixture(scope="module")
def archives(check, tmp_path_factory):
    """The sdist and the wheel, built as pip builds them, from a copy of what Git knows."""
    made = tmp_path_factory.mktemp("release")
    known = check.wanted_in_package(ROOT) | check.wanted_in_plugin(ROOT)
    for name in (*known, "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        (made / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, made / "copy" / name)
    code = "import setuptools.build_meta as b; b.build_sdist('..'); b.build_wheel('..')"
    subprocess.run([sys.executable, "-c", code], cwd=made / "copy", check=True, capture_output=True)
    (sdist,), (wheel,) = made.glob("*.tar.gz"), made.glob("*.whl")
    return sdist, wheel


def test_a_wheel_carries_the_plugin_which_is_installed_from_it(
    check, archives, fo, tmp_path, monkeypatch
):
    wanted = check.wanted_in_package(ROOT)
    plugin = check.wanted_in_plugin(ROOT)
    inside = {f"promerge_fo/install/app/{name}" for name in plugin}
    names = check.names_in(archives[1])
    assert check.wrong_contents(names, wanted | inside, set(), only=True) == []
    zipfile.ZipFile(archives[1]).extractall(tmp_path / "site-packages")
    module = tmp_path / "site-packages" / "promerge_fo" / "install" / "plugin.py"
    spec = importlib.util.spec_from_file_location("installed_plugin", module)
    installed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(installed)
    monkeypatch.setattr(fo.config, "plugins_dir", str(tmp_path / "plugins"))
    target = installed.install_plugin()
    assert {str(p.relative_to(target)) for p in target.rglob("*") if p.is_file()} == plugin


def test_an_sdist_has_all_of_the_library(check, archives):
    wanted = check.wanted_in_package(ROOT)
    archive, _ = archives
    names = check.names_in(archive)
    also = check.wanted_in_plugin(ROOT) | {
        "README.md", "LICENSE", "pyproject.toml", "setup.py", "PKG-INFO",
    }  # fmt: skip
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
