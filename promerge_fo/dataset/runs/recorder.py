"""Follows a run while FiftyOne applies the model, and writes its record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import fiftyone as fo

from promerge_fo.dataset.database import collection_of, root_dataset
from promerge_fo.dataset.provenance import keep_rate, register
from promerge_fo.run_record import RunClock, RunRecord

__all__ = ["RunRecorder"]


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
        self._clock = RunClock()
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

    def finish(self, interrupted: bool) -> RunRecord | None:
        """Write the record, and return it; None where nothing was stored."""
        self.settle()
        if self.label_field is None:
            return None
        record = self._clock.record(
            self._run,
            label_field=self.label_field,
            identity=self._identity,
            counts=dict(self.counts),
            instances=self._instances,
            interrupted=interrupted,
            device=self._device,
            batch_size=self._batch_size,
        )
        register(root_dataset(self.collection), record)
        keep_rate(record)
        return record
