"""The manifest beside an export, which says what was exported, and from what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bson import json_util

from promerge_fo.dataset.database import root_dataset, stages_of
from promerge_fo.dataset.provenance import find_records
from promerge_fo.machine import package_versions

__all__ = ["describe_source", "is_export", "write_manifest"]


def describe_source(samples: Any, label_field: str, runs: Mapping[str, int]) -> dict[str, Any]:
    """Describe the dataset, view, field and runs that exported labels come from.

    Args:
        samples: the dataset or view that was exported.
        label_field: the field that was exported.
        runs: the number of exported images by run hash.

    Returns:
        ``dataset``, ``label_field``, ``view`` (its stages, as FiftyOne serialises them; empty for
        a whole dataset) and ``runs``. For each run hash, ``runs`` has the number of ``images`` and
        the ``record``, as :func:`~promerge_fo.dataset.load_run` returns it, or None if there is no
        record.
    """
    dataset = root_dataset(samples)
    found = find_records(dataset, label_field, runs)
    records = {run: record.to_dict() for run, record in found.items()}
    return {
        "dataset": dataset.name,
        "label_field": label_field,
        "view": json.loads(json_util.dumps(stages_of(samples))),
        "runs": {run: {"images": n, "record": records.get(run)} for run, n in runs.items()},
    }


def write_manifest(path: Path, content: Mapping[str, Any]) -> None:
    """Write a manifest: the content, the time, and the versions of the packages."""
    manifest = {
        "promerge_export": 1,  # the version of this format; it also identifies exports
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **content,
        "versions": package_versions(),
    }
    path.write_text(
        json.dumps(manifest, indent=2, default=str, allow_nan=False) + "\n", encoding="utf-8"
    )


def is_export(folder: Path) -> bool:
    """Whether a folder is an export, according to its manifest."""
    try:
        content = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "promerge_export" in content
