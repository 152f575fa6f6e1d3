"""Results of settings on images, on disk as soon as they are there."""

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
_SOME = 500  # images asked for at once; SQLite takes some thousand values in one question


@dataclass(frozen=True)
class Result:
    """What one setting made of one image.

    Attributes:
        run: the run hash.
        image: SHA-256 of the image's file.
        status: as :class:`promerge_fo.Instances` has it.
        size: (height, width) of the image.
        records: of each mask, as COCO's JSON has it, with ``score``.
        seconds: for segmenting and refining.
        encoding_seconds: that the encoder took.
    """

    run: str
    image: str
    status: str
    size: tuple[int, int]
    records: list[dict[str, Any]]
    seconds: float
    encoding_seconds: float


class ResultStore:
    """A file of results (SQLite), which a killed process leaves whole.

    Several processes may use it at once. What is there is never written again.

    Args:
        path: of the file, which is made where it is missing.
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
        """The images of which a run has results."""
        rows = self._connection.execute("select image from results where run = ?", (run,))
        return {image for (image,) in rows}

    def add(self, results: Iterable[Result]) -> None:
        """Write results, all or none."""
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
        """The results of a run on some images, by image."""
        found = {}
        for first in range(0, len(images), _SOME):
            some = images[first : first + _SOME]
            marks = ", ".join("?" * len(some))
            rows = self._connection.execute(
                f"select * from results where run = ? and image in ({marks})", (run, *some)
            )
            for _, image, status, height, width, records, *seconds in rows:
                made = json.loads(zlib.decompress(records))
                found[image] = Result(run, image, status, (height, width), made, *seconds)
        return found
