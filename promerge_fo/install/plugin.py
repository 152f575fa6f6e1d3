"""Put the App's plugin where FiftyOne looks for plugins."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import fiftyone as fo

__all__ = ["install_plugin"]

PARTS = ("fiftyone.yml", "requirements.txt", "plugin", "operators", "skills")


def install_plugin(folder: str | Path | None = None) -> Path:
    """Copy the plugin's files into FiftyOne's plugin directory, in place of an older copy.

    Args:
        folder: a checkout or copy of the repository; by default the one that this package runs
            from, or what an installed wheel carries.

    Returns:
        The plugin's folder in ``fiftyone.config.plugins_dir``.

    Raises:
        ValueError: the folder holds no plugin, or plugins cannot be written there.
    """
    carried = Path(__file__).with_name("app")  # of a wheel
    own = carried if carried.is_dir() else Path(__file__).parents[2]
    source = own if folder is None else Path(folder)
    missing = [part for part in PARTS if not (source / part).exists()]
    if missing:
        raise ValueError(
            f"{source} does not hold the plugin (no {', '.join(missing)}); give the folder of a "
            "checkout with --folder, or use `fiftyone plugins download` with the repository's URL"
        )
    target = Path(fo.config.plugins_dir) / "@promerge" / "promerge"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"FiftyOne's folder of plugins {fo.config.plugins_dir} cannot be written to ({error}); "
            "set FIFTYONE_PLUGINS_DIR to another one, for this command and for the App"
        ) from error
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as scratch:
        fresh = Path(scratch) / "promerge"
        fresh.mkdir()
        for part in PARTS:
            if (source / part).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source / part, fresh / part, ignore=ignored)
            else:
                shutil.copy2(source / part, fresh / part)
        if target.is_symlink():
            target.unlink()
        elif target.exists():
            target.rename(Path(scratch) / "old")
        fresh.rename(target)
    return target
