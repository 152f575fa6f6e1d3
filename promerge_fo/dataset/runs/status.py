"""How far a run is: kept in the database while it goes on, for whoever asks."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pymongo.errors import PyMongoError

from promerge_fo.dataset.database import root_dataset, store
from promerge_fo.words import duration

__all__ = ["Heartbeat", "RunStatus", "run_statuses"]

_PREFIX = "status "
_BEAT_S = 2.0
_DEAD_S = 120.0  #: without a sign of life; longer than a database may take to answer again


@dataclass(frozen=True)
class RunStatus:
    """How far a run is, or was.

    Attributes:
        label_field: that it fills.
        run: the run hash.
        engine: "local" or "ray".
        host: of the process that leads it.
        pid: of this process.
        total: images that it is to have done in the end.
        before: images of these that were done before it started.
        done: images that it has done since, failed ones included.
        failed: images that failed, before or since.
        started: Unix time in seconds.
        updated: of the last sign of life.
        ended: how it ended; None while it goes on, or if nobody could say.
    """

    label_field: str
    run: str
    engine: str
    total: int
    before: int
    done: int = 0
    failed: int = 0
    started: float = 0.0
    updated: float = 0.0
    host: str = ""
    pid: int = 0
    ended: Literal["finished", "stopped"] | None = None

    @property
    def state(self) -> Literal["running", "finished", "stopped", "lost"]:
        """What to make of it; "lost" is a run that has given no sign of life for two minutes."""
        if self.ended is not None:
            return self.ended
        return "running" if time.time() - self.updated < _DEAD_S else "lost"

    @property
    def images_per_second(self) -> float:
        """Over all of the run; 0 at its start."""
        seconds = self.updated - self.started
        return self.done / seconds if seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """At this rate; None where there is none yet."""
        rate = self.images_per_second
        return (self.total - self.before - self.done) / rate if rate else None

    def __str__(self) -> str:
        finished = self.before + self.done
        share = finished / self.total if self.total else 1.0
        where = f"{self.engine}, process {self.pid} on {self.host}"
        states = {
            "running": "is running",
            "finished": "is finished",
            "stopped": "was stopped; the same command goes on",
            "lost": f"has said nothing for {duration(time.time() - self.updated)}; if it is gone, "
            "the same command goes on",
        }
        lines = [
            f"field {self.label_field!r}, run {self.run} ({where}) {states[self.state]}",
            f"  done    {finished:,} of {self.total:,} images ({share:.1%})"
            + (f", {self.before:,} of them before" if self.before else ""),
            f"  failed  {self.failed:,}" + ("; --retry-failed runs them again" * bool(self.failed)),
            f"  rate    {self.images_per_second:.2f} images/s",
        ]
        if self.state == "running":
            left = self.seconds_left
            lines.append(f"  left    {'not known yet' if left is None else duration(left)}")
        return "\n".join(lines)


class Heartbeat:
    """Writes a run's status every two seconds, for as long as it goes on; a context manager.

    A database that is away costs the run nothing.

    Args:
        dataset: the dataset itself.
        label_field: that the run fills.
        run: the run hash.
        engine: "local" or "ray".
        total: images that it is to have done in the end.
        before: images of these that are done already.
        look: gives the images that are done since, and the number of those that failed at all.
    """

    def __init__(
        self,
        dataset: Any,
        label_field: str,
        run: str,
        engine: str,
        total: int,
        before: int,
        look: Callable[[], tuple[int, int]],
    ) -> None:
        self._store = store(dataset)
        self._look = look
        self._fixed: dict[str, Any] = {
            "label_field": label_field,
            "run": run,
            "engine": engine,
            "total": total,
            "before": before,
            "started": time.time(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="promerge-status", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        """Say how it ended: "finished" only where all images are done."""
        self._over.set()
        self._thread.join()
        done = self._fixed["before"] + self._look()[0]
        self._write("finished" if done >= self._fixed["total"] else "stopped")

    def _beat(self) -> None:
        while True:
            self._write(None)
            if self._over.wait(_BEAT_S):
                return

    def _write(self, ended: Literal["finished", "stopped"] | None) -> None:
        done, failed = self._look()
        status = RunStatus(
            **self._fixed, done=done, failed=failed, updated=time.time(), ended=ended
        )
        with suppress(PyMongoError):
            self._store.set(_PREFIX + status.label_field, asdict(status))


def run_statuses(dataset: Any) -> Iterator[RunStatus]:
    """The status of the last run of each field of a dataset.

    Args:
        dataset: a dataset, or a view of one.
    """
    kept = store(root_dataset(dataset))
    for key in sorted(kept.list_keys()):
        if key.startswith(_PREFIX):
            yield RunStatus(**kept.get(key))
