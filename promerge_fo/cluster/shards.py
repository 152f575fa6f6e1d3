"""Parquet shards of masks: whole or not there, with what made them; and how often each was begun.

A row is an image: ``filepath``, ``height`` and ``width`` in pixels, ``status``, ``error``, and of
each mask its ``scores`` and ``counts``, COCO's compressed RLE at the image's size. The file's
metadata hold, under "promerge", the provenance as JSON. Pages have checksums.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from promerge_fo.annotations.rle import records_of
from promerge_fo.files import whole_file
from promerge_fo.instances import Instances

__all__ = ["Attempts", "ShardError", "read_shard", "row_of", "set_aside", "write_shard"]

_KEY = b"promerge"
_SCHEMA = pa.schema(
    [
        ("filepath", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("scores", pa.list_(pa.float32())),
        ("counts", pa.list_(pa.string())),
    ]
)


class ShardError(ValueError):
    """A shard that cannot be read, or is of another run."""


def row_of(instances: Instances) -> dict[str, Any]:
    """What a shard says of one image, but for its path; masks without a pixel are left out."""
    height, width = instances.masks.shape[1:]
    records = records_of(instances)
    return {
        "height": height,
        "width": width,
        "status": instances.status,
        "error": instances.error,
        "scores": [record["score"] for record in records],
        "counts": [record["segmentation"]["counts"] for record in records],
    }


def write_shard(path: Path, rows: Sequence[dict[str, Any]], provenance: dict[str, Any]) -> None:
    """Write a shard, which appears under its name once all of it is on the disk.

    Args:
        path: of the shard; what is there is replaced.
        rows: of :func:`row_of`, each with ``filepath``.
        provenance: what JSON can hold.

    Raises:
        OSError: the disk is full, or gone; nothing is left of the shard.
    """
    schema = _SCHEMA.with_metadata({_KEY: json.dumps(provenance).encode()})
    table = pa.Table.from_pylist(list(rows), schema)
    with whole_file(path, durable=True) as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)


def read_shard(
    path: Path, run: str, columns: Sequence[str] | None = None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of a shard and its provenance.

    Args:
        path: of the shard.
        run: the run hash that it is to have.
        columns: of the rows; all by default.

    Raises:
        ShardError: it is truncated, damaged, no shard, or of another run.
        FileNotFoundError: it is not there.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            provenance = json.loads((file.schema_arrow.metadata or {})[_KEY])
            found = provenance["run_hash"]
            rows = file.read(columns).to_pylist()
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
        raise ShardError(f"{path} is damaged: {str(error)[:300]}") from error
    if found != run:
        raise ShardError(f"{path} is of the run {found!r}, but must be of {run}")
    return rows, provenance


def set_aside(path: Path) -> Path:
    """Give a damaged shard another name, by which nobody reads it; returns that."""
    aside = path.with_suffix(".damaged")
    path.replace(aside)
    return aside


class Attempts:
    """Remembers, over the deaths of workers, how often a shard was begun and what they died of.

    Args:
        path: of a small JSON file beside the shards.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.begun = 0  #: times
        self.deaths: dict[str, int] = {}  #: by the image that was alone at work
        self._at: str | None = None

    def begin(self) -> None:
        """Count one more, and what the last one died of."""
        with suppress(OSError, ValueError):
            stored = json.loads(self._path.read_text())
            self.begun, self.deaths = stored["begun"], stored["deaths"]
            if stored["at"] is not None:
                self.deaths[stored["at"]] = self.deaths.get(stored["at"], 0) + 1
        self.begun += 1
        self._write()

    def at(self, image: str) -> None:
        """Note that this image, and no other, is at work."""
        self._at = image
        self._write()

    def end(self) -> None:
        """Forget all: the shard is written."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        content = {"begun": self.begun, "deaths": self.deaths, "at": self._at}
        # a full disk is no reason to stop here: writing the shard itself will say so
        with suppress(OSError), whole_file(self._path, "w") as file:
            json.dump(content, file)
