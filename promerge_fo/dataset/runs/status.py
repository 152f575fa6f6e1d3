"""The progress of a run, written to the database so that other processes can show it."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import fiftyone as fo
from pymongo.errors import PyMongoError

from promerge_fo.dataset.database import root_dataset, store
from promerge_fo.words import duration

__all__ = ["Beat", "Heartbeat", "RunStatus", "run_statuses", "stop_runs"]

_KEY_PREFIX = "status "
_STOP_PREFIX = "stop "
_INTERVAL_S = 2.0
_LOST_AFTER_S = 120.0  #: seconds without a heartbeat; a restart of the database takes less


@dataclass(frozen=True)
class RunStatus:
    """The progress of a run.

    The attributes are stored in databases, so their names stay.

    Attributes:
        label_field: the field that the run fills.
        run: the run hash.
        engine: "local" or "ray".
        total: the number of images that the run covers.
        before: the number of them that were done before it started.
        done: the number of images that it has done, failed ones included.
        failed: the number of images that failed, in this run or before.
        started: when it started, Unix time in seconds.
        updated: when it last wrote its status, Unix time in seconds.
        host: the machine of the process that leads the run.
        pid: the id of this process.
        ended: how the run ended; None while it goes on, or if its process was killed.
        unit: what is counted, "images" or "frames".
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
    unit: str = "images"

    @property
    def state(self) -> Literal["running", "finished", "stopped", "lost"]:
        """The state of the run; "lost" if it has not written its status for two minutes."""
        if self.ended is not None:
            return self.ended
        return "running" if time.time() - self.updated < _LOST_AFTER_S else "lost"

    @property
    def images_per_second(self) -> float:
        """The mean rate since the start; 0 at the start."""
        seconds = self.updated - self.started
        return self.done / seconds if seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """The time left at the mean rate, in seconds; None as long as the rate is 0."""
        rate = self.images_per_second
        return (self.total - self.before - self.done) / rate if rate else None

    def __str__(self) -> str:
        finished = self.before + self.done
        share = finished / self.total if self.total else 1.0
        where = f"{self.engine}, process {self.pid} on {self.host}"
        states = {
            "running": "is running",
            "finished": "is finished",
            "stopped": "was stopped; run the same command again to go on",
            "lost": f"has not reported for {duration(time.time() - self.updated)}; if its process "
            "is gone, run the same command again to go on",
        }
        lines = [
            f"field {self.label_field!r}, run {self.run} ({where}) {states[self.state]}",
            f"  done    {finished:,} of {self.total:,} {self.unit} ({share:.1%})"
            + (f", {self.before:,} of them before" if self.before else ""),
            f"  failed  {self.failed:,}" + ("; --retry-failed runs them again" * bool(self.failed)),
            f"  rate    {self.images_per_second:.2f} {self.unit}/s",
        ]
        if self.state == "running":
            left = self.seconds_left
            lines.append(f"  left    {'not known yet' if left is None else duration(left)}")
        return "\n".join(lines)


class Beat:
    """Calls a function at once and every few seconds, and a last time when it is stopped.

    If the database cannot be reached, the work that it is about goes on without it.

    Args:
        name: of the thread.
        report: the function, which uses the database.
        interval: between two calls, in seconds.
    """

    def __init__(
        self, name: str, report: Callable[[], None], interval: float = _INTERVAL_S
    ) -> None:
        self._report, self._interval = report, interval
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._once()
        self._thread.start()

    def stop(self) -> None:
        """End, with a last call."""
        self._ended.set()
        if self._thread is not threading.current_thread():
            self._thread.join()
        self._once()

    def _repeat(self) -> None:
        while not self._ended.wait(self._interval):
            self._once()

    def _once(self) -> None:
        with suppress(PyMongoError):
            self._report()


class Heartbeat:
    """A context manager that writes the status of a run to the database every two seconds.

    Args:
        dataset: the dataset itself, not a view.
        label_field: the field that the run fills.
        run: the run hash.
        engine: "local" or "ray".
        total: the number of images that the run covers.
        before: the number of them that were done before it started.
        count_images: returns the number of images done since the start, and the number of images
            that failed, in this run or before.
        unit: what is counted, "images" or "frames".
    """

    def __init__(
        self,
        dataset: fo.Dataset,
        label_field: str,
        run: str,
        engine: str,
        total: int,
        before: int,
        count_images: Callable[[], tuple[int, int]],
        unit: str = "images",
    ) -> None:
        self._store = store(dataset)
        self._count_images = count_images
        self._initial = RunStatus(
            label_field, run, engine, total, before,
            started=time.time(), host=socket.gethostname(), pid=os.getpid(), unit=unit,
        )  # fmt: skip
        self._beat = Beat("promerge-status", self._report)
        self._has_ended = False
        self.is_stopped = False  #: whether some process asked the run to stop

    def __enter__(self) -> Heartbeat:
        self._beat.start()
        return self

    def __exit__(self, *reason: object) -> None:
        """Write how the run ended: "finished" if all images are done, else "stopped"."""
        self._has_ended = True
        self._beat.stop()

    def check(self) -> None:
        """Raise KeyboardInterrupt, as by Ctrl-C, if some process asked the run to stop."""
        if self.is_stopped:
            raise KeyboardInterrupt("asked to stop")

    def _report(self) -> None:
        """Write the status, and see whether the run should stop."""
        done, failed = self._count_images()
        ended: Literal["finished", "stopped"] | None = None
        if self._has_ended:
            ended = "finished" if self._initial.before + done >= self._initial.total else "stopped"
        status = replace(self._initial, done=done, failed=failed, updated=time.time(), ended=ended)
        self._store.set(_KEY_PREFIX + status.label_field, asdict(status))
        if self._store.get(_STOP_PREFIX + status.label_field) == status.started:
            self.is_stopped = True


def run_statuses(dataset: Any) -> Iterator[RunStatus]:
    """The status of the last run on each field of a dataset.

    Args:
        dataset: a dataset, or a view of one.
    """
    statuses = store(root_dataset(dataset))
    for key in sorted(statuses.list_keys()):
        if key.startswith(_KEY_PREFIX):
            yield RunStatus(**statuses.get(key))


def stop_runs(dataset: Any, label_field: str | None = None) -> list[RunStatus]:
    """Ask the runs of a dataset to stop, in whichever process they are; what is done is kept.

    Args:
        dataset: a dataset, or a view of one.
        label_field: only the run on this field.

    Returns:
        The runs that were asked. Each stops within seconds, at its next image.
    """
    asked = [
        status
        for status in run_statuses(dataset)
        if status.state == "running" and label_field in (None, status.label_field)
    ]
    for status in asked:
        store(root_dataset(dataset)).set(_STOP_PREFIX + status.label_field, status.started)
    return asked
