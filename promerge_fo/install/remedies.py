"""What to do about a trouble, on this system: Linux, macOS or Windows.

Each function reads ``sys.platform`` when it is called, and imports nothing that is large.
"""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path
from typing import Any

__all__ = [
    "compiler",
    "gpu",
    "mongod_missing",
    "mongod_not_running",
    "packages_missing",
    "unwritable",
    "weights",
]

_CUDA_WHEELS = "https://download.pytorch.org/whl/cu128"


def _here(linux: str, macos: str, windows: str) -> str:
    return {"darwin": macos, "win32": windows}.get(sys.platform, linux)


def compiler() -> str:
    """How to get a C++ compiler."""
    return _here(
        "sudo apt install g++ (dnf install gcc-c++)",
        "xcode-select --install",
        "winget install Microsoft.VisualStudio.2022.BuildTools, with its C++ workload",
    )


def gpu(torch: Any) -> str:
    """Why torch uses no GPU here, and what to do about it; empty where there seems to be none.

    Args:
        torch: the module.
    """
    if sys.platform == "darwin":
        if platform.machine() != "arm64":
            return (
                "this Python is made for Intel: on a Mac with Apple's chip, install one for arm64 "
                "(it may run under Rosetta). "
            )
        if not torch.backends.mps.is_built():
            return (
                "this torch is built without Apple's GPU: "
                "pip install --force-reinstall torch torchvision. "
            )
        return "torch uses Apple's GPU from macOS 14 on: update macOS. "
    if shutil.which("nvidia-smi") is None:
        return ""
    if torch.version.cuda is None:
        return (
            "there is an NVIDIA driver, but this torch is built for the CPU: pip install "
            f"--force-reinstall torch torchvision --index-url {_CUDA_WHEELS}. "
        )
    return (
        f"there is an NVIDIA driver, but this torch wants one for CUDA {torch.version.cuda} "
        "(nvidia-smi shows what the driver has): update the driver. "
    )


def packages_missing(error: Exception) -> str:
    """What to do where torch or timm cannot be imported."""
    if sys.platform == "win32" and ("DLL" in str(error) or "WinError 126" in str(error)):
        return "winget install Microsoft.VCRedist.2015+.x64, and open a new terminal"
    if sys.platform == "darwin" and platform.machine() == "x86_64":
        return "torch 2.5 and later is not made for Intel Macs: use a Mac with Apple's chip"
    return (
        "pip install --force-reinstall torch torchvision timm; without a network: pip download "
        "them on a machine of this system and Python, and pip install --no-index --find-links"
    )


def weights(model: str, cache: str) -> str:
    """How to get weights without a network.

    Args:
        model: timm's name.
        cache: the folder of the Hugging Face cache.
    """
    copy = _here("cp -r", "cp -r", "xcopy /e")
    return (
        f"without a network: hf download timm/{model} on a machine that has one, and {copy} its "
        f"folder models--timm--{model} into {cache}; or "
        "checkpoint='dino_vitbase8_pretrain.pth'; or encoder='texture', which needs none. Behind a "
        "proxy: HTTPS_PROXY; with a mirror: HF_ENDPOINT"
    )


def mongod_missing(place: Path) -> str:
    """How to get a database server.

    Args:
        place: where FiftyOne looks for it.
    """
    install = _here(
        "install MongoDB 6.0 or newer (mongodb.com/try/download/community)",
        "brew tap mongodb/brew && brew install mongodb-community",
        "winget install MongoDB.Server",
    )
    return (
        f"promerge doctor --install-mongod; if it finds none: {install}, and run it again; without "
        f"a network: copy a mongod of this system to {place}; or set FIFTYONE_DATABASE_URI to a "
        "running server"
    )


def mongod_not_running(place: Path) -> str:
    """What to do about a database server that does not start."""
    return _here(
        "sudo apt install libcurl4 openssl, which it links to",
        f"xattr -d com.apple.quarantine {place}, if macOS blocks it",
        "winget install Microsoft.VCRedist.2015+.x64, which it links to",
    )


def unwritable(names: list[str]) -> str:
    """What to do where the home folder cannot be written to.

    Args:
        names: environment variables that name other places.
    """
    one = _here(
        "export HOME=/a/folder/of/yours",
        "export HOME=/a/folder/of/yours",
        "$env:USERPROFILE = 'D:\\a\\folder\\of\\yours'",
    )
    return f"{one}, or name other places: {', '.join(names)}"
