"""Counts what FiftyOne stores while it applies the model, and writes the record of the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import fiftyone as fo
import numpy as np
from bson import ObjectId
from numpy.typing import NDArray

from promerge_fo.dataset.classes.stored_vectors import Embedded, write_embeddings
from promerge_fo.dataset.database import collection_of, root_dataset
from promerge_fo.dataset.provenance import find_records, register_part, remember_rate
from promerge_fo.run_record import RunClock, RunRecord

__all__ = ["Made", "RunRecorder"]

_TOGETHER = 64  # images whose embeddings are written together


class Made(NamedTuple):
    """What a run made of an image.

    Attributes:
        labels: as FiftyOne will store them.
        means: of the masks, (n, d) float32, if the run embeds them.
        is_new: whether this run made them; else they were there before.
    """

    labels: fo.Detections
    means: NDArray[np.float32] | None
    is_new: bool = True


class RunRecorder:
    """Counts the labels that FiftyOne stores during one run, and writes the record of the run.

    FiftyOne does not tell a model which field it fills, nor whether it stored the labels. So the
    recorder looks at the samples of each batch after FiftyOne has processed them.

    Args:
        run: the run hash.
        identity: everything that decides the masks, as values that JSON can hold.
        device: a description of the device that computes the masks, for people to read.
        embeds: what makes the masks' embeddings, see
            :meth:`~promerge_fo.encoder.Encoder.embedding_identity`; None if nothing does.

    Attributes:
        counts: the number of images whose labels were stored, by status.
        not_stored: the number of images whose labels FiftyOne did not store.
        label_field: the field that is filled; None until the first labels are stored.
        collection: the dataset or view that is segmented; None until the first batch.
    """

    def __init__(
        self,
        run: str,
        identity: dict[str, Any],
        device: str,
        embeds: dict[str, Any] | None = None,
    ) -> None:
        self._run = run
        self._identity = identity
        self._device = device
        self._clock = RunClock()
        self._embeds = embeds
        self._embedded: list[Embedded] = []
        self._batch: list[tuple[fo.Sample, Made]] = []
        self._batch_size = 0
        self._instances = 0
        self.counts: Counter[str] = Counter()
        self.not_stored = 0
        self.label_field: str | None = None
        self.collection: Any = None

    def add(self, samples: Sequence[fo.Sample], made: Sequence[Made]) -> None:
        """Note the samples of a batch, and the labels that FiftyOne will store on them next."""
        self.count_last_batch()
        if len(self._embedded) >= _TOGETHER:
            self._write_embeddings()
        self._batch = list(zip(samples, made, strict=True))
        self._batch_size = max(self._batch_size, len(self._batch))
        if self._batch:
            self.collection = collection_of(self._batch[0][0])

    def finish(
        self, error: BaseException | None, cosines: Sequence[float] | None
    ) -> RunRecord | None:
        """Write the record to the dataset; None if nothing was stored.

        Args:
            error: what ended the run before its end; None if nothing did.
            cosines: see :class:`~promerge_fo.run_record.RunRecord`.

        Returns:
            The record of what this recorder has seen; the dataset has that of the whole run, if
            some of it was done before.
        """
        self.count_last_batch()
        if self.label_field is None or not self.counts:
            return None
        self._write_embeddings()
        record = self._clock.record(
            self._run,
            label_field=self.label_field,
            identity=self._identity,
            counts=dict(self.counts),
            instances=self._instances,
            interrupted=error is not None,
            error=(str(error) or type(error).__name__) if isinstance(error, Exception) else None,
            cosines=cosines,
            device=self._device,
            batch_size=self._batch_size,
        )
        dataset, field = root_dataset(self.collection), self.label_field
        before = find_records(dataset, field, [self._run]).get(self._run)
        register_part(dataset, record, before)
        remember_rate(record)
        return record

    def count_last_batch(self) -> None:
        """Count what FiftyOne stored of the last batch, which it has processed by now."""
        for sample, (labels, means, is_new) in self._batch:
            names = sample.field_names
            field = next((name for name in names if sample[name] is labels), None)
            if field is None:
                self.not_stored += 1
                continue
            self.label_field = field
            if not is_new:
                continue
            self.counts[labels.status] += 1
            self._instances += len(labels.detections)
            if self._embeds is not None and means is not None:
                stored = labels.to_dict()["detections"]
                self._embedded.append(Embedded(ObjectId(sample.id), stored, means))
        self._batch = []

    def _write_embeddings(self) -> None:
        embedded, self._embedded = self._embedded, []
        if self._embeds is not None and self.label_field is not None:
            dataset = root_dataset(self.collection)
            write_embeddings(dataset, self.label_field, self._embeds, embedded)
