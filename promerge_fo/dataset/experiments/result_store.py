"""The results of settings on images, kept in a SQLite file as soon as they are computed."""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["Result", "ResultStore"]

_TABLE = """
create table if not exists results (
    run text, image text, status text, height integer, width integer, records blob,
    seconds real, encoding_seconds real, primary key (run, image)
) without rowid
"""
_BATCH = 500  # images per query; SQLite allows some thousand parameters in one


@dataclass(frozen=True)
class Result:
    """The result of one setting on one image.

    Attributes:
        run: the hash that names the setting's results.
        image: the SHA-256 of the image file.
        status: the status, see :class:`promerge_fo.Instances`.
        size: (height, width) of the image in pixels.
        records: the record of each mask in COCO's format, with ``score``.
        seconds: the time for segmenting and refining.
        encoding_seconds: the time for encoding.
    """

    run: str
    image: str
    status: str
    size: tuple[int, int]
    records: list[dict[str, Any]]
    seconds: float
    encoding_seconds: float


class ResultStore:
    """A SQLite file of results. It stays intact if a process that writes to it is killed.

    Several processes may use it at the same time. A stored result is never overwritten.

    Args:
        path: the path of the file; a missing file is created.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, timeout=60)
        with self._connection:
            self._connection.execute(_TABLE)

    def __enter__(self) -> ResultStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def done(self, run: str) -> set[str]:
        """The images that have a result of a setting, by their SHA-256."""
        rows = self._connection.execute("select image from results where run = ?", (run,))
        return {image for (image,) in rows}

    def add(self, results: Iterable[Result]) -> None:
        """Write results: all of them, or none if that fails."""
        rows = [
            (
                result.run,
                result.image,
                result.status,
                *result.size,
                zlib.compress(json.dumps(result.records).encode()),
                result.seconds,
                result.encoding_seconds,
            )
            for result in results
        ]
        with self._connection:
            self._connection.executemany(
                "insert or ignore into results values (?, ?, ?, ?, ?, ?, ?, ?)", rows
            )

    def read(self, run: str, images: Sequence[str]) -> dict[str, Result]:
        """The results of a setting on some images, by image."""
        results = {}
        for first in range(0, len(images), _BATCH):
            batch = images[first : first + _BATCH]
            placeholders = ", ".join("?" * len(batch))
            rows = self._connection.execute(
                f"select * from results where run = ? and image in ({placeholders})", (run, *batch)
            )
            for _, image, status, height, width, compressed, *seconds in rows:
                records = json.loads(zlib.decompress(compressed))
                results[image] = Result(run, image, status, (height, width), records, *seconds)
        return results
