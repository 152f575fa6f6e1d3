"""The device for a calculation: chosen, described, and spared what it cannot do."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

__all__ = [
    "describe_device",
    "empty_cache",
    "features_device",
    "mark",
    "missing_on_cpu",
    "out_of_memory",
    "own_stream",
    "resolve_device",
]

logger = logging.getLogger("fiftyone.promerge")
_own = threading.local()


def resolve_device(device: str | torch.device | None) -> torch.device:
    """The torch device; for None CUDA if there is one, else Apple's GPU ("mps"), else the CPU.

    Raises:
        ValueError: no name of a device, or a device that this machine does not have.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            _say_that_apples_gpu_is_used()
            return torch.device("mps")
        return torch.device("cpu")
    try:
        resolved = torch.device(device)
        torch.empty(1, device=resolved)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device is {str(device)!r}, which cannot be used here ({reason}); "
            "give 'cpu', 'cuda' or 'mps' (Apple's GPU), or leave it out"
        ) from error
    return resolved


@cache  # so that it is said once
def _say_that_apples_gpu_is_used() -> None:
    logger.info(
        "promerge: there is no CUDA device; the encoder runs on Apple's GPU, in float32, and the "
        "rest on the CPU (device='cpu' takes the CPU for all)"
    )


def features_device(device: torch.device) -> torch.device:
    """Where the features of an encoder on this device are worked on: there on CUDA, else the CPU.

    What follows the encoder needs float64, and many threads that each have a queue of their own.
    Apple's GPU has neither.
    """
    return device if device.type == "cuda" else torch.device("cpu")


def describe_device(device: torch.device) -> str:
    """A device in words, such as "cpu (8 threads)"."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "mps":
        return f"{device} (Apple's GPU)"
    return f"{device} ({torch.get_num_threads()} threads)"


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that the memory of a device ran out; Apple's has no class for it."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "backend out of memory" in str(error)
    )


def empty_cache(device: torch.device) -> None:
    """Give back the memory of a GPU that torch keeps for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


@contextmanager
def own_stream(device: torch.device) -> Iterator[torch.cuda.Stream | None]:
    """In this context, the thread's work on a GPU does not wait for that of other threads.

    Yields:
        The thread's CUDA stream, which must wait for inputs from other threads
        (:func:`mark`); None on another device.
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
    """An event after all work that this thread has given to CUDA so far; None elsewhere."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


def missing_on_cpu(device: torch.device) -> AbstractContextManager[Any]:
    """In this context, the CPU computes the operations that a device lacks.

    That is what ``PYTORCH_ENABLE_MPS_FALLBACK`` does, which must be set before torch is imported.
    CUDA and the CPU lack nothing: the context does nothing for them.
    """
    return nullcontext() if device.type in ("cpu", "cuda") else _MissingOnCPU(device)


class _MissingOnCPU(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device = device

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        try:
            return func(*args, **(kwargs or {}))
        except RuntimeError as error:  # NotImplementedError is one
            if out_of_memory(error):
                raise
            try:
                found = self._on_cpu(func, args, kwargs or {})
            except Exception:
                raise error from None  # the CPU cannot do it, either
        _say_that_the_cpu_computes(str(func), self._device.type)
        return found

    def _on_cpu(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        there, structure = tree_flatten((args, kwargs))
        here = [_here(each) for each in there]
        args, kwargs = tree_unflatten(here, structure)
        found = func(*args, **kwargs)
        given: dict[int, Any] = {}
        if func._schema.is_mutable:
            for copied, original in zip(here, there, strict=True):
                if isinstance(copied, torch.Tensor) and copied is not original:
                    given[id(copied)] = original.copy_(copied)

        def back(tensor: torch.Tensor) -> Any:
            return given[id(tensor)] if id(tensor) in given else tensor.to(self._device)

        return tree_map_only(torch.Tensor, back, found)


def _here(argument: Any) -> Any:
    if isinstance(argument, torch.device):
        return torch.device("cpu")
    return argument.cpu() if isinstance(argument, torch.Tensor) else argument


@cache  # so that it is said once of each operation
def _say_that_the_cpu_computes(operation: str, device: str) -> None:
    logger.warning("promerge: %s has no %s, which the CPU computes", device, operation)
