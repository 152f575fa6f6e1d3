"""What a worker does: it loads the encoder once, and makes one shard after the other."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from promerge_fo.cluster.shards import Attempts, ShardError, read_shard, row_of, write_shard
from promerge_fo.config import run_hash
from promerge_fo.instances import Instances
from promerge_fo.pipeline import Pipeline, pipeline_of
from promerge_fo.run_record import RunClock

__all__ = ["MakesPipeline", "Recipe", "Segmenter"]

_WAITS_S = (2.0, 10.0, 30.0)  # before a shard is written again
_CAREFUL_AFTER = 2  # deaths of workers over one shard, after which its images go one by one
_DEADLY = 3  # deaths over one image, after which it has failed


class MakesPipeline(Protocol):
    """What a run hands to its workers in place of a pipeline, which is far larger."""

    @property
    def identity(self) -> dict[str, Any]:
        """What :meth:`promerge_fo.Pipeline.identity` gives."""

    def __call__(self, device: str, threads: int) -> Pipeline:
        """The pipeline, whose identity must be this one."""


@dataclass(frozen=True)
class Recipe:
    """A pipeline by its identity, for machines that have the weights or can get them.

    Attributes:
        identity: what :meth:`promerge_fo.Pipeline.identity` gives.
        checkpoint: the file with the encoder's weights, on all machines at the same place.
        compile: see :func:`promerge_fo.load_encoder`.
    """

    identity: dict[str, Any]
    checkpoint: str | None = None
    compile: bool = False

    def __call__(self, device: str, threads: int) -> Pipeline:
        """The pipeline.

        Raises:
            ValueError: the weights here are others than the run's.
        """
        return pipeline_of(
            self.identity, self.checkpoint, device, compile=self.compile, threads=threads
        )


class Segmenter:
    """Makes shards: what Ray's actors are.

    Args:
        recipe: of the pipeline.
        folder: for the shards.
        device: a torch device.
        threads: that segment and refine.
        batch_size: images that a GPU encodes together.
    """

    def __init__(
        self, recipe: MakesPipeline, folder: Path, device: str, threads: int, batch_size: int
    ) -> None:
        self._pipeline = recipe(device, threads)
        self._run = run_hash(recipe.identity)
        if self._pipeline.hash != self._run:
            raise ValueError(
                f"the pipeline on {socket.gethostname()} is the run {self._pipeline.hash}, but "
                f"must be {self._run}; all machines want the same version, weights and settings"
            )
        self._folder = folder
        self._device = device
        self._batch_size = batch_size

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        """Make one shard.

        Args:
            task: ``shard``, its name, and ``paths``, of the images.

        Returns:
            ``shard`` and ``error``: None, or why it could not be written.
        """
        path = self._folder / task["shard"]
        if not self._is_there(path):
            attempts = Attempts(self._folder / "attempts" / f"{path.stem}.json")
            attempts.begin()
            try:
                self._make(path, task["paths"], attempts)
            except OSError as error:
                return {"shard": path.name, "error": f"{type(error).__name__}: {error}"}
            attempts.end()
        return {"shard": path.name, "error": None}

    def _is_there(self, path: Path) -> bool:
        """Whether a worker wrote the shard before it died."""
        try:
            read_shard(path, self._run)
        except (FileNotFoundError, ShardError):
            return False
        return True

    def _make(self, path: Path, paths: Sequence[str], attempts: Attempts) -> None:
        clock = RunClock()
        if attempts.begun > _CAREFUL_AFTER:
            rows = [self._alone(image, attempts) for image in paths]
        else:
            rows = list(self._pipeline.run(paths, self._batch_size, then=row_of))
            for k, image in enumerate(paths):  # alone, it may find the memory that it lacked
                if rows[k]["status"] == "failed":
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
        named = [{"filepath": image, **row} for image, row in zip(paths, rows, strict=True)]
        for wait in _WAITS_S:
            try:
                return write_shard(path, named, provenance)
            except OSError:
                time.sleep(wait)
        write_shard(path, named, provenance)

    def _alone(self, image: str, attempts: Attempts) -> dict[str, Any]:
        deaths = attempts.deaths.get(image, 0)
        if deaths >= _DEADLY:
            reason = (
                f"{image}: {deaths} workers died at this image alone; probably it needs more "
                "memory than there is"
            )
            return row_of(Instances.failed(reason))
        attempts.at(image)
        return row_of(self._pipeline([image])[0])
