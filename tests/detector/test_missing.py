"""Without detectron2: one clear message, and everything else works."""

import sys

import pytest

from promerge_fo.cli import main
from promerge_fo.detector import DetectorConfig, predict, require_detectron2, requirement, train


@pytest.fixture
def absent(monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "detectron2"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "detectron2", None)


WORDS = r"the detector needs detectron2\.[\s\S]*pip install --no-build-isolation git\+https"


def test_the_message_says_how_to_get_it(absent, tmp_path):
    for call in (
        require_detectron2,
        lambda: train(tmp_path / "a.json", tmp_path / "out", DetectorConfig()),
        lambda: predict(tmp_path / "model.pth", tmp_path / "a.json"),
    ):
        with pytest.raises(ImportError, match=WORDS):
            call()
    assert not (tmp_path / "out").exists()


@pytest.fixture
def machine(monkeypatch):
    """``machine(system, processor, executable, compiler)``: this machine, as far as is asked."""

    def become(system, processor, executable, compiler=True):
        monkeypatch.setattr(requirement.sys, "platform", system)
        monkeypatch.setattr(requirement.sys, "executable", executable)
        monkeypatch.setattr(requirement.platform, "machine", lambda: processor)
        monkeypatch.setattr(requirement.platform, "python_version", lambda: "3.13.2")
        monkeypatch.setattr(requirement.sys, "version_info", (3, 13, 2))
        monkeypatch.setattr(requirement, "version", lambda package: "2.9.1+cu128")
        monkeypatch.setattr(requirement.shutil, "which", lambda name: name if compiler else None)

    return become


GET = "-m pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2"
EXTRA = '-m pip install "promerge-fo[detector]" wheel ninja'
WHEELS = "https://miropsota.github.io/torch_packages_builder/detectron2/"


def test_one_line_says_what_to_run_on_linux(machine):
    machine("linux", "x86_64", "/venv/bin/python")
    assert requirement.way_to_detectron2() == (
        "for Python 3.13.2 and torch 2.9.1 on Linux: "
        f"/venv/bin/python {EXTRA} && /venv/bin/python {GET}"
    )
    machine("linux", "x86_64", "/venv/bin/python", compiler=False)
    assert requirement.way_to_detectron2() == (
        "for Python 3.13.2 and torch 2.9.1 on Linux: sudo apt install g++ && "
        f"/venv/bin/python {EXTRA} && /venv/bin/python {GET} (there is no C++ compiler yet). "
        f"Without a compiler: others build wheels, named pt2.9.1 and cp313, at {WHEELS}"
    )
    machine("linux", "aarch64", "/venv/bin/python", compiler=False)
    assert WHEELS not in requirement.way_to_detectron2()  # they are of x86-64


def test_one_line_says_what_to_run_on_macos(machine):
    machine("darwin", "arm64", "/Users/a b/.venv/bin/python")
    assert requirement.way_to_detectron2() == (
        "for Python 3.13.2 and torch 2.9.1 on macOS: "
        f'"/Users/a b/.venv/bin/python" {EXTRA} && '
        'CC=clang CXX=clang++ ARCHFLAGS="-arch arm64" '
        f'"/Users/a b/.venv/bin/python" {GET}'
    )
    machine("darwin", "arm64", "python", compiler=False)
    line = requirement.way_to_detectron2()
    assert ": xcode-select --install && python -m pip" in line
    assert WHEELS not in line


def test_one_line_says_what_to_run_on_windows(machine):
    machine("win32", "AMD64", r"C:\Python\python.exe")
    line = requirement.way_to_detectron2()
    assert line.startswith("for Python 3.13.2 and torch 2.9.1 on Windows: it is not supported on")
    assert "run wsl --install, and in its Linux pip install" in line
    assert f"named pt2.9.1 and cp313, at {WHEELS}" in line


@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_each_line_is_one_and_names_the_way_around(machine, absent, system):
    machine(system, "x86_64", "python", compiler=False)
    reason = requirement.why_no_detectron2()
    assert "\n" not in reason
    assert "promerge export --format yolo" in reason


@pytest.mark.parametrize(
    "command",
    [
        ["train", "a.json", "--output", "out", "--from-scratch"],
        ["predict", "model.pth", "a.json"],
    ],
)
def test_the_commands_say_so(absent, command, capsys):
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("promerge: the detector needs detectron2.")
    assert "docs/detector.md" in error
    assert "Traceback" not in error


def test_help_teaches_every_setting(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for record in DetectorConfig.describe():
        assert "--" + record["name"].replace("_", "-") in text
        assert record["meaning"] in text


def test_weights_are_asked_for(capsys):
    with pytest.raises(SystemExit):
        main(["train", "a.json", "--output", "out"])
    assert "--weights --from-scratch" in capsys.readouterr().err


def test_the_doctor_knows(absent, monkeypatch):
    from promerge_fo.install import doctor

    finding = doctor._detector()
    assert finding.state == "note"
    assert "docs/detector.md" in finding.remedy
