"""Provenance: the records of what made the labels of a field, kept as runs of the dataset."""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import fiftyone as fo
from fiftyone import ViewField as F
from fiftyone.core.runs import Run

from promerge_fo.dataset.database import (
    changed_schema,
    complete_runs,
    frames_of,
    replaced_run,
    root_dataset,
    store,
    update_frames,
)
from promerge_fo.dataset.samples import all_images, videos_of
from promerge_fo.run_record import RunRecord

__all__ = [
    "delete_run",
    "find_records",
    "keep_with_run",
    "kept_with_run",
    "last_rate",
    "list_runs",
    "load_run",
    "method_of",
    "register",
    "register_part",
    "remember_rate",
    "run_key",
]

_TELLING_IMAGES = 3  # whose time tells how long others will take
_MARK = "run_hash"  # an attribute that only the runs of this package have


def run_key(label_field: str, run: str) -> str:
    """The key of a run on its dataset: the name of the field and the start of the run hash.

    Examples:
        >>> run_key("promerge", "0123456789abcdef")
        'promerge_01234567'
    """
    return re.sub(r"\W|^(?=\d)", "_", f"{label_field}_{run[:8]}")


def register(dataset: fo.Dataset, record: RunRecord) -> None:
    """Store the record of a run on its dataset. It replaces one with the same field and hash.

    If that fails, the earlier record is as it was.

    Args:
        dataset: the dataset itself, not a view.
        record: the record, with its ``label_field``.
    """
    key = run_key(str(record.label_field), record.run_hash)
    kept = kept_with_run(dataset, key)
    # another thread that reads the dataset's document again would drop what is not stored yet
    with changed_schema(dataset), replaced_run(dataset, Run, key):
        dataset.register_run(key, dataset.init_run(**record.to_dict()))
        if kept:
            _keep(dataset, key, kept)


def keep_with_run(dataset: fo.Dataset, label_field: str, run: str, texts: Sequence[str]) -> str:
    """Keep some texts with the record of a run, beside those that are there.

    Args:
        dataset: the dataset itself, not a view.
        label_field: the field that the run filled.
        run: the run hash; a run without a record gets one.
        texts: may be many, and long.

    Returns:
        The key of the run.
    """
    key = run_key(label_field, run)
    if not dataset.has_run(key):
        register(dataset, RunRecord(run, label_field, {"method": "unknown"}))
    _keep(dataset, key, [*kept_with_run(dataset, key), *texts])
    return key


def kept_with_run(dataset: Any, key: str) -> list[str]:
    """The texts that :func:`keep_with_run` kept; none if there is no such run."""
    root = root_dataset(dataset)
    results = root.load_run_results(key, cache=False) if root.has_run(key) else None
    return list(getattr(results, "kept", []))


def _keep(dataset: fo.Dataset, key: str, texts: Sequence[str]) -> None:
    results = dataset.init_run_results(key, kept=list(texts))
    dataset.save_run_results(key, results, overwrite=True, cache=False)


def register_part(dataset: fo.Dataset, record: RunRecord, before: RunRecord | None) -> None:
    """Store the record of a run, or of its last part where the run was stopped and continued.

    What is stored speaks of the whole run: images and masks as they are in the field, the time of
    all its parts that ended.

    Args:
        dataset: the dataset itself, not a view.
        record: the record of what was done now, with its ``label_field``.
        before: the record that the dataset had of the run before, from :func:`find_records`.
    """
    field, run = str(record.label_field), record.run_hash
    counts, instances = _stored(dataset, field, run)
    if counts.total() > record.images:
        record = replace(record, counts=dict(counts), instances=instances)
        if before is not None and before.label_field == field:
            seconds = round(before.seconds + record.seconds, 3)
            record = replace(record, started=before.started, seconds=seconds)
    register(dataset, record)


def _stored(dataset: fo.Dataset, field: str, run: str) -> tuple[Counter[str], int]:
    """The images, or frames of videos, that have labels of a run, by status, and their masks."""
    counts, instances = Counter[str](), 0
    if dataset.has_field(f"{field}.run"):
        labelled = all_images(dataset).match(F(f"{field}.run") == run)
        counts.update(labelled.count_values(f"{field}.status"))
        instances = labelled.count(f"{field}.detections")
    if (videos := videos_of(dataset)) is not None:
        parts = (f"{field}.status", f"{field}.detections._id")
        for frame in frames_of(videos, videos.values("id"), {f"{field}.run": run}, *parts):
            counts[frame[field]["status"]] += 1
            instances += len(frame[field].get("detections") or ())
    return counts, instances


def find_records(dataset: Any, label_field: str, runs: Collection[str]) -> dict[str, RunRecord]:
    """The records that a dataset has of some runs, by run hash.

    Args:
        dataset: a dataset, or a view of one.
        label_field: if several fields have runs with the same hash, the one whose record to use.
        runs: the run hashes.
    """
    records: dict[str, RunRecord] = {}
    for key in list_runs(dataset):
        record = RunRecord.from_dict(load_run(dataset, key))
        run = record.run_hash
        if run in runs and (run not in records or record.label_field == label_field):
            records[run] = record
    return records


def method_of(dataset: fo.Dataset, label_field: str, run: str) -> str | None:
    """The method of a run, by its hash; None if the dataset has no record of it."""
    key = run_key(label_field, run)
    if not dataset.has_run(key):
        return None
    method: str | None = getattr(dataset.get_run_info(key).config, "method", None)
    return method


def list_runs(dataset: Any) -> list[str]:
    """The keys of the runs of this package on a dataset, oldest first.

    Args:
        dataset: a dataset, or a view of one.
    """
    complete_runs(dataset)
    infos = [dataset.get_run_info(key) for key in dataset.list_runs()]
    infos = [info for info in infos if hasattr(info.config, _MARK)]
    return [info.key for info in sorted(infos, key=lambda info: info.timestamp)]


def load_run(dataset: Any, key: str) -> dict[str, Any]:
    """The record of a run.

    A run with the same configuration on the same field replaces the record of the run before.

    Args:
        dataset: a dataset, or a view of one.
        key: the key of the run, from :func:`list_runs`.

    Returns:
        A dictionary for JSON: ``run_hash`` (16 hexadecimal digits) and ``label_field``; the hashed
        values ``method``, ``config`` and ``encoder`` (with ``weights_sha256``); ``versions`` of
        packages and Python, ``device`` and ``batch_size``; ``started`` and ``finished`` (UTC, ISO
        8601), ``seconds`` and ``images_per_second``; ``interrupted``; ``counts`` (images by
        status), ``images`` and ``instances``; a ``diagnosis``, if most images have no masks. The
        record of an import (:func:`~promerge_fo.dataset.import_predictions`) has the ``method``
        "import", and instead of ``config`` and ``encoder`` the ``file``, its ``sha256`` and the
        ``settings``.

    Raises:
        ValueError: no run of this package has this key.
    """
    keys = list_runs(dataset)
    if key not in keys:
        known = ", ".join(map(repr, keys)) or "none"
        raise ValueError(f"the dataset has no ProMerge run {key!r}; its runs are: {known}")
    record = dataset.get_run_info(key).config.serialize()
    return {name: value for name, value in record.items() if name not in ("cls", "type")}


def delete_run(dataset: Any, key: str) -> int:
    """Delete a run: its record, and the labels that it made.

    Labels of other runs in the same field stay. A field without any labels left is deleted too.

    Args:
        dataset: a dataset, or a view; the labels are deleted from the whole dataset.
        key: the key of the run, from :func:`list_runs`.

    Returns:
        The number of images, or frames of videos, whose labels were deleted.

    Raises:
        ValueError: no run of this package has this key.
    """
    record = load_run(dataset, key)
    root, field = root_dataset(dataset), record["label_field"]
    cleared = 0
    if root.has_field(f"{field}.run"):
        labelled = all_images(root).match(F(f"{field}.run") == record["run_hash"])
        cleared = len(labelled)
        labelled.clear_sample_field(field)
        if len(all_images(root).exists(field)) == 0:
            root.delete_sample_field(field)
    if (videos := videos_of(root)) is not None:
        ids, of_run = videos.values("id"), {f"{field}.run": record["run_hash"]}
        cleared += update_frames(videos, ids, of_run, {"$set": {field: None}})
        left = next(frames_of(videos, ids, {field: {"$ne": None}}), None)
        if left is None and field in root.get_frame_field_schema():
            root.delete_frame_field(field)
    root.delete_run(key)
    return cleared


def last_rate(method: str, encoder: str) -> float | None:
    """The images per second of the last run on this machine, with any settings; None if unknown.

    Args:
        method: the method, as in the record of a run.
        encoder: the name of the encoder.
    """
    rate = store().get(_rate_key(method, encoder))
    return None if rate is None else float(rate)


def remember_rate(record: RunRecord) -> None:
    """Store the images per second of a run on this machine, for :func:`last_rate`.

    Runs of a few images, or of broken ones, say nothing of others.
    """
    segmented = record.images - record.counts.get("failed", 0)
    if segmented < _TELLING_IMAGES or not record.seconds:
        return
    key = _rate_key(record.identity["method"], record.identity["encoder"]["name"])
    store().set(key, round(segmented / record.seconds, 3))


def _rate_key(method: str, encoder: str) -> str:
    return f"images_per_second {socket.gethostname()} {method} {encoder}"
