"""A worker on Ray: it loads the encoder once, and then makes one shard after the other."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict

from promerge_fo.cluster.shards import (
    EMBEDDINGS,
    Attempts,
    ShardError,
    read_shard,
    row_of,
    write_shard,
)
from promerge_fo.config import run_hash
from promerge_fo.encoder.base import Facet
from promerge_fo.instances import Instances
from promerge_fo.pipeline import Pipeline, pipeline_of
from promerge_fo.run_record import RunClock
from promerge_fo.words import reason_of

__all__ = ["PipelineFactory", "Recipe", "Segmenter", "ShardResult", "ShardTask"]

_WAITS_S = (2.0, 10.0, 30.0)  # before each new attempt to write a shard
_ONE_BY_ONE_AFTER = 2  # attempts at a shard, after which its images are processed one by one
_MAX_DEATHS = 3  # deaths of workers on one image alone, after which the image has failed


class ShardTask(TypedDict):
    """One shard to make: its file name, and the paths of its images."""

    shard: str
    paths: list[str]


class ShardResult(TypedDict):
    """The file name of a shard, and None or the reason why it could not be written."""

    shard: str
    error: str | None


class PipelineFactory(Protocol):
    """Makes a pipeline on a worker; sent to workers because a pipeline itself is far larger."""

    @property
    def identity(self) -> dict[str, Any]:
        """The identity of the pipeline, see :meth:`promerge_fo.Pipeline.identity`."""

    @property
    def embed(self) -> bool:
        """Whether the pipeline embeds masks."""

    def __call__(self, device: str, threads: int) -> Pipeline:
        """Make the pipeline, which must have this identity."""


@dataclass(frozen=True)
class Recipe:
    """Makes a pipeline from its identity, on machines that have the weights or can download them.

    Attributes:
        identity: the identity of the pipeline, from :meth:`promerge_fo.Pipeline.identity`.
        checkpoint: the file with the encoder's weights, at the same path on all machines.
        compile: see :func:`promerge_fo.load_encoder`.
        embed: whether the masks also get embeddings, see :func:`promerge_fo.dataset.load_model`.
        embed_facet: see there.
        embed_block: see there.
    """

    identity: dict[str, Any]
    checkpoint: str | None = None
    compile: bool = False
    embed: bool = False
    embed_facet: Facet | None = None
    embed_block: int | None = None

    def __call__(self, device: str, threads: int) -> Pipeline:
        """Make the pipeline.

        Raises:
            ValueError: the weights on this machine are not those of the run.
        """
        return pipeline_of(
            self.identity, self.checkpoint, device, compile=self.compile, threads=threads,
            embed=self.embed, embed_facet=self.embed_facet, embed_block=self.embed_block,
        )  # fmt: skip


class Segmenter:
    """Makes shards; an actor in Ray's terms.

    Args:
        recipe: makes the pipeline.
        folder: the folder for the shards.
        device: a torch device.
        threads: the number of threads that segment and refine.
        batch_size: the number of images that a GPU encodes together.

    Raises:
        ValueError: the pipeline on this machine differs from that of the run.
    """

    def __init__(
        self, recipe: PipelineFactory, folder: Path, device: str, threads: int, batch_size: int
    ) -> None:
        self._pipeline = recipe(device, threads)
        self._run = run_hash(recipe.identity)
        if self._pipeline.hash != self._run:
            raise ValueError(
                f"the pipeline on {socket.gethostname()} has the run hash {self._pipeline.hash}, "
                f"but must have {self._run}; all machines want the same version, weights and "
                "settings"
            )
        self._folder = folder
        self._device = device
        self._batch_size = batch_size

    def __call__(self, task: ShardTask) -> ShardResult:
        """Make one shard, unless a worker has written it before."""
        path = self._folder / task["shard"]
        if not self._is_written(path):
            attempts = Attempts(self._folder / "attempts" / f"{path.stem}.json")
            attempts.begin()
            try:
                self._make(path, task["paths"], attempts)
            except OSError as error:
                return {"shard": path.name, "error": reason_of(error)}
            attempts.end()
        return {"shard": path.name, "error": None}

    def _is_written(self, path: Path) -> bool:
        """Whether the shard is there, whole: a worker may die right after it wrote it."""
        try:
            read_shard(path, self._run)
        except (FileNotFoundError, ShardError):
            return False
        return True

    def _make(self, path: Path, images: Sequence[str], attempts: Attempts) -> None:
        clock = RunClock()
        if attempts.count > _ONE_BY_ONE_AFTER:
            rows = [self._process_alone(image, attempts) for image in images]
        else:
            rows = list(self._pipeline.run(images, self._batch_size, then=row_of))
            for k, image in enumerate(images):
                if rows[k]["status"] == "failed":  # once more: alone, it may have enough memory
                    rows[k] = row_of(self._pipeline([image])[0])
        record = clock.record(
            self._run,
            identity=self._pipeline.identity(),
            counts=dict(Counter(row["status"] for row in rows)),
            instances=sum(len(row["counts"]) for row in rows),
            host=socket.gethostname(),
            device=self._device,
        )
        provenance = record.to_dict()
        if self._pipeline.embed:
            provenance[EMBEDDINGS] = self._pipeline.encoder.embedding_identity()
        with_paths = [{"filepath": image, **row} for image, row in zip(images, rows, strict=True)]
        for wait in _WAITS_S:
            try:
                return write_shard(path, with_paths, provenance)
            except OSError:
                time.sleep(wait)
        write_shard(path, with_paths, provenance)

    def _process_alone(self, image: str, attempts: Attempts) -> dict[str, Any]:
        """The row of one image; if too many workers have died on it, a row that says so."""
        deaths = attempts.deaths.get(image, 0)
        if deaths >= _MAX_DEATHS:
            reason = (
                f"{image}: {deaths} workers died at this image alone; probably it needs more "
                "memory than there is"
            )
            return row_of(Instances.failed(reason))
        attempts.begin_image(image)
        return row_of(self._pipeline([image])[0])
