"""Work that shows in the App how far it is, and that can be stopped there."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from fiftyone.operators import types

from promerge_fo.words import duration

T = TypeVar("T")

_UNDER_WAY: dict[str, list[threading.Event]] = {}  # what stops each, by dataset


def follow(
    ctx: Any, what: str, work: Callable[[Callable[[int], Bar]], T]
) -> Generator[Any, None, T]:
    """Run something that makes a bar, and tell the App how far it is.

    In the App's own process the work has a thread to itself, and ends at its next step where the
    App stops listening, or :func:`stop` is called. In a delegated run it is done here, and the
    App's page of runs shows its progress.

    Args:
        ctx: FiftyOne's execution context.
        what: is counted: "images".
        work: given a function that makes a bar of a number of steps.

    Returns:
        What the work returned.

    Raises:
        RuntimeError: it was stopped, and had nothing to return.
        Exception: what the work raised.
    """
    if ctx.delegated:
        return work(lambda total: Bar(total, what, lambda s, text: ctx.set_progress(s, text)))
    steps: queue.Queue[Any] = queue.Queue()
    stopped = threading.Event()
    results: list[T] = []

    def run() -> None:
        try:
            results.append(
                work(lambda total: Bar(total, what, lambda *step: steps.put(step), stopped))
            )
            steps.put(None)
        except BaseException as error:
            steps.put(error)

    _UNDER_WAY.setdefault(str(ctx.dataset._doc.id), []).append(stopped)
    threading.Thread(target=run, name="promerge-operator", daemon=True).start()
    try:
        while isinstance(step := steps.get(), tuple):
            yield ctx.ops.set_progress(label=step[1], progress=step[0])
    finally:
        stopped.set()
        _UNDER_WAY[str(ctx.dataset._doc.id)].remove(stopped)
    if isinstance(step, KeyboardInterrupt):
        raise RuntimeError("stopped; nothing was written")
    if step is not None:
        raise step
    return results[0]


def outcome(ctx: Any, text: str, view: types.View | None = None) -> Any:
    """What an operator that runs as a generator yields in the end: a text in place of its bar.

    FiftyOne shows the output of other operators by itself.
    """
    outputs = types.Object()
    outputs.str("outcome", label="Result", view=view)
    return ctx.ops.show_output(types.Property(outputs).to_json(), {"outcome": text})


def stop(dataset: Any) -> int:
    """Stop what :func:`follow` runs on a dataset; returns how many there were."""
    running = _UNDER_WAY.get(str(dataset._doc.id), [])
    for stopped in running:
        stopped.set()
    return len(running)


class Bar:
    """A progress bar that tells somebody.

    Args:
        total: steps.
        what: is counted.
        tell: given the share that is done and a line of text.
        stopped: set where the work is to end.
    """

    def __init__(
        self,
        total: int,
        what: str,
        tell: Callable[[float, str], Any],
        stopped: threading.Event | None = None,
    ) -> None:
        self._total, self._what, self._tell, self._stopped = total, what, tell, stopped
        self._done = 0
        self._started = time.perf_counter()

    def update(self, n: int) -> None:
        """So many steps are done.

        Raises:
            KeyboardInterrupt: somebody wants the work to end, as by Ctrl-C.
        """
        self._done += n
        seconds = time.perf_counter() - self._started
        rate = self._done / seconds if seconds else 0.0
        text = f"{self._done:,} of {self._total:,} {self._what}"
        if rate:
            text += f", {rate:.1f} a second, {duration((self._total - self._done) / rate)} left"
        self._tell(min(self._done / max(self._total, 1), 1.0), text)
        if self._stopped is not None and self._stopped.is_set():
            raise KeyboardInterrupt("stopped in the App")

    def close(self) -> None:
        """No more steps."""
