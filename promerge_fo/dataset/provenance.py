"""Provenance: what made the labels of a field, as one of the dataset's runs."""

from __future__ import annotations

import re
import socket
from collections.abc import Collection
from typing import Any

from fiftyone import ViewField as F

from promerge_fo.dataset.database import root_dataset, store
from promerge_fo.run_record import RunRecord

__all__ = [
    "delete_run",
    "find_records",
    "keep_rate",
    "last_rate",
    "list_runs",
    "load_run",
    "register",
    "run_key",
]

_MARK = "run_hash"  # what this package's runs have and others have not


def run_key(label_field: str, run: str) -> str:
    """The key of a run on its dataset: the field and the first digits of the run hash.

    Examples:
        >>> run_key("promerge", "0123456789abcdef")
        'promerge_01234567'
    """
    return re.sub(r"\W|^(?=\d)", "_", f"{label_field}_{run[:8]}")


def register(dataset: Any, record: RunRecord) -> None:
    """Keep the record of a run on its dataset, in place of one of the same field and hash.

    Args:
        dataset: the dataset itself, not a view.
        record: with a ``label_field``.
    """
    key = run_key(str(record.label_field), record.run_hash)
    dataset.register_run(key, dataset.init_run(**record.to_dict()), overwrite=True)


def find_records(dataset: Any, label_field: str, runs: Collection[str]) -> dict[str, RunRecord]:
    """The records of some run hashes, where there are any.

    Args:
        dataset: a dataset, or a view of one.
        label_field: whose record is taken where several fields have runs of one hash.
        runs: the hashes.
    """
    records: dict[str, RunRecord] = {}
    for key in list_runs(dataset):
        record = RunRecord.from_dict(load_run(dataset, key))
        run = record.run_hash
        if run in runs and (run not in records or record.label_field == label_field):
            records[run] = record
    return records


def list_runs(dataset: Any) -> list[str]:
    """Keys of the runs of this package on a dataset, oldest first.

    Args:
        dataset: a dataset, or a view of one.
    """
    infos = [dataset.get_run_info(key) for key in dataset.list_runs()]
    infos = [info for info in infos if hasattr(info.config, _MARK)]
    return [info.key for info in sorted(infos, key=lambda info: info.timestamp)]


def load_run(dataset: Any, key: str) -> dict[str, Any]:
    """The record of a run.

    A run of the same configuration over the same field replaces the record of the one before.

    Args:
        dataset: a dataset, or a view of one.
        key: one of :func:`list_runs`.

    Returns:
        What JSON can hold: ``run_hash`` (16 hexadecimal digits), ``label_field``; ``method``,
        ``config`` and ``encoder`` (with ``weights_sha256``), which the hash names; ``versions``
        of packages and Python, ``device``, ``batch_size``; ``started`` and ``finished`` (UTC, ISO
        8601), ``seconds``, ``images_per_second``; ``interrupted``; ``counts`` (images by status),
        ``images`` and ``instances``. What :func:`~promerge_fo.dataset.import_predictions` brought
        in has the ``method`` "import", and in place of ``config`` and ``encoder`` the ``file`` with
        its ``sha256``, and the ``settings``.

    Raises:
        ValueError: no run of this package has the key.
    """
    keys = list_runs(dataset)
    if key not in keys:
        known = ", ".join(map(repr, keys)) or "none"
        raise ValueError(f"the dataset has no ProMerge run {key!r}; its runs are: {known}")
    record = dataset.get_run_info(key).config.serialize()
    return {name: value for name, value in record.items() if name not in ("cls", "type")}


def delete_run(dataset: Any, key: str) -> int:
    """Delete a run: its record, and the labels that it made.

    Labels of other runs in the same field stay; a field in which none are left goes too.

    Args:
        dataset: a dataset, or a view of one, whose dataset is meant.
        key: one of :func:`list_runs`.

    Returns:
        The number of images whose labels are gone.

    Raises:
        ValueError: no run of this package has the key.
    """
    record = load_run(dataset, key)
    root, field = root_dataset(dataset), record["label_field"]
    cleared = 0
    if root.has_field(f"{field}.run"):
        made = root.match(F(f"{field}.run") == record["run_hash"])
        cleared = len(made)
        made.clear_sample_field(field)
        if len(root.exists(field)) == 0:
            root.delete_sample_field(field)
    root.delete_run(key)
    return cleared


def last_rate(method: str, encoder: str) -> float | None:
    """Images a second that this machine made the last time, with any settings; None if unknown.

    Args:
        method: as in a run's record.
        encoder: the encoder's name.
    """
    found = store().get(_rate_key(method, encoder))
    return None if found is None else float(found)


def keep_rate(record: RunRecord) -> None:
    """Remember how fast this machine was, for :func:`last_rate`."""
    key = _rate_key(record.identity["method"], record.identity["encoder"]["name"])
    store().set(key, record.images_per_second)


def _rate_key(method: str, encoder: str) -> str:
    return f"images_per_second {socket.gethostname()} {method} {encoder}"
