"""Stages that work at the same time, each in its own threads, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, NamedTuple, TypeAlias

import torch

__all__ = ["Round", "flow"]

# Futures of the items between two stages, in order; None after the last.
_Belt: TypeAlias = "SimpleQueue[Future[Any] | None]"


class Round(NamedTuple):
    """A stage that works on batches of items, and one that then works on single items.

    Attributes:
        together: turns a list of at most ``size`` items into as many others; has its own thread.
        size: items in a batch; fewer only at the end.
        each: turns one of these into one other item; runs in the workers.
    """

    together: Callable[[list[Any]], Sequence[Any]]
    size: int
    each: Callable[[Any], Any]


def flow(
    items: Iterable[Any],
    first: Callable[[Any], Any],
    rounds: Sequence[Round],
    *,
    readers: int,
    workers: int,
) -> Generator[Any, None, None]:
    """Pass items through stages, and yield the results in the order of the items.

    All stages work at the same time, while the caller uses the results. The number of items
    between the first stage and the caller is bounded. The stages that work on batches use all of
    torch's threads; in the readers and workers, which are many already, torch uses one thread.

    Args:
        items: iterated over in the caller's thread, when it asks for results.
        first: the first stage, for each item; runs in the readers.
        rounds: the stages after it.
        readers: number of threads.
        workers: number of threads; shared by the rounds.

    Raises:
        Exception: from a stage, in place of the item's result; the flow ends there.
    """
    torch_threads = torch.get_num_threads()
    stopped = Event()
    belts: list[_Belt] = [SimpleQueue() for _ in range(len(rounds) + 1)]
    reading = ThreadPoolExecutor(readers, "promerge-read", _calculate_on, (1,))
    working = ThreadPoolExecutor(workers, "promerge-work", _calculate_on, (1,))
    threads = [
        Thread(
            target=_run,
            args=(stage, belts[i], belts[i + 1], working, stopped, torch_threads),
            name=f"promerge-round-{i}",
            daemon=True,
        )
        for i, stage in enumerate(rounds)
    ]
    # Enough for every stage to work on one batch while the next one is ready.
    most = readers + workers + sum(2 * stage.size for stage in rounds)
    try:
        for thread in threads:
            thread.start()
        source, under_way, exhausted = iter(items), 0, False
        while True:
            while not exhausted and under_way < most:
                try:
                    item = next(source)
                except StopIteration:
                    exhausted = True
                    belts[0].put(None)
                else:
                    belts[0].put(reading.submit(first, item))
                    under_way += 1
            if under_way == 0:
                return
            result = belts[-1].get()
            assert result is not None, "a stage lost an item"
            yield result.result()
            under_way -= 1
    finally:
        stopped.set()
        belts[0].put(None)
        for pool in reading, working:
            pool.shutdown(cancel_futures=True)
        for thread in threads:
            thread.join()
        torch.set_num_threads(torch_threads)  # for threads that start later


def _run(
    stage: Round,
    inlet: _Belt,
    outlet: _Belt,
    workers: ThreadPoolExecutor,
    stopped: Event,
    torch_threads: int,
) -> None:
    """A round's thread."""
    _calculate_on(torch_threads)
    try:
        while batch := _take(inlet, stage.size):
            values = stage.together([future.result() for future in batch])
            if stopped.is_set():
                break
            for value in values:
                outlet.put(workers.submit(stage.each, value))
    except CancelledError:
        pass  # the flow was stopped
    except BaseException as error:
        failed: Future[Any] = Future()
        failed.set_exception(error)
        outlet.put(failed)
    outlet.put(None)


def _take(belt: _Belt, size: int) -> list[Future[Any]]:
    """Up to ``size`` futures; fewer at the end, where None stays on the belt for the next call."""
    batch: list[Future[Any]] = []
    while len(batch) < size:
        future = belt.get()
        if future is None:
            belt.put(None)
            break
        batch.append(future)
    return batch


def _calculate_on(threads: int) -> None:
    """Set the number of threads that torch uses for calls from the current thread."""
    torch.get_num_threads()  # else torch's first use would restore the number that others have set
    torch.set_num_threads(threads)
