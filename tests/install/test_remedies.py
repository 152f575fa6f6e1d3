"""Each trouble comes with what to do about it on this system."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from promerge_fo.install import doctor, mongod, remedies

SYSTEMS = ("linux", "darwin", "win32")


def each(*words):
    return pytest.mark.parametrize(("name", "words"), zip(SYSTEMS, words, strict=True))


@pytest.fixture
def system(monkeypatch):
    """``system(name, processor, *commands)``: the system that this one seems to be."""

    def become(name, processor="x86_64", *commands):
        monkeypatch.setattr(sys, "platform", name)
        monkeypatch.setattr(remedies.platform, "machine", lambda: processor)
        monkeypatch.setattr(remedies.shutil, "which", lambda c: c if c in commands else None)

    return become


def torch_of(cuda=None, mps_built=False, mps=False):
    return SimpleNamespace(
        cuda=SimpleNamespace(is_available=lambda: False),
        version=SimpleNamespace(cuda=cuda),
        backends=SimpleNamespace(
            mps=SimpleNamespace(is_built=lambda: mps_built, is_available=lambda: mps)
        ),
        get_num_threads=lambda: 8,
    )


@each("apt install g++", "xcode-select --install", "BuildTools")
def test_a_compiler(system, monkeypatch, name, words):
    system(name)
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    finding = doctor._reference_crf()
    assert finding.state == "note"
    assert words in finding.remedy


@each("install MongoDB 6.0", "brew tap mongodb/brew", "winget install")
def test_a_database_server(system, monkeypatch, tmp_path, name, words):
    place = tmp_path / "mongod"
    monkeypatch.setattr(mongod, "mongod_location", lambda: place)
    monkeypatch.delenv("FIFTYONE_DATABASE_URI", raising=False)
    system(name)
    finding = doctor._database()
    assert (finding.state, finding.detail) == ("problem", f"no mongod at {place}")
    assert f"if it finds none: {words}" in finding.remedy
    assert f"without a network: copy a mongod of this system to {place}" in finding.remedy


@each("apt install libcurl4", "xattr -d com.apple", "VCRedist")
def test_a_database_server_that_does_not_run(system, monkeypatch, tmp_path, name, words):
    place = tmp_path / "mongod"
    place.write_text("#!/bin/sh\nexit 1\n")
    place.chmod(0o755)
    monkeypatch.setattr(mongod, "mongod_location", lambda: place)
    monkeypatch.setattr(mongod, "mongod_version", lambda path: None)
    monkeypatch.delenv("FIFTYONE_DATABASE_URI", raising=False)
    system(name)
    finding = doctor._database()
    assert (finding.state, finding.detail) == ("problem", f"{place} does not run")
    assert words in finding.remedy


@pytest.mark.parametrize(
    ("name", "processor", "commands", "torch", "words"),
    [
        ("linux", "x86_64", (), torch_of(), ""),
        ("linux", "x86_64", ("nvidia-smi",), torch_of(), "this torch is built for the CPU: pip"),
        ("win32", "AMD64", ("nvidia-smi",), torch_of(), "--index-url https://download.pytorch"),
        ("linux", "x86_64", ("nvidia-smi",), torch_of(cuda="12.8"), "one for CUDA 12.8"),
        ("darwin", "x86_64", (), torch_of(), "this Python is made for Intel"),
        ("darwin", "arm64", (), torch_of(), "built without Apple's GPU"),
        ("darwin", "arm64", (), torch_of(mps_built=True), "update macOS"),
    ],
)
def test_why_there_is_no_gpu(system, monkeypatch, name, processor, commands, torch, words):
    system(name, processor, *commands)
    monkeypatch.setitem(sys.modules, "torch", torch)
    finding = doctor._device()
    assert finding.state == "note"
    assert finding.detail == "no GPU that torch can use; the CPU, with 8 threads, does all"
    said, slow, _ = finding.remedy.partition("ViT-B/8 takes seconds an image on a CPU")
    assert slow
    assert words in said
    assert bool(words) == bool(said)


def test_apples_gpu_is_no_trouble(system, monkeypatch):
    system("darwin", "arm64")
    monkeypatch.setitem(sys.modules, "torch", torch_of(mps_built=True, mps=True))
    finding = doctor._device()
    assert (finding.state, finding.remedy) == ("ok", "")
    assert "Apple's GPU encodes, in float32; the rest runs on the CPU" in finding.detail


def test_a_torch_that_cannot_be_loaded(system):
    system("win32", "AMD64")
    error = OSError("[WinError 126] The specified module could not be found")
    assert remedies.packages_missing(error).startswith("winget install Microsoft.VCRedist")
    system("darwin", "x86_64")
    assert "not made for Intel Macs" in remedies.packages_missing(ImportError("no torch"))
    system("linux")
    assert "pip install --no-index --find-links" in remedies.packages_missing(ImportError("no"))


@each("cp -r", "cp -r", "xcopy /e")
def test_a_closed_network(system, monkeypatch, name, words):
    """Nothing listens at that port, so that the connection is refused."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *given: None)
    system(name)
    finding = doctor._weights()
    assert finding.state == "note"
    assert "; http://127.0.0.1:9 cannot be reached" in finding.detail
    for text in (words, "hf download timm/vit_base", constants.HF_HUB_CACHE, "encoder='texture'",
                 "HTTPS_PROXY", "HF_ENDPOINT"):  # fmt: skip
        assert text in finding.remedy
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in doctor._weights().detail


@each("export HOME=", "export HOME=", "$env:USERPROFILE")
def test_a_home_that_cannot_be_written_to(system, monkeypatch, tmp_path, name, words):
    """A file where the home would be: nobody can make a folder in it, root neither."""
    home = Path(tmp_path, "home")
    home.touch()
    monkeypatch.setattr(doctor.Path, "home", lambda: home)
    for variable in (*doctor._THERE, "FIFTYONE_DATABASE_URI", "HF_HUB_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    system(name)
    finding = doctor._folders()
    assert finding.state == "problem"
    assert f"{home} cannot be written to; there would be FiftyOne's" in finding.detail
    assert words in finding.remedy
    assert finding.remedy.endswith(", ".join(doctor._THERE))
    monkeypatch.setenv("FIFTYONE_DATABASE_URI", "mongodb://somewhere")
    finding = doctor._folders()
    assert finding.state == "note"
    assert "FIFTYONE_DATABASE_DIR" not in finding.remedy
    for variable in doctor._THERE:
        monkeypatch.setenv(variable, str(tmp_path))
    assert doctor._folders().state == "ok"


def test_a_home_that_nobody_knows(monkeypatch):
    def unknown():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(doctor.Path, "home", unknown)
    assert "the home is not known" in doctor._folders().detail


def test_where_links_are_not_allowed_the_server_is_copied(monkeypatch, tmp_path):
    """Windows lets few users make symbolic links."""
    found, target = tmp_path / "system" / "mongod", tmp_path / "fiftyone" / "mongod"
    found.parent.mkdir()
    found.write_text("#!/bin/sh\necho 'db version v7.0.1'\n")
    found.chmod(0o755)

    def forbidden(*given, **options):
        raise OSError("[WinError 1314] A required privilege is not held by the client")

    monkeypatch.setattr(mongod, "mongod_location", lambda: target)
    monkeypatch.setattr(mongod.shutil, "which", lambda name: str(found))
    monkeypatch.setattr(mongod.Path, "symlink_to", forbidden)
    assert mongod.install_mongod() == target
    assert mongod.mongod_version(target) == (7, 0, 1)
    assert not target.is_symlink()
