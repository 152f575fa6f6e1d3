"""Where is calculated, and on a GPU in which of its queues."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["mark", "own_stream", "resolve_device"]

_own = threading.local()


def resolve_device(device: str | torch.device | None) -> torch.device:
    """The device, or an error where the machine has none such.

    Raises:
        ValueError: not a device's name, or a device that is not there.
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
    """Within, what this thread wants of a GPU waits for no other thread's work there.

    Yields:
        The thread's stream, which has to wait for what others have yet to calculate of its
        inputs (:func:`mark`); None on a CPU.
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
    """A mark behind all that this thread has given a GPU to do until now; None on a CPU."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event
