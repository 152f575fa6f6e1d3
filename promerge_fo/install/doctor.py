"""What works on this machine, what does not, and what to do about it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

__all__ = ["Finding", "examine"]

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: what was looked at.
        state: "ok"; "note", something optional is missing; "problem", something will not work.
        detail: what was found.
        remedy: what to do about it; empty where nothing is to be done.
    """

    subject: str
    state: State
    detail: str
    remedy: str = ""


def examine() -> Iterator[Finding]:
    """Look at everything that the package uses, one thing after the other; nothing raises."""
    checks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("Python", _python),
        ("PyTorch", _torch),
        ("device", _device),
        ("weights", _weights),
        ("CRF", _crf),
        ("reference CRF", _reference_crf),
        ("database", _database),
        ("FiftyOne", _fiftyone),
        ("detector", _detector),
    )
    for subject, check in checks:
        try:
            yield check()
        except Exception as error:
            yield Finding(subject, "problem", f"{type(error).__name__}: {error}")


def _python() -> Finding:
    detail = f"{platform.python_version()} at {sys.executable}, {os.cpu_count()} CPU cores"
    if (3, 10) <= sys.version_info[:2] <= (3, 13):
        return Finding("Python", "ok", detail)
    return Finding("Python", "problem", detail, "use Python 3.10 to 3.13")


def _torch() -> Finding:
    try:
        from promerge_fo.encoder.vit import import_timm

        timm = import_timm()
    except ImportError as error:  # says which versions there are, and what to do
        return Finding("PyTorch", "problem", str(error))
    pair = f"torch {_version('torch')}, torchvision {_version('torchvision')}"
    return Finding("PyTorch", "ok", f"{pair}, timm {timm.__version__}")


def _device() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding(
            "device",
            "note",
            f"no CUDA GPU; the CPU is used, with {torch.get_num_threads()} threads",
            "ViT-B/8 takes seconds an image on a CPU: preset='fast' takes a smaller encoder",
        )
    gpu = torch.cuda.get_device_properties(0)
    return Finding(
        "device", "ok", f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    )


def _weights() -> Finding:
    from huggingface_hub import try_to_load_from_cache

    model = "vit_base_patch8_224.dino"
    for file in ("model.safetensors", "pytorch_model.bin"):
        if isinstance(try_to_load_from_cache(f"timm/{model}", file), str):
            return Finding("weights", "ok", f"{model} is in the Hugging Face cache")
    return Finding(
        "weights",
        "note",
        f"{model} is not in the Hugging Face cache; it is downloaded at first use (340 MB)",
        "without a network: checkpoint='dino_vitbase8_pretrain.pth', or encoder='texture'",
    )


def _crf() -> Finding:
    import numpy as np

    from promerge_fo.refine import refine_masks

    image = np.zeros((64, 64, 3), dtype=np.uint8)
    image[16:48, 16:48] = 255
    mask = np.zeros((1, 8, 8), dtype=np.bool_)
    mask[0, 2:6, 2:6] = True
    refined = refine_masks(image, mask)
    if len(refined) == 1 and (refined.masks[0] == (image[:, :, 0] > 0)).mean() > 0.99:
        return Finding("CRF", "ok", "refines a white square to its edges")
    return Finding("CRF", "problem", "does not refine a white square", "reinstall numba and numpy")


def _reference_crf() -> Finding:
    try:
        importlib.import_module("pydensecrf.densecrf")
    except ImportError:
        return Finding(
            "reference CRF",
            "note",
            "pydensecrf is not installed; only refine='pydensecrf' needs it",
            "pip install 'promerge-fo[crf-reference]', with a C++ compiler and Python before 3.13",
        )
    return Finding("reference CRF", "ok", f"pydensecrf2 {_version('pydensecrf2')}")


def _database() -> Finding:
    from promerge_fo.install.mongod import OLDEST, find_mongod, mongod_location, mongod_version

    uri = os.environ.get("FIFTYONE_DATABASE_URI")
    if uri:
        return Finding("database", "ok", "FIFTYONE_DATABASE_URI points to a server")
    mongod = find_mongod()
    remedy = "promerge doctor --install-mongod, or set FIFTYONE_DATABASE_URI to a running server"
    if mongod is None:
        return Finding("database", "problem", f"no mongod at {mongod_location()}", remedy)
    found = mongod_version(mongod)
    if found is None or found < OLDEST:
        detail = f"{mongod} does not run" if found is None else f"{mongod} is {found[0]}.{found[1]}"
        return Finding("database", "problem", detail, f"remove that file, then {remedy}")
    return Finding("database", "ok", f"mongod {'.'.join(map(str, found))} at {mongod}")


def _fiftyone() -> Finding:
    try:
        fiftyone = importlib.import_module("fiftyone")
        datasets = len(fiftyone.list_datasets())
    except Exception as error:
        return Finding(
            "FiftyOne",
            "problem",
            f"{_version('fiftyone')} does not start: {type(error).__name__}: {error}",
            "see the line on the database; a database that a newer mongod has opened cannot be "
            "opened by an older one: set FIFTYONE_DATABASE_DIR to another folder",
        )
    return Finding("FiftyOne", "ok", f"{fiftyone.__version__}, {datasets} datasets")


def _detector() -> Finding:
    from promerge_fo.detector.requirement import require_detectron2

    if importlib.util.find_spec("detectron2") is None:
        return Finding(
            "detector",
            "note",
            "detectron2 is not installed; only promerge train and promerge predict need it",
            "build it as docs/detector.md says",
        )
    require_detectron2()
    return Finding("detector", "ok", f"detectron2 {_version('detectron2')}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
