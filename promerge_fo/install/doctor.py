"""What works on this machine, what does not, and what to do about it."""

from __future__ import annotations

import functools
import importlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, TypeAlias

from promerge_fo.install import remedies

__all__ = ["Finding", "examine"]

State = Literal["ok", "note", "problem"]
_Found: TypeAlias = "tuple[State, str] | tuple[State, str, str]"


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


_checks: dict[str, Callable[[], Finding]] = {}
_slow_checks: dict[str, Callable[[], Finding]] = {}


def _check(
    subject: str, checks: dict[str, Callable[[], Finding]] = _checks
) -> Callable[[Callable[[], _Found]], Callable[[], Finding]]:
    """Make a check of a function that returns a finding's state, detail and perhaps remedy.

    Args:
        subject: what is looked at.
        checks: those that it belongs to.
    """

    def register(look: Callable[[], _Found]) -> Callable[[], Finding]:
        @functools.wraps(look)
        def check() -> Finding:
            try:
                return Finding(subject, *look())
            except Exception as error:
                return Finding(subject, "problem", f"{type(error).__name__}: {error}")

        checks[subject] = check
        return check

    return register


def examine() -> Iterator[Finding]:
    """Look at everything that the package uses, one thing after the other; nothing raises.

    What imports PyTorch, detectron2 or compiled code takes seconds, and may even kill its process.
    It is looked at in another process meanwhile, and comes last.
    """
    with subprocess.Popen(
        [sys.executable, "-m", __name__],
        cwd=Path(__file__).parents[2],  # from where Python finds this package
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for this process (nothing on Windows)
    ) as other:
        try:
            yield from (check() for check in _checks.values())
            lines = iter(other.stdout or ())
            for subject in _slow_checks:
                line = next(lines, None)
                yield _died(subject) if line is None else Finding(**json.loads(line))
        finally:
            other.kill()  # all is known; PyTorch takes a second to end by itself


def _died(subject: str) -> Finding:
    detail = "the process that looked at it died"
    remedy = f'{sys.executable} -c "import torch, torchvision, timm, numba" shows where'
    return Finding(subject, "problem", detail, remedy)


@_check("Python")
def _python() -> _Found:
    detail = f"{platform.python_version()} at {sys.executable}, {os.cpu_count()} CPU cores"
    if (3, 10) <= sys.version_info[:2] <= (3, 14):
        return "ok", detail
    return "problem", detail, "use Python 3.10 to 3.14"


@_check("folders")
def _folders() -> _Found:
    try:
        home = Path.home()
        there_is = _can_be_written_to(home)
        how = f"the home {home} {'can' if there_is else 'cannot'} be written to"
    except RuntimeError:  # no HOME, and a user without an entry
        there_is, how = False, "the home is not known"
    environment = os.environ
    elsewhere = {
        "FIFTYONE_DATABASE_DIR": "FIFTYONE_DATABASE_URI" in environment,
        "FIFTYONE_PLUGINS_DIR": False,
        "HF_HOME": "HF_HUB_CACHE" in environment,
        "MPLCONFIGDIR": False,
    }
    lacking = [name for name, other in elsewhere.items() if not other and name not in environment]
    if there_is:
        return "ok", how
    if not lacking:
        return "ok", f"{how}, but all has other places"
    state: State = "problem" if "FIFTYONE_DATABASE_DIR" in lacking else "note"
    there = ", ".join(_THERE[name] for name in lacking)
    return state, f"{how}; there would be {there}", remedies.unwritable(lacking)


_THERE = {
    "FIFTYONE_DATABASE_DIR": "FiftyOne's database",
    "FIFTYONE_PLUGINS_DIR": "the App's plugins",
    "HF_HOME": "weights that are downloaded",
    "MPLCONFIGDIR": "matplotlib's list of fonts",
}


def _can_be_written_to(folder: Path) -> bool:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)


@_check("PyTorch", _slow_checks)
def _torch() -> _Found:
    try:
        from promerge_fo.encoder.vit import import_timm

        timm = import_timm()
    except (ImportError, OSError) as error:  # the first says which versions there are
        return "problem", str(error), remedies.packages_missing(error)
    pair = f"torch {_version('torch')}, torchvision {_version('torchvision')}"
    return "ok", f"{pair}, timm {timm.__version__}"


@_check("device", _slow_checks)
def _device() -> _Found:
    import torch

    threads = f"the CPU, with {torch.get_num_threads()} threads"
    if torch.backends.mps.is_available() and not torch.cuda.is_available():
        return "ok", f"Apple's GPU encodes, in float32; the rest runs on {threads}"
    if not torch.cuda.is_available():
        remedy = "ViT-B/8 takes seconds an image on a CPU: preset='fast' takes a smaller encoder"
        return (
            "note",
            f"no GPU that torch can use; {threads}, does all",
            remedies.gpu(torch) + remedy,
        )
    gpu = torch.cuda.get_device_properties(0)
    return "ok", f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"


@_check("weights")
def _weights() -> _Found:
    from huggingface_hub import constants, try_to_load_from_cache

    from promerge_fo.encoder.weights import hub_trouble

    model = "vit_base_patch8_224.dino"
    for file in ("model.safetensors", "pytorch_model.bin"):
        if isinstance(try_to_load_from_cache(f"timm/{model}", file), str):
            return "ok", f"{model} is in the Hugging Face cache"
    whence = hub_trouble() or "it is downloaded at first use (340 MB)"
    return (
        "note",
        f"{model} is not in the Hugging Face cache; {whence}",
        remedies.weights(model, constants.HF_HUB_CACHE),
    )


@_check("CRF", _slow_checks)
def _crf() -> _Found:
    import numpy as np

    from promerge_fo.refine import refine_masks

    image = np.zeros((64, 64, 3), dtype=np.uint8)
    image[16:48, 16:48] = 255
    mask = np.zeros((1, 8, 8), dtype=np.bool_)
    mask[0, 2:6, 2:6] = True
    refined = refine_masks(image, mask)
    if len(refined) == 1 and (refined.masks[0] == (image[:, :, 0] > 0)).mean() > 0.99:
        return "ok", "refines a white square to its edges"
    return "problem", "does not refine a white square", "reinstall numba and numpy"


@_check("reference CRF")
def _reference_crf() -> _Found:
    try:
        importlib.import_module("pydensecrf.densecrf")
    except ImportError:
        return (
            "note",
            "pydensecrf is not installed; only refine='pydensecrf' needs it",
            "pip install 'promerge-fo[crf-reference]', with Python before 3.13 and a C++ compiler: "
            + remedies.compiler(),
        )
    return "ok", f"pydensecrf2 {_version('pydensecrf2')}"


@_check("database")
def _database() -> _Found:
    from promerge_fo.install.mongod import OLDEST, find_mongod, mongod_location, mongod_version

    if os.environ.get("FIFTYONE_DATABASE_URI"):
        return "ok", "FIFTYONE_DATABASE_URI points to a server"
    mongod = find_mongod()
    remedy = remedies.mongod_missing(mongod_location())
    if mongod is None:
        return "problem", f"no mongod at {mongod_location()}", remedy
    found = mongod_version(mongod)
    if found is None:
        first = remedies.mongod_not_running(mongod)
        return "problem", f"{mongod} does not run", f"{first}; or remove that file, then {remedy}"
    if found < OLDEST:
        old = f"{mongod} is {found[0]}.{found[1]}"
        return "problem", old, f"remove that file, then {remedy}"
    return "ok", f"mongod {'.'.join(map(str, found))} at {mongod}"


@_check("FiftyOne")
def _fiftyone() -> _Found:
    try:
        fiftyone = importlib.import_module("fiftyone")
        datasets = len(fiftyone.list_datasets())
    except Exception as error:
        return (
            "problem",
            f"{_version('fiftyone')} does not start: {type(error).__name__}: {error}",
            "see the lines on folders and the database; a database that a newer mongod has opened "
            "cannot be opened by an older one: set FIFTYONE_DATABASE_DIR to another folder",
        )
    from promerge_fo.dataset.database import untested

    found = f"{fiftyone.__version__}, {datasets} datasets"
    warning = untested(fiftyone.__version__)
    return ("ok", found) if warning is None else ("note", found, warning)


@_check("detector", _slow_checks)
def _detector() -> _Found:
    from promerge_fo.detector.requirement import (
        require_detectron2,
        way_to_detectron2,
        why_no_detectron2,
    )

    if why_no_detectron2() is not None:
        detail = "detectron2 is not installed; only promerge train and promerge predict need it"
        return "note", detail, f"{way_to_detectron2()}; docs/detector.md says more"
    require_detectron2()
    return "ok", f"detectron2 {_version('detectron2')}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":  # the other process of examine()
    for _each in _slow_checks.values():
        with redirect_stdout(sys.stderr):
            _finding = _each()
        print(json.dumps(asdict(_finding)), flush=True)
