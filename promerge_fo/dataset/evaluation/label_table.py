"""Which labels were scored: ids and places, in a few bytes for each label."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from bson import ObjectId
from numpy.typing import NDArray

from promerge_fo.dataset.stored_labels import ImageLabels

__all__ = ["FieldLabels", "LabelTable", "ScoredImage"]

_ID_BYTES = 12


class ScoredImage(NamedTuple):
    """An image of a :class:`LabelTable`.

    Attributes:
        sample_id: the id of its sample.
        is_readable: whether its size is known, without which no label is scored.
    """

    sample_id: str
    is_readable: bool


class FieldLabels:
    """The labels of one field on all images, one image after the other."""

    def __init__(self) -> None:
        self._ids = bytearray()
        self._counts, self._recorded = array("i"), array("i")
        self._places, self._scores, self._crowds = array("i"), array("d"), bytearray()

    def add(self, image: ImageLabels, field: str) -> None:
        """Take the labels of the next image."""
        ids, places = image.all_ids[field], image.places[field]
        self._ids += bytes.fromhex("".join(ids))
        self._counts.append(len(ids))
        self._recorded.append(len(places))
        self._places.extend(places)
        records = image.records[field]
        self._scores.extend(record["score"] for record in records)
        self._crowds += bytes(bool(record["iscrowd"]) for record in records)

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """(images + 1,) int64: where the labels of each image begin."""
        return _starts(self._counts)

    @cached_property
    def first_record(self) -> NDArray[np.int64]:
        """(images + 1,) int64: where the records of each image begin."""
        return _starts(self._recorded)

    @cached_property
    def recorded(self) -> NDArray[np.int64]:
        """(records,) int64: the index of each record among all labels."""
        return np.repeat(self.first[:-1], np.diff(self.first_record)) + np.array(
            self._places, np.int64
        )

    @property
    def crowds(self) -> NDArray[np.bool_]:
        """(records,) bool: which records are crowds."""
        return np.frombuffer(bytes(self._crowds), np.bool_)

    @property
    def scores(self) -> NDArray[np.float64]:
        """(records,) float64: the score of each record."""
        return np.array(self._scores)

    def __len__(self) -> int:
        return len(self._ids) // _ID_BYTES

    def ids(self, first: int = 0, last: int | None = None) -> list[str]:
        """The ids of all labels, or of those from one index up to another."""
        last = len(self) if last is None else last
        return _texts(self._ids[first * _ID_BYTES : last * _ID_BYTES])

    def object_ids(self, labels: NDArray[np.int64]) -> Iterator[ObjectId]:
        """The ids of some labels, by their indices."""
        return _object_ids(self._ids, labels)


class LabelTable(Sequence[ScoredImage]):
    """The images and labels that were scored, without what their masks and boxes are.

    Args:
        fields: the fields with the labels.

    Attributes:
        labels: the labels of each field.
    """

    def __init__(self, fields: Iterable[str]) -> None:
        self.labels = {field: FieldLabels() for field in fields}
        self._ids = bytearray()
        self._readable = bytearray()

    def noting(self, images: Iterable[ImageLabels]) -> Iterator[ImageLabels]:
        """Take each image, and hand it on."""
        for image in images:
            self._ids += bytes.fromhex(image.sample_id)
            self._readable.append(image.size is not None)
            for field, labels in self.labels.items():
                labels.add(image, field)
            yield image

    @property
    def readable(self) -> NDArray[np.int64]:
        """(n,) int64: the indices of the images whose size is known."""
        return np.flatnonzero(np.frombuffer(bytes(self._readable), np.bool_))

    def __len__(self) -> int:
        return len(self._readable)

    def __getitem__(self, i: int) -> ScoredImage:  # type: ignore[override]
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        i %= len(self)
        (sample_id,) = self.sample_ids(i, i + 1)
        return ScoredImage(sample_id, bool(self._readable[i]))

    def sample_ids(self, first: int = 0, last: int | None = None) -> list[str]:
        """The ids of all samples, or of those from one index up to another."""
        last = len(self) if last is None else last
        return _texts(self._ids[first * _ID_BYTES : last * _ID_BYTES])

    def object_ids(self, images: NDArray[np.int64]) -> Iterator[ObjectId]:
        """The ids of some samples, by their indices."""
        return _object_ids(self._ids, images)


def _starts(counts: array[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.array(counts, np.int64))])


def _texts(ids: bytearray) -> list[str]:
    """Ids of 12 bytes each as texts of 24 digits."""
    digits, size = ids.hex(), 2 * _ID_BYTES
    return [digits[k : k + size] for k in range(0, len(digits), size)]


def _object_ids(ids: bytearray, indices: NDArray[np.int64]) -> Iterator[ObjectId]:
    return (ObjectId(bytes(ids[k * _ID_BYTES : (k + 1) * _ID_BYTES])) for k in indices)
