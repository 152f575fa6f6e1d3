"""Read a file of predictions: check each entry, and make labels that are stored later."""

from __future__ import annotations

import heapq
import os
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import bson
import numpy as np
from bson.raw_bson import RawBSONDocument
from numpy.typing import NDArray

from promerge_fo.annotations.json_stream import read_elements
from promerge_fo.annotations.untrusted_masks import EntryError, number
from promerge_fo.dataset.database import aggregate
from promerge_fo.dataset.exchange.image_index import ImageIndex
from promerge_fo.dataset.exchange.tensor_file import is_tensor_file, tensor_entries
from promerge_fo.dataset.labels import LABEL
from promerge_fo.dataset.sizes import image_size
from promerge_fo.dataset.stored_labels import LARGEST, label_document
from promerge_fo.images import ImageError
from promerge_fo.words import is_text

__all__ = ["Images", "ImportReport", "Intake"]

_MAX_ID_LENGTH = 4096  # characters
_MAX_LISTED = 100  # problems, and ids of unmatched images, that a report lists


@dataclass(frozen=True)
class ImportReport:
    """What an import stored, and what it left out.

    Attributes:
        label_field: the field with the labels.
        run: the run hash, under which :func:`~promerge_fo.dataset.list_runs` lists the import.
        entries: the number of predictions in the file.
        labels: the number of labels that were stored.
        images: the number of images with at least one of these labels.
        below_min_score: the number of predictions left out because of ``min_score``.
        beyond_top_k: the number of predictions left out because of ``top_k``.
        unmatched: the number of predictions whose image is not among the samples.
        unmatched_ids: the first 100 image ids of unmatched predictions.
        skipped: the number of malformed predictions by kind of fault.
        problems: one line for each of the first 100 malformed predictions, with the number of the
            entry (from 0) and the reason.
    """

    label_field: str
    run: str
    entries: int = 0
    labels: int = 0
    images: int = 0
    below_min_score: int = 0
    beyond_top_k: int = 0
    unmatched: int = 0
    unmatched_ids: tuple[int | str, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [
            f"{self.labels} labels on {self.images} images in the field {self.label_field!r}, "
            f"of {self.entries} predictions"
        ]
        if self.below_min_score:
            lines.append(f"{self.below_min_score} below the least score")
        if self.beyond_top_k:
            lines.append(f"{self.beyond_top_k} beyond the best of their images")
        if self.unmatched:
            examples = ", ".join(f"{i!a:.60}" for i in self.unmatched_ids[:5])
            lines.append(f"{self.unmatched} of images that are not here, such as {examples}")
        if self.skipped:
            kinds = ", ".join(f"{n} {kind}" for kind, n in self.skipped.items())
            lines.append(f"{sum(self.skipped.values())} malformed ({kinds}):")
            lines += [f"  {problem}" for problem in self.problems[:10]]
        return "\n".join(lines)


class Images:
    """The images of the samples: their ids, how to find them, and their sizes.

    Args:
        samples: a dataset or a view of images.
        annotations: an annotation file that defines the image ids, or None; see
            :class:`~promerge_fo.dataset.exchange.image_index.ImageIndex`.

    Attributes:
        ids: the samples' ids, in order.
        paths: the paths of their files.
        index: finds the position of a sample by an image id.
    """

    def __init__(self, samples: Any, annotations: str | os.PathLike[str] | None) -> None:
        self.ids: list[bson.ObjectId] = []
        self.paths: list[str] = []
        self._metadata: list[dict[str, Any] | None] = []
        self._sizes: dict[int, tuple[int, int] | EntryError] = {}
        for document in aggregate(samples.select_fields("metadata")):
            self.ids.append(document["_id"])
            self.paths.append(document["filepath"])
            self._metadata.append(document.get("metadata"))
        self.index = ImageIndex(samples, self.paths, annotations)

    def size(self, position: int) -> tuple[int, int]:
        """The size of an image, as it is shown.

        Args:
            position: the position of the image among the samples.

        Returns:
            (height, width) in pixels.

        Raises:
            EntryError: the image cannot be read.
        """
        if position not in self._sizes:
            document = {"filepath": self.paths[position], "metadata": self._metadata[position]}
            try:
                self._sizes[position] = image_size(document)
            except ImageError as reason:
                self._sizes[position] = EntryError(
                    "unreadable", f"its image cannot be read: {reason}"
                )
        size = self._sizes[position]
        if isinstance(size, EntryError):
            raise size
        return size


class Intake:
    """Reads and checks predictions, and keeps the labels of the valid ones in a temporary file.

    Args:
        images: the images that the predictions may be of.
        names: label names by ``category_id``; None takes those of the entries (``category_name``),
            or else "fg".
        min_score: leave out predictions with a lower score.
        top_k: keep at most this many predictions per image, those with the highest scores.
        scratch: an empty temporary file, open for reading and writing.
    """

    def __init__(
        self,
        images: Images,
        names: Mapping[int, str] | None,
        min_score: float | None,
        top_k: int | None,
        scratch: IO[bytes],
    ) -> None:
        self._images = images
        self._names = names
        self._min_score = -1.0 if min_score is None else min_score
        self._top_k = top_k
        self._scratch = scratch
        # for each label in the scratch file: its image, its score, and the byte after it
        self._positions, self._scores = array("q"), array("d")
        self._ends = array("q", [0])
        # for each image, a heap of its top_k scores so far
        self._best: defaultdict[int, list[float]] = defaultdict(list)
        self._ids: set[int] = set()
        self._entries = 0
        self._below_min_score = 0
        self._beyond_top_k = 0
        self._unmatched = 0
        self._unmatched_ids: dict[int | str, None] = {}
        self._skipped = Counter[str]()
        self._problems: list[str] = []

    def read(self, path: Path) -> None:
        """Read and check all predictions of a file.

        Raises:
            ValueError: the file is not JSON to its end, or has an entry that is too long; or it is
                one of tensors that are no predictions.
            OSError: the file cannot be read.
        """
        tensors = is_tensor_file(path)
        found = tensor_entries(path, self._images.paths) if tensors else read_elements(path)
        for section, index, value in found:
            if section not in (None, "annotations"):
                continue
            self._entries += 1
            try:
                self._take(value)
            except EntryError as reason:
                self._skipped[reason.what] += 1
                if len(self._problems) < _MAX_LISTED:
                    self._problems.append(f"entry {index}: {reason}")

    def _take(self, entry: object) -> None:
        """Check one prediction, and keep its label if it is to be stored."""
        if not isinstance(entry, dict):
            raise EntryError("entry", "it is no object")
        self._check_id(entry.get("id"))
        image_id = entry.get("image_id")
        if image_id is None or not _is_id(image_id):
            raise EntryError("image_id", "its image_id is neither a whole number nor a short text")
        name = entry.get("file_name")
        if _is_id(name) and isinstance(name, str) and not self._images.index.is_by_file:
            image_id = name  # of ultralytics, whose image_id is made of the file's name
        position = self._images.index.find(image_id)
        if position is None:
            self._unmatched += 1
            if len(self._unmatched_ids) < _MAX_LISTED:
                self._unmatched_ids[image_id] = None
            return
        confidence = _confidence(entry.get("score"))
        label = self._label_name(entry.get("category_id"), entry.get("category_name"))
        score = 1.0 if confidence is None else confidence
        if score < self._min_score:
            self._below_min_score += 1
            return
        best = self._best[position] if self._top_k is not None else []
        if len(best) == self._top_k and score <= best[0]:
            self._beyond_top_k += 1
            return
        stored = label_document(entry, self._images.size(position), confidence, label)
        if len(best) == self._top_k:
            heapq.heapreplace(best, score)
        else:
            heapq.heappush(best, score)
        self._scratch.write(bson.encode(stored))
        self._ends.append(self._scratch.tell())
        self._positions.append(position)
        self._scores.append(score)

    def _check_id(self, entry_id: Any) -> None:
        if entry_id is None:
            return
        if not _is_id(entry_id):
            raise EntryError("id", "its id is neither a whole number nor a short text")
        fits = type(entry_id) is int and abs(entry_id) < 1 << 63
        key = entry_id if fits else hash(entry_id)  # takes a few bytes, however long the id is
        if key in self._ids:
            raise EntryError("id", f"an entry before it has the same id, {entry_id!a:.40}")
        self._ids.add(key)

    def _label_name(self, category: object, name: object) -> str:
        if category is not None and type(category) is not int:
            raise EntryError("category_id", "its category_id is no whole number")
        if self._names is None and name in (None, ""):
            return LABEL
        if self._names is None:
            if not is_text(name) or len(name) > _MAX_ID_LENGTH:
                raise EntryError("category_name", "its category_name is no short text")
            return name
        if category is None or category not in self._names:
            raise EntryError("category_id", f"its category_id {category!a:.40} has no name")
        return self._names[category]

    def choose(self) -> NDArray[np.int64]:
        """Choose the labels to store, by ``top_k``.

        Returns:
            (n,) int64, the indices of the chosen labels among those that were read, ordered by
            image, then as in the file.
        """
        positions, scores = np.array(self._positions, np.int64), np.array(self._scores, np.float64)
        chosen = np.arange(len(positions))
        if self._top_k is not None:
            order = np.lexsort((chosen, -scores, positions))
            starts = np.searchsorted(positions[order], positions[order])
            kept = order[chosen - starts < self._top_k]
            self._beyond_top_k += len(chosen) - len(kept)
            chosen = np.sort(kept)
        return np.asarray(chosen[np.argsort(positions[chosen], kind="stable")])

    def report(
        self, path: Path, label_field: str, run: str, chosen: NDArray[np.int64]
    ) -> ImportReport:
        """Report what will be stored, and what was left out.

        Args:
            path: the file that was read, for messages.
            label_field: the field for the labels.
            run: the run hash.
            chosen: from :meth:`choose`.

        Raises:
            ValueError: none of the file's entries can be imported, or the labels of one image are
                too large for the database.
        """
        report = ImportReport(
            label_field=label_field,
            run=run,
            entries=self._entries,
            labels=len(chosen),
            images=len(np.unique(np.array(self._positions, np.int64)[chosen])),
            below_min_score=self._below_min_score,
            beyond_top_k=self._beyond_top_k,
            unmatched=self._unmatched,
            unmatched_ids=tuple(self._unmatched_ids),
            skipped=dict(self._skipped),
            problems=tuple(self._problems),
        )
        if self._entries and self._unmatched + sum(self._skipped.values()) == self._entries:
            raise ValueError(f"nothing of {path} can be imported; nothing is changed.\n{report}")
        positions, ends = np.array(self._positions, np.int64), np.array(self._ends)
        sizes = np.bincount(positions[chosen], np.diff(ends)[chosen])
        if sizes.max(initial=0) > LARGEST:
            raise ValueError(
                f"the labels of one image take {sizes.max() / 2**20:.1f} MB, but the database "
                f"stores at most {LARGEST / 2**20:.1f} MB; give top_k or min_score. "
                "Nothing is changed"
            )
        return report

    def labels(self, chosen: NDArray[np.int64]) -> Iterator[list[RawBSONDocument]]:
        """The chosen labels of each image, for all images in order, as documents to store."""
        positions = np.array(self._positions, np.int64)[chosen]
        bounds = np.searchsorted(positions, np.arange(len(self._images.ids) + 1))
        for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            yield [self._read_label(k) for k in chosen[first:last].tolist()]

    def _read_label(self, k: int) -> RawBSONDocument:
        self._scratch.seek(self._ends[k])
        return RawBSONDocument(self._scratch.read(self._ends[k + 1] - self._ends[k]))


def _is_id(value: object) -> bool:
    """Whether a value can be an id: a whole number, or a text no longer than a path."""
    return type(value) is int or (type(value) is str and len(value) <= _MAX_ID_LENGTH)


def _confidence(score: object) -> float | None:
    if score is None:
        return None
    value = number(score)
    if value is None or not 0 <= value <= 1:
        raise EntryError("score", f"its score is {score!a:.40}, but must lie in [0, 1]")
    return value
