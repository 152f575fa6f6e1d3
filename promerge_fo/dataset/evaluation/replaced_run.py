"""Write an evaluation as a whole, or leave the earlier one of its key as it was."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

import bson
import fiftyone as fo
import fiftyone.core.utils as fou
from fiftyone.utils.eval.detection import DetectionEvaluation
from pymongo import UpdateOne

from promerge_fo.dataset.database import (
    bulk_update,
    changed_schema,
    dataset_of,
    declare_at_once,
    documents,
    is_generated,
    propagate,
    reload_samples,
    root_dataset,
)

__all__ = ["replaced_matches"]

logger = logging.getLogger("fiftyone.promerge")

_BATCH = 1000  # images that are written to the database together
_COUNTS = ("_tp", "_fp", "_fn")  # of a sample
_MATCH = {"": fo.StringField, "_id": fo.StringField, "_iou": fo.FloatField}  # of a label


@contextmanager
def replaced_matches(samples: Any, method: DetectionEvaluation, eval_key: str) -> Iterator[None]:
    """Declare the fields of an evaluation anew; the earlier ones come back if the body fails.

    Args:
        samples: a dataset or a view of images.
        method: the evaluation, whose ``config`` names the fields.
        eval_key: the key of the evaluation. If the dataset has one already, it is of these fields.
    """
    fields = [method.config.gt_field, method.config.pred_field]
    is_new = not root_dataset(samples).has_evaluation(eval_key)
    with tempfile.TemporaryFile() as before:
        if not is_new:
            _back_up(samples, eval_key, fields, before)
        try:
            _declare(samples, method, eval_key, afresh=not is_new)
            yield
        except BaseException:
            if is_new:
                with changed_schema(samples):
                    method.cleanup(samples, eval_key)
            else:
                logger.warning("the evaluation %r is being restored to what it was", eval_key)
                _declare(samples, method, eval_key, afresh=True)
                _restore(samples, eval_key, fields, before)
            raise


def _declare(samples: Any, method: DetectionEvaluation, eval_key: str, afresh: bool) -> None:
    with changed_schema(samples):
        if afresh:
            method.cleanup(samples, eval_key)
        fields = method.config.pred_field, method.config.gt_field
        of_labels = [f"{field}.detections.{eval_key}" for field in fields]
        declare_at_once(
            dataset_of(samples),
            {f"{eval_key}{suffix}": fo.IntField for suffix in _COUNTS}
            | {f"{path}{suffix}": kind for path in of_labels for suffix, kind in _MATCH.items()},
        )
        method.register_samples(samples, eval_key)  # which would declare them one by one
        method.add_fields_to_sidebar_group(samples, eval_key, omit_fields=fields)


def _back_up(samples: Any, eval_key: str, fields: Sequence[str], before: IO[bytes]) -> None:
    """Write what the evaluation stored to a file: the changes that restore it, image by image."""
    counts = [f"{eval_key}{suffix}" for suffix in _COUNTS]
    matches = [f"{field}.detections.{eval_key}{suffix}" for field in fields for suffix in _MATCH]
    query = {counts[0]: {"$exists": True, "$ne": None}}
    for document in documents(dataset_of(samples), query, *counts, *matches):
        changes = {name: document.get(name) for name in counts}
        for field in fields:
            labels = (document.get(field) or {}).get("detections") or []
            for place, label in enumerate(labels):
                path = f"{field}.detections.{place}"
                changes.update({f"{path}.{name}": value for name, value in label.items()})
        before.write(bson.encode({"_id": document["_id"], "changes": changes}))


def _restore(samples: Any, eval_key: str, fields: Sequence[str], before: IO[bytes]) -> None:
    before.seek(0)
    for batch in fou.iter_batches(bson.decode_file_iter(before), _BATCH):
        kept = list(batch)
        updates = [UpdateOne({"_id": each["_id"]}, {"$set": each["changes"]}) for each in kept]
        bulk_update(samples, updates)
        reload_samples(samples, [each["_id"] for each in kept])
    if is_generated(samples):
        for name in (*fields, *(f"{eval_key}{suffix}" for suffix in _COUNTS)):
            propagate(samples, name)
