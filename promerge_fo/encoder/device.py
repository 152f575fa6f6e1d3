"""The device for a calculation, and its queues of work (CUDA streams)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["mark", "own_stream", "resolve_device"]

_own = threading.local()


def resolve_device(device: str | torch.device | None) -> torch.device:
    """The torch device; CUDA for None if there is one, else the CPU.

    Raises:
        ValueError: no name of a device, or a device that this machine does not have.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(1, device=resolved)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device is {str(device)!r}, which cannot be used here ({reason}); "
            "give 'cpu' or 'cuda', or leave it out"
        ) from error
    return resolved


@contextmanager
def own_stream(device: torch.device) -> Iterator[torch.cuda.Stream | None]:
    """In this context, the thread's work on a GPU does not wait for that of other threads.

    Yields:
        The thread's CUDA stream, which must wait for inputs from other threads
        (:func:`mark`); None on a CPU.
    """
    if device.type != "cuda":
        yield None
        return
    streams: dict[torch.device, torch.cuda.Stream] = _own.__dict__.setdefault("streams", {})
    if device not in streams:
        streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    with torch.cuda.stream(streams[device]):
        yield streams[device]


def mark(device: torch.device) -> torch.cuda.Event | None:
    """An event after all work that this thread has given a GPU so far; None on a CPU."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event
