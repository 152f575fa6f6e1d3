"""The matches of an evaluation as FiftyOne stores them: on labels, on samples and in results."""

from __future__ import annotations

from datetime import datetime, timezone
from itertools import pairwise
from typing import Any

import numpy as np
from bson import ObjectId
from numpy.typing import NDArray
from pymongo import UpdateOne

from promerge_fo.dataset.database import bulk_update, documents, is_generated, reload_samples
from promerge_fo.dataset.evaluation.coco_metrics import Matches
from promerge_fo.dataset.evaluation.label_table import LabelTable
from promerge_fo.dataset.labels import LABEL
from promerge_fo.dataset.stored_labels import stored_labels
from promerge_fo.progress import ShowProgress, progress_bar

__all__ = ["MatchedLabels"]

_CHUNK = 500  # images that are written together
_STATES = (None, "tp", "fp", "fn")
_TP, _FP, _FN = 1, 2, 3
_MISSING = "(none)"  # FiftyOne's name for the class of what has no counterpart


class MatchedLabels:
    """What an evaluation says of each label: whether it is matched, with which label, how well.

    Args:
        table: the images and labels.
        matches: the matches on the images that can be read.
        gt_field: the field with the ground truth.
        pred_field: the field with predictions.

    Attributes:
        counts: for each image the number of true positives ("_tp"), false positives ("_fp") and
            false negatives ("_fn").
    """

    COLUMNS = ("ytrue", "ypred", "ious", "confs", "ytrue_ids", "ypred_ids")  #: FiftyOne's names

    def __init__(self, table: LabelTable, matches: Matches, gt_field: str, pred_field: str) -> None:
        self._table, self._fields = table, (gt_field, pred_field)
        truth, found = table.labels[gt_field], table.labels[pred_field]
        self._states = {f: np.zeros(len(table.labels[f]), np.uint8) for f in self._fields}
        self._others = {f: np.full(len(table.labels[f]), -1) for f in self._fields}
        self._ious = {f: np.full(len(table.labels[f]), np.nan) for f in self._fields}
        image = np.repeat(table.readable, np.diff(matches.first))
        is_hit = ~matches.ignored & (matches.truth_index >= 0)
        hit_records = (truth.first_record[image] + matches.truth_index)[is_hit]
        hits, hit = found.recorded[is_hit], truth.recorded[hit_records]
        alarms = found.recorded[matches.truth_index < 0]
        is_missed = ~truth.crowds
        is_missed[hit_records] = False
        self._states[pred_field][hits], self._states[pred_field][alarms] = _TP, _FP
        self._states[gt_field][truth.recorded[is_missed]], self._states[gt_field][hit] = _FN, _TP
        for field, own, other in ((pred_field, hits, hit), (gt_field, hit, hits)):
            self._others[field][own] = other
            self._ious[field][own] = matches.ious[is_hit]
        self.counts = {
            f"_{_STATES[state]}": self._count(field, state)
            for field, state in ((pred_field, _TP), (pred_field, _FP), (gt_field, _FN))
        }

    def _count(self, field: str, state: int) -> NDArray[np.int64]:
        """(images,) the number of labels in a state."""
        total = np.concatenate([[0], np.cumsum(self._states[field] == state)])
        return np.diff(total[self._table.labels[field].first])

    def columns(self) -> dict[str, list[Any]]:
        """The matches and the labels without one, by the names of :attr:`COLUMNS`."""
        gt_field, pred_field = self._fields
        found, states = self._table.labels[pred_field], self._states[pred_field]
        truth_ids, found_ids = self._table.labels[gt_field].ids(), found.ids()
        counted = np.flatnonzero(states[found.recorded])
        labels = found.recorded[counted]
        missed = np.flatnonzero(self._states[gt_field] == _FN)
        none = [None] * len(missed)
        is_hit = (states[labels] == _TP).tolist()
        others, ious = self._others[pred_field][labels], self._ious[pred_field][labels].tolist()
        return {
            "ytrue": [LABEL if hit else _MISSING for hit in is_hit] + [LABEL] * len(missed),
            "ypred": [LABEL] * len(labels) + [_MISSING] * len(missed),
            "ious": [iou if hit else None for hit, iou in zip(is_hit, ious, strict=True)] + none,
            "confs": found.scores[counted].tolist() + none,
            "ytrue_ids": [truth_ids[k] if k >= 0 else None for k in others.tolist()]
            + [truth_ids[k] for k in missed.tolist()],
            "ypred_ids": [found_ids[k] for k in labels.tolist()] + none,
        }

    def write(self, samples: Any, eval_key: str, progress: ShowProgress) -> None:
        """Write the matches to labels and samples.

        Args:
            samples: a dataset or a view, the one that was read.
            eval_key: the key of the run.
            progress: see :data:`promerge_fo.progress.ShowProgress`.
        """
        if is_generated(samples):
            self._set_values(samples, eval_key)
            return
        # One update for each sample: FiftyOne makes one for each label and attribute, which takes
        # minutes.
        with progress_bar(progress, len(self._table)) as bar:
            for first in range(0, len(self._table), _CHUNK):
                last = min(first + _CHUNK, len(self._table))
                self._write_images(samples, eval_key, first, last)
                bar.update(last - first)

    def _write_images(self, samples: Any, eval_key: str, first: int, last: int) -> None:
        """Write what belongs to the images from one index up to another."""
        ids = [ObjectId(each) for each in self._table.sample_ids(first, last)]
        paths = [f"{field}.detections._id" for field in self._fields]
        places = {
            (document["_id"], field): {
                label.id: i for i, label in enumerate(stored_labels(document, field))
            }
            for document in documents(samples, {"_id": {"$in": ids}}, *paths)
            for field in self._fields
        }
        values = {field: self._values(field, first, last) for field in self._fields}
        counts = {suffix: all_[first:last].tolist() for suffix, all_ in self.counts.items()}
        now = datetime.now(timezone.utc)
        updates = []
        for k, sample_id in enumerate(ids):
            changes: dict[str, Any] = {"last_modified_at": now}
            for suffix in counts:
                changes[f"{eval_key}{suffix}"] = counts[suffix][k]
            for field in self._fields:
                for label_id, state, other, iou in values[field][k]:
                    place = places[sample_id, field][label_id]
                    path = f"{field}.detections.{place}.{eval_key}"
                    changes |= {path: state, f"{path}_id": other, f"{path}_iou": iou}
            updates.append(UpdateOne({"_id": sample_id}, {"$set": changes}))
        bulk_update(samples, updates)
        reload_samples(samples, ids)

    def _values(self, field: str, first: int, last: int) -> list[list[tuple[Any, ...]]]:
        """For each of some images (id, state, id of the other label, IoU) of each label."""
        labels = self._table.labels[field]
        starts = labels.first[first : last + 1]
        part = slice(starts[0], starts[-1])
        gt_field, pred_field = self._fields
        others = self._table.labels[pred_field if field == gt_field else gt_field]
        of = self._others[field][part]
        known = map(str, others.object_ids(of[of >= 0]))
        columns = (
            labels.ids(starts[0], starts[-1]),
            self._states[field][part].tolist(),
            of.tolist(),
            self._ious[field][part].tolist(),
        )
        rows = [
            (label_id, _STATES[state], *((next(known), iou) if other >= 0 else (None, None)))
            for label_id, state, other, iou in zip(*columns, strict=True)
        ]
        return [rows[a:b] for a, b in pairwise((starts - starts[0]).tolist())]

    def _set_values(self, samples: Any, eval_key: str) -> None:
        """Write to patches and frames by FiftyOne's way, which passes values on to their source."""
        for field in self._fields:
            images = self._values(field, 0, len(self._table))
            for column, suffix in enumerate(("", "_id", "_iou"), start=1):
                values = [[label[column] for label in labels] for labels in images]
                samples.set_values(f"{field}.detections.{eval_key}{suffix}", values)
        for suffix, counts in self.counts.items():
            samples.set_values(f"{eval_key}{suffix}", counts.tolist())
