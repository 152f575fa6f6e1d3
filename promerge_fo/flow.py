"""Stages that go on at the same time, each with threads of its own, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, NamedTuple, TypeAlias

import torch

__all__ = ["Round", "flow"]

# Futures of what goes from stage to stage, in order; None after the last.
_Belt: TypeAlias = "SimpleQueue[Future[Any] | None]"


class Round(NamedTuple):
    """A stage that takes items together, and one that then takes each of them alone.

    Attributes:
        together: a list of at most ``size`` items to as many others; it has a thread to itself.
        size: items that are taken together; fewer at the end only.
        each: one of these to one other; runs in the workers.
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
    """What the stages make of each item, in the order of the items.

    All stages are at work at the same time, while the caller does what it likes with the results.
    The number of items under way is bounded. Torch's own threads, which the stages that take
    items together have all of, are not multiplied by those of the pools: there, torch calculates
    on one thread.

    Args:
        items: iterated over in the caller's thread, as results are asked for.
        first: what is done with each item first; runs in the readers.
        rounds: what is done then.
        readers: threads.
        workers: threads; shared by the rounds.

    Raises:
        Exception: what a stage raised, in place of the result; nothing comes after it.
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
    # Enough for every stage to have a batch at hand and one in the works.
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
        torch.set_num_threads(torch_threads)  # for the threads that are still to be


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
    """Up to ``size`` futures: fewer at the belt's end, where None is left for the next call."""
    batch: list[Future[Any]] = []
    while len(batch) < size:
        future = belt.get()
        if future is None:
            belt.put(None)
            break
        batch.append(future)
    return batch


def _calculate_on(threads: int) -> None:
    """Let torch calculate on so many threads where it is called from this one."""
    torch.get_num_threads()  # or else torch's first use would bring the number back that others set
    torch.set_num_threads(threads)
