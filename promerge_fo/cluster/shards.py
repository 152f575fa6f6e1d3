"""Parquet shards: files of masks that are written whole or not at all, with the record of the run.

A row is one image: ``filepath``, ``height`` and ``width`` in pixels, ``status``, ``error``, and for
each mask its score (``scores``) and its COCO compressed RLE at the image's size (``counts``);
``means`` are what the masks' embeddings are made of, where the run makes them. The file's metadata
hold the record of the run as JSON, under the key "promerge". Pages have checksums.
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

__all__ = [
    "EMBEDDINGS",
    "Attempts",
    "ShardError",
    "read_shard",
    "row_of",
    "set_aside",
    "write_shard",
]

EMBEDDINGS = "embeddings"  #: in the record of the run: what made them
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
        ("levels", pa.list_(pa.int32())),  # of proposals; else null
        ("parents", pa.list_(pa.int32())),  # places in these lists, or -1
        ("means", pa.binary()),  # (n, d) float32, little-endian; else null
    ]
)


class ShardError(ValueError):
    """Raised when a shard cannot be read, or belongs to another run."""


def row_of(instances: Instances) -> dict[str, Any]:
    """The row of one image, without its ``filepath``. Masks without any pixel are left out."""
    height, width = instances.masks.shape[1:]
    records = records_of(instances)
    return {
        "height": height,
        "width": width,
        "status": instances.status,
        "error": instances.error,
        "scores": [record["score"] for record in records],
        "counts": [record["segmentation"]["counts"] for record in records],
        "levels": None if instances.levels is None else instances.levels.tolist(),
        "parents": None if instances.parents is None else instances.parents.tolist(),
        "means": None if instances.means is None else instances.means.astype("<f4").tobytes(),
    }


def write_shard(path: Path, rows: Sequence[dict[str, Any]], provenance: dict[str, Any]) -> None:
    """Write a shard. It appears under its name once all of it is on the disk.

    Args:
        path: where to write it; an existing file is replaced.
        rows: rows from :func:`row_of`, each with a ``filepath`` added.
        provenance: the record of the run, as values that JSON can hold.

    Raises:
        OSError: the disk is full or cannot be reached; no part of the shard is left behind.
    """
    schema = _SCHEMA.with_metadata({_KEY: json.dumps(provenance).encode()})
    table = pa.Table.from_pylist(list(rows), schema)
    with whole_file(path, durable=True) as file:
        pq.write_table(table, file, compression="zstd", write_page_checksum=True)


def read_shard(
    path: Path, run: str, columns: Sequence[str] | None = None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of a shard, and the record of the run that made it.

    Args:
        path: the path of the shard.
        run: the run hash that the shard must have.
        columns: the columns to read; all by default.

    Raises:
        ShardError: the file is truncated, damaged or no shard, or belongs to another run.
        FileNotFoundError: the file does not exist.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            provenance = json.loads((file.schema_arrow.metadata or {})[_KEY])
            found = provenance["run_hash"]
            unknown = set(file.schema_arrow.names) - set(_SCHEMA.names)
            if unknown:  # older versions have fewer columns, none has others
                raise ValueError(f"it has columns that no version has: {sorted(unknown)}")
            rows = file.read(columns).to_pylist()
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
        raise ShardError(f"{path} is damaged: {str(error)[:300]}") from error
    if found != run:
        raise ShardError(f"{path} is of the run {found!r}, but must be of {run}")
    return rows, provenance


def set_aside(path: Path) -> Path:
    """Rename a damaged shard, so that it is not read again; returns its new path."""
    aside = path.with_suffix(".damaged")
    path.replace(aside)
    return aside


class Attempts:
    """Counts the attempts to make a shard, across workers that died.

    Args:
        path: where to keep the count: a small JSON file beside the shards.

    Attributes:
        count: the number of attempts, including this one.
        deaths: the number of workers that died while they processed one image alone, by image.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.count = 0
        self.deaths: dict[str, int] = {}
        self._image: str | None = None

    def begin(self) -> None:
        """Count one more attempt, and the death that ended the attempt before."""
        with suppress(OSError, ValueError):
            stored = json.loads(self._path.read_text(encoding="utf-8"))
            self.count, self.deaths = stored["begun"], stored["deaths"]
            if stored["at"] is not None:
                self.deaths[stored["at"]] = self.deaths.get(stored["at"], 0) + 1
        self.count += 1
        self._write()

    def begin_image(self, image: str) -> None:
        """Note that the worker processes this image alone from now on."""
        self._image = image
        self._write()

    def end(self) -> None:
        """Delete the file: the shard is written."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        content = {"begun": self.count, "deaths": self.deaths, "at": self._image}
        # A full disk is no reason to stop here: writing the shard itself will report it.
        with suppress(OSError), whole_file(self._path, "w") as file:
            json.dump(content, file)
