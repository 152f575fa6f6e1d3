"""Long work of operators: beside the App's requests, one after the other, seen and stopped.

In the App, a job is done by a thread of the App's server. The page that asked for it may be
reloaded or closed. From Python, and where it was scheduled, the job is done at once, by whoever
asked for it. In each case its record is in the store of its dataset, where the panel "ProMerge:
runs" of any page finds it, and where any process can ask it to stop.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple
from uuid import uuid4

from promerge_fo.dataset.database import store
from promerge_fo.dataset.runs.status import Beat
from promerge_fo.progress import Bar, ShowProgress, progress_bar
from promerge_fo.words import duration

logger = logging.getLogger("fiftyone.promerge")

KEPT = 10  #: records of jobs that have ended, on a dataset
LOST_AFTER_S = 30.0  #: without a word of it, in seconds
_INTERVAL_S = 1.0
_KEY, _STOP = "job ", "stop job "

_QUEUE: queue.Queue[Callable[[], Any]] = queue.Queue()
_HERE: dict[str, Job] = {}  # the jobs of this process that have not ended
_LOCK = threading.Lock()


class Outcome(NamedTuple):
    """What a job has done.

    Attributes:
        text: Markdown, for the panel.
        result: values for JSON, that the operator returns in Python.
        panel: the panel to be opened when it is done; None for no other.
    """

    text: str
    result: dict[str, Any] = {}  # noqa: RUF012  # never changed
    panel: str | None = None


@dataclass(frozen=True)
class Record:
    """How far a job is. The attributes are stored, so their names stay.

    Attributes:
        id: its name.
        label: of its operator.
        about: what it is done to, in words.
        state: "waiting", "running", "done", "stopped" or "failed".
        share: how much is done, in [0, 1]; None if that is not known.
        text: how far it is, in words.
        outcome: what it has done, or what went wrong, as Markdown.
        panel: see :class:`Outcome`.
        created: Unix time in seconds.
        updated: when this was written.
        host: the machine that does it.
        pid: the process that does it.
    """

    id: str
    label: str
    about: str = ""
    state: str = "waiting"
    share: float | None = None
    text: str = ""
    outcome: str = ""
    panel: str | None = None
    created: float = field(default_factory=time.time)
    updated: float = 0.0
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)

    @property
    def is_open(self) -> bool:
        """Whether it has not ended, as far as is known."""
        return self.state in ("waiting", "running") and not self.is_lost

    @property
    def is_lost(self) -> bool:
        """Whether its process has gone without a word."""
        return self.state in ("waiting", "running") and time.time() - self.updated > LOST_AFTER_S


class Job:
    """A job, from the moment that it is asked for.

    Args:
        dataset: the dataset itself, not a view.
        label: of its operator.
        about: what it is done to, in words.
        tell: is told the share that is done and a line of text as well.
        is_shown: whether the terminal shows a bar, too.
    """

    def __init__(
        self,
        dataset: Any,
        label: str,
        about: str = "",
        tell: Callable[[float, str], Any] | None = None,
        is_shown: bool = False,
    ) -> None:
        self.record = Record(uuid4().hex, label, about)
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        self._store = store(dataset)
        self._tell = tell
        self.is_shown = is_shown
        _drop(dataset, [record for record in jobs_of(dataset) if not record.is_open][KEPT - 1 :])
        _HERE[self.record.id] = self
        self._beat = Beat("promerge-job", self._report, _INTERVAL_S)
        self._beat.start()

    def progress(self, unit: str) -> ShowProgress:
        """The argument ``progress`` of a long function that counts these units."""
        return lambda total: _JobBar(self, total, unit)

    def show(self, text: str, share: float | None = None) -> None:
        """Say how far it is.

        Raises:
            KeyboardInterrupt: it should end.
        """
        self._change(text=text, share=share)
        if self._tell is not None:
            self._tell(share or 0.0, text)
        if self.stopped.is_set():
            raise KeyboardInterrupt("stopped")

    def run(self, work: Callable[[Job], Outcome]) -> Outcome:
        """Do it now.

        Raises:
            RuntimeError: it was stopped, and had nothing to return.
            Exception: what the work raised; it is in the record and in the log.
        """
        if self.record.state == "stopped":  # while it waited
            raise RuntimeError(self.record.outcome)
        try:
            self._change(state="running")
            self.show("Starting")
            outcome = work(self)
        except KeyboardInterrupt:
            self._end("stopped", "Stopped; nothing was written.")
            if not self.stopped.is_set():  # Ctrl-C in Python
                raise
            raise RuntimeError("stopped; nothing was written") from None
        except BaseException as error:
            logger.exception("%s failed", self.record.label)
            self._end("failed", str(error) or type(error).__name__)
            raise
        self._end("stopped" if self.stopped.is_set() else "done", outcome.text, outcome.panel)
        return outcome

    def stop(self) -> None:
        """Have it end at its next step, or before its first one."""
        self.stopped.set()
        if self.record.state == "waiting":
            self._end("stopped", "Stopped before it began.")

    def _end(self, state: str, outcome: str, panel: str | None = None) -> None:
        self._change(state=state, outcome=outcome, panel=panel, share=None)
        _HERE.pop(self.record.id, None)
        self._beat.stop()
        self._store.delete(_STOP + self.record.id)

    def _change(self, **values: Any) -> None:
        with self._lock:
            self.record = replace(self.record, **values)

    def _report(self) -> None:
        """Write how far it is, and see whether it should end."""
        with self._lock:
            self.record = replace(self.record, updated=time.time())
            self._store.set(_KEY + self.record.id, asdict(self.record))
        if self._store.get(_STOP + self.record.id) and self.record.state in ("waiting", "running"):
            self.stop()


class _JobBar:
    """A progress bar of a job.

    Args:
        job: that it is of.
        total: the number of steps.
        unit: what a step is, in the plural.
    """

    def __init__(self, job: Job, total: int, unit: str) -> None:
        self._job, self._total, self._unit = job, total, unit
        self._done = 0
        self._started = time.perf_counter()
        self._context = progress_bar(None if job.is_shown else False, total, unit)
        self._bar: Bar = self._context.__enter__()

    def update(self, n: int) -> None:
        """Move on by ``n`` steps.

        Raises:
            KeyboardInterrupt: the work should end, as by Ctrl-C.
        """
        self._done += n
        self._bar.update(n)
        seconds = time.perf_counter() - self._started
        rate = self._done / seconds if seconds else 0.0
        text = f"{self._done:,} of {self._total:,} {self._unit}"
        if rate:
            text += f", {rate:.1f} a second, {duration((self._total - self._done) / rate)} left"
        self._job.show(text, min(self._done / max(self._total, 1), 1.0))

    def close(self) -> None:
        """Take the bar out of the terminal."""
        self._context.__exit__(None, None, None)


def submit(run: Callable[[], Any]) -> None:
    """Have this process call a function that runs a job, after those that were submitted before."""
    _QUEUE.put(run)
    with _LOCK:
        if not any(thread.name == "promerge-jobs" for thread in threading.enumerate()):
            threading.Thread(target=_work, name="promerge-jobs", daemon=True).start()


def jobs_of(dataset: Any) -> list[Record]:
    """The records of a dataset's jobs, the newest first."""
    kept = store(dataset)
    found = [kept.get(key) for key in kept.list_keys() if key.startswith(_KEY)]
    records = [Record(**each) for each in found if each]
    return sorted(records, key=lambda record: -record.created)


def stop(dataset: Any, job: str | None = None) -> int:
    """Ask a job of a dataset to stop, or all; returns how many were asked."""
    asked = [r for r in jobs_of(dataset) if r.is_open and job in (None, r.id)]
    for record in asked:
        if record.id in _HERE:
            _HERE[record.id].stop()
        else:
            store(dataset).set(_STOP + record.id, True)
    return len(asked)


def forget(dataset: Any) -> None:
    """Delete the records of the jobs that have ended."""
    _drop(dataset, [record for record in jobs_of(dataset) if not record.is_open])


def _drop(dataset: Any, records: list[Record]) -> None:
    kept = store(dataset)
    for record in records:
        kept.delete(_KEY + record.id)
        kept.delete(_STOP + record.id)


def _work() -> None:
    while True:
        try:
            _QUEUE.get()()
        except BaseException:  # the job has told of it
            logger.debug("a job ended with an error", exc_info=True)
