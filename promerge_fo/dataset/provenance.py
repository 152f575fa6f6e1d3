"""Provenance: what made the labels of a field, as one of the dataset's runs."""

from __future__ import annotations

import re
import socket
import time
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from promerge_fo.versions import package_versions

if TYPE_CHECKING:
    import fiftyone as fo

__all__ = [
    "RunRecorder",
    "collection_of",
    "delete_run",
    "find_records",
    "last_rate",
    "list_runs",
    "load_run",
    "register",
    "run_key",
]

_MARK = "run_hash"  # what this package's runs have and others have not


class RunRecorder:
    """Follows one run over a dataset and writes its record.

    FiftyOne tells a model neither the field that it fills nor whether it kept the labels, so the
    samples of each batch are looked at once FiftyOne is done with them.

    Args:
        run: the run hash.
        identity: everything that decides the masks, as JSON can hold it.
        device: what the masks are calculated on, for people to read.
    """

    def __init__(self, run: str, identity: dict[str, Any], device: str) -> None:
        self._run = run
        self._identity = identity
        self._device = device
        self._started = datetime.now(timezone.utc)
        self._clock = time.perf_counter()
        self._batch: list[tuple[Any, fo.Detections]] = []
        self._batch_size = 0
        self._instances = 0
        self.counts: Counter[str] = Counter()  #: stored images by status
        self.lost = 0  #: images whose labels FiftyOne did not store
        self.label_field: str | None = None  #: the field that is being filled, once known
        self.collection: Any = None  #: the view that is being segmented, once known

    def add(self, samples: Sequence[Any], labels: Sequence[fo.Detections]) -> None:
        """Note one batch: samples and the labels that FiftyOne is about to give them."""
        self.settle()
        self._batch = list(zip(samples, labels, strict=True))
        self._batch_size = max(self._batch_size, len(self._batch))
        if self._batch:
            self.collection = collection_of(self._batch[0][0])

    def settle(self) -> None:
        """Count the last batch, which FiftyOne has stored by now."""
        for sample, labels in self._batch:
            names = sample.field_names
            field = next((name for name in names if sample[name] is labels), None)
            if field is None:
                self.lost += 1
                continue
            self.label_field = field
            self.counts[labels.status] += 1
            self._instances += len(labels.detections)
        self._batch = []

    def finish(self, interrupted: bool) -> dict[str, Any] | None:
        """Write the record; see :func:`load_run` for what it holds.

        Returns:
            The record, or None where nothing was stored.
        """
        self.settle()
        if self.label_field is None:
            return None
        seconds = time.perf_counter() - self._clock
        images = sum(self.counts.values())
        record = {
            _MARK: self._run,
            "label_field": self.label_field,
            **self._identity,
            "versions": package_versions(),
            "device": self._device,
            "batch_size": self._batch_size,
            "started": self._started.isoformat(timespec="seconds"),
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "images_per_second": round(images / seconds, 3),
            "interrupted": interrupted,
            "counts": dict(self.counts),
            "images": images,
            "instances": self._instances,
        }
        register(self.collection._root_dataset, record)
        _keep_rate(record)
        return record


def collection_of(sample: Any) -> Any:
    """The view that a sample comes from, or else its dataset."""
    return getattr(sample, "_view", sample.dataset)


def run_key(label_field: str, run: str) -> str:
    """The key of a run on its dataset: the field and the first digits of the run hash.

    Examples:
        >>> run_key("promerge", "0123456789abcdef")
        'promerge_01234567'
    """
    return re.sub(r"\W|^(?=\d)", "_", f"{label_field}_{run[:8]}")


def register(dataset: Any, record: dict[str, Any]) -> None:
    """Keep the record of a run on its dataset, in place of one of the same field and hash.

    Args:
        dataset: the dataset itself, not a view.
        record: with ``run_hash`` and ``label_field``; see :func:`load_run`.
    """
    key = run_key(record["label_field"], record[_MARK])
    dataset.register_run(key, dataset.init_run(**record), overwrite=True)


def find_records(
    dataset: Any, label_field: str, runs: Collection[str]
) -> dict[str, dict[str, Any]]:
    """The records of some run hashes, where there are any.

    Args:
        dataset: a dataset, or a view of one.
        label_field: whose record is taken where several fields have runs of one hash.
        runs: the hashes.
    """
    records: dict[str, dict[str, Any]] = {}
    for key in list_runs(dataset):
        record = load_run(dataset, key)
        run = record[_MARK]
        if run in runs and (run not in records or record["label_field"] == label_field):
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
    from fiftyone import ViewField as F

    record = load_run(dataset, key)
    root, field = dataset._root_dataset, record["label_field"]
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
    found = _rates().get(_rate_key(method, encoder))
    return None if found is None else float(found)


def _keep_rate(record: dict[str, Any]) -> None:
    key = _rate_key(record["method"], record["encoder"]["name"])
    _rates().set(key, record["images_per_second"])


def _rate_key(method: str, encoder: str) -> str:
    return f"images_per_second {socket.gethostname()} {method} {encoder}"


def _rates() -> Any:
    from fiftyone.operators.store import ExecutionStore

    return ExecutionStore.create("@promerge/promerge")
