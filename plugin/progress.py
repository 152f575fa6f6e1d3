"""Work that shows in the App how far it is, and that can be stopped there."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from fiftyone.operators import types

from promerge_fo.dataset.database import dataset_id
from promerge_fo.words import duration

T = TypeVar("T")

_UNDER_WAY: dict[str, list[threading.Event]] = {}  # what stops each run, by the dataset's id


def follow(
    ctx: Any, unit: str, work: Callable[[Callable[[int], AppBar]], T]
) -> Generator[Any, None, T]:
    """Run a long function, and tell the App how far it is.

    In the App's own process the work has a thread to itself, and ends at its next step where the
    App stops listening, or :func:`stop` is called. In a delegated run it is done here, and the
    App's page of runs shows its progress.

    Args:
        ctx: FiftyOne's execution context.
        unit: what a step is, in the plural: "images".
        work: is given the function's argument ``progress``.

    Returns:
        What the work returned.

    Raises:
        RuntimeError: it was stopped, and had nothing to return.
        Exception: what the work raised.
    """
    if ctx.delegated:
        return work(lambda total: AppBar(total, unit, ctx.set_progress))
    steps: queue.Queue[Any] = queue.Queue()
    stopped = threading.Event()
    results: list[T] = []

    def run() -> None:
        try:
            results.append(
                work(lambda total: AppBar(total, unit, lambda *step: steps.put(step), stopped))
            )
            steps.put(None)
        except BaseException as error:
            steps.put(error)

    under_way = _UNDER_WAY.setdefault(dataset_id(ctx.dataset), [])
    under_way.append(stopped)
    threading.Thread(target=run, name="promerge-operator", daemon=True).start()
    try:
        while isinstance(step := steps.get(), tuple):
            yield ctx.ops.set_progress(label=step[1], progress=step[0])
    finally:
        stopped.set()
        under_way.remove(stopped)
    if isinstance(step, KeyboardInterrupt):
        raise RuntimeError("stopped; nothing was written")
    if step is not None:
        raise step
    return results[0]


def stop(dataset: Any) -> int:
    """Stop what :func:`follow` runs on a dataset; returns how many there were."""
    running = _UNDER_WAY.get(dataset_id(dataset), [])
    for stopped in running:
        stopped.set()
    return len(running)


def outcome(ctx: Any, text: str, markdown: bool = False) -> Any:
    """What an operator that shows its progress yields in the end: a text in place of the bar.

    FiftyOne shows the results of other operators by itself: see :func:`result`.
    """
    return ctx.ops.show_output(result("outcome", markdown).to_json(), {"outcome": text})


def failure(ctx: Any, error: Exception) -> Any:
    """What such an operator yields where it fails: the error in words, in place of the bar."""
    outputs = types.Object()
    words = str(error) or type(error).__name__
    outputs.view("failed", types.Error(label="This failed", description=words))
    return ctx.ops.show_output(types.Property(outputs).to_json(), {})


def result(name: str, markdown: bool = False) -> types.Property:
    """A form that shows a text of an operator's results."""
    outputs = types.Object()
    outputs.str(name, label="Result", view=types.MarkdownView() if markdown else None)
    return types.Property(outputs)


class AppBar:
    """A progress bar in the App.

    Args:
        total: the number of steps.
        unit: what a step is, in the plural.
        show: is given the share that is done and a line of text.
        stopped: set when the work should end.
    """

    def __init__(
        self,
        total: int,
        unit: str,
        show: Callable[[float, str], Any],
        stopped: threading.Event | None = None,
    ) -> None:
        self._total, self._unit, self._show, self._stopped = total, unit, show, stopped
        self._done = 0
        self._started = time.perf_counter()

    def update(self, n: int) -> None:
        """Move on by ``n`` steps.

        Raises:
            KeyboardInterrupt: the work should end, as by Ctrl-C.
        """
        self._done += n
        seconds = time.perf_counter() - self._started
        rate = self._done / seconds if seconds else 0.0
        text = f"{self._done:,} of {self._total:,} {self._unit}"
        if rate:
            text += f", {rate:.1f} a second, {duration((self._total - self._done) / rate)} left"
        self._show(min(self._done / max(self._total, 1), 1.0), text)
        if self._stopped is not None and self._stopped.is_set():
            raise KeyboardInterrupt("stopped in the App")

    def close(self) -> None:
        """There is nothing to end: the outcome takes the bar's place."""
