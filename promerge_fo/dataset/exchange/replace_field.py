"""Replace the labels of a field as a whole, or not at all."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import IO, Any

import bson
import fiftyone as fo
import fiftyone.core.utils as fou
from pymongo import UpdateOne

from promerge_fo.dataset.database import (
    bulk_update,
    changed_schema,
    dataset_of,
    documents,
    reload_samples,
    validate_field_name,
)
from promerge_fo.dataset.decided import Kept
from promerge_fo.dataset.labels import declare_field
from promerge_fo.dataset.samples import require_detections, settled

__all__ = ["replaced_field", "require_free_field"]

logger = logging.getLogger("fiftyone.promerge")

_BATCH = 100  # images that are written to the database together


def require_free_field(samples: Any, label_field: str, overwrite: bool) -> None:
    """Check that labels can be written to a field without losing other ones.

    Args:
        samples: a dataset or a view.
        label_field: the field for the labels.
        overwrite: whether labels that the field already has may be replaced.

    Raises:
        ValueError: no field can have this name; or the field holds something other than
            detections; or it has labels that must not be replaced.
    """
    validate_field_name(label_field)
    if "." in label_field:
        raise ValueError(
            f"the field {label_field!r} would lie in another one; give a plain name, without a dot"
        )
    if not dataset_of(samples).has_field(label_field):
        return
    require_detections(dataset_of(samples), label_field)
    filled = sum(part.count(label_field) for part in settled(samples))
    if filled and not overwrite:
        raise ValueError(
            f"the field {label_field!r} has labels on {filled} images; give another field, or "
            "replace them with overwrite=True (--overwrite)"
        )


@contextmanager
def replaced_field(
    samples: Any,
    label_field: str,
    ids: Sequence[bson.ObjectId],
    documents: Iterable[dict[str, Any]],
    drop_decisions: bool = False,
) -> Iterator[None]:
    """Write labels to a field, and restore the field if that or the body of the ``with`` fails.

    What people did to labels goes to the new ones that nearly equal them.

    Args:
        samples: the dataset or view with the samples.
        label_field: a field of detections, or a new one.
        ids: the ids of the samples.
        documents: for each sample, the Detections document to store.
        drop_decisions: go on where no new label equals one that people worked on.

    Raises:
        DecisionsLostError: what people did to labels would be lost.
    """
    dataset = dataset_of(samples)
    is_new = not dataset.has_field(label_field)
    kept = Kept(settled(samples), label_field)
    lost: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryFile() as before:
        try:
            declare_field(samples, label_field)
            for batch in fou.iter_batches(zip(ids, documents, strict=True), _BATCH):
                pairs = list(batch)
                for sample_id, document in pairs:
                    lost[str(sample_id)] = kept.hand_on(str(sample_id), document)
                if not is_new:
                    _back_up(dataset, label_field, [sample_id for sample_id, _ in pairs], before)
                _write(dataset, label_field, pairs)
            kept.part_with(lost, drop_decisions)
            declare_field(samples, label_field)  # now that frames have labels for their videos
            yield
        except BaseException:
            logger.warning("the field %r is being restored to what it was", label_field)
            if is_new and dataset.has_field(label_field):
                with changed_schema(dataset):
                    dataset.delete_sample_field(label_field)
            elif not is_new:
                _restore(dataset, label_field, before)
            raise


def _back_up(
    dataset: fo.Dataset, label_field: str, ids: Sequence[bson.ObjectId], before: IO[bytes]
) -> None:
    for document in documents(dataset, {"_id": {"$in": list(ids)}}, label_field):
        before.write(bson.encode(document))


def _restore(dataset: fo.Dataset, label_field: str, before: IO[bytes]) -> None:
    before.seek(0)
    documents = bson.decode_file_iter(before)
    for batch in fou.iter_batches(documents, _BATCH):
        _write(dataset, label_field, [(d["_id"], d.get(label_field)) for d in batch])


def _write(
    dataset: fo.Dataset,
    label_field: str,
    pairs: Sequence[tuple[bson.ObjectId, dict[str, Any] | None]],
) -> None:
    now = datetime.now(timezone.utc)
    updates = [
        UpdateOne({"_id": sample_id}, {"$set": {label_field: labels, "last_modified_at": now}})
        for sample_id, labels in pairs
    ]
    bulk_update(dataset, updates)
    reload_samples(dataset, [sample_id for sample_id, _ in pairs])
