"""A stand-in for Apple's GPU, on machines that have none: a device that says no where it does.

Its tensors hold their values on the CPU, and say that they are on "mps". As on Apple's GPU,

- there is no float64, and no pinned memory;
- tensors of another device do not mix with its own, and NumPy does not see these;
- operations may be missing, and say so as torch's do;
- CUDA's streams, events and other calls are not there: they raise.

What it cannot show is the accuracy of Apple's arithmetic, and its speed.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from functools import partial

import torch
from torch.utils._pytree import tree_flatten, tree_map, tree_map_only

DEVICE = torch.device("mps", 0)
CPU = torch.device("cpu")
#: Read at each call, by any thread: the missing operations, and those that were called.
missing: set[str] = set()
called: Counter[str] = Counter()
_to = torch.Tensor.to


class There(torch.Tensor):
    """A tensor on the stand-in."""

    @staticmethod
    def __new__(cls, held):
        if held.dtype == torch.float64:
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't "
                "support float64. Please use float32 instead."
            )
        return torch.Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device=CPU
        )

    def __init__(self, held):
        self.held = held

    device = property(lambda self: DEVICE)
    is_cpu = property(lambda self: False)
    is_mps = property(lambda self: True)

    def cpu(self):
        return self.held.clone()

    def tolist(self):
        return self.held.tolist()

    def numpy(self, **options):
        raise TypeError("can't convert mps:0 device type tensor to numpy. Use Tensor.cpu()")

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return call(func, *args, **(kwargs or {}))


def call(func, *args, **kwargs):
    """An operation on the stand-in, or one that makes a tensor of it."""
    called[func.overloadpacket.__name__] += 1
    if func.overloadpacket.__name__ in missing:
        raise NotImplementedError(
            f"The operator '{func}' is not currently implemented for the MPS device."
        )
    flat, _ = tree_flatten((args, kwargs))
    tensors = [each for each in flat if isinstance(each, torch.Tensor)]
    others = any(type(each) is not There and each.dim() for each in tensors)
    if others and func.overloadpacket is not torch.ops.aten.copy_:
        raise RuntimeError(f"{func}: expected all tensors to be on the same device")
    args, kwargs = tree_map(_here, (args, kwargs))
    found = func(*args, **kwargs)
    given = {id(each.held): each for each in tensors if type(each) is There}
    return tree_map_only(
        torch.Tensor, lambda each: given[id(each)] if id(each) in given else There(each), found
    )


def _here(argument):
    if isinstance(argument, torch.device):
        return CPU
    return argument.held if isinstance(argument, There) else argument


def _moved(tensor, *args, **options):
    """``Tensor.to``: the only way to the stand-in and back."""
    args, options = list(args), dict(options)
    wanted = tensor.device
    for place, key in [(args, i) for i in range(len(args))] + [(options, k) for k in options]:
        if isinstance(place[key], torch.Tensor):  # as that tensor
            wanted, place[key] = place[key].device, place[key].dtype
        elif isinstance(place[key], (str, torch.device)):
            wanted, place[key] = torch.device(place[key]), CPU
    moved = _to(_here(tensor), *args, **options)
    if wanted.type != "mps":
        return moved.clone() if type(tensor) is There else moved
    unchanged = type(tensor) is There and moved is tensor.held
    return tensor if unchanged else There(moved)


@contextmanager
def apples_gpu(monkeypatch, *lacking):
    """Here "mps" is there, without these operations, and CUDA's calls raise.

    Yields:
        How often each operation ran there, by its name in aten.
    """

    def forbidden(*args, **options):
        raise AssertionError("a call that only CUDA has")

    for name in ("Stream", "Event", "stream", "current_stream", "get_device_capability",
                 "get_device_name", "empty_cache", "synchronize"):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, forbidden)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: called.update(["empty_cache"]))
    monkeypatch.setattr(torch.Tensor, "pin_memory", forbidden)
    monkeypatch.setattr(torch.Tensor, "to", _moved)
    monkeypatch.setattr(torch.__future__, "_overwrite_module_params_on_conversion", True)
    made = torch.tensor
    monkeypatch.setattr(
        torch, "tensor", lambda *args, device="cpu", **options: made(*args, **options).to(device)
    )
    missing.clear()
    missing.update(lacking)
    called.clear()
    makers = torch.library.Library("_", "IMPL")
    makers.fallback(call, "MPS")
    ranges = torch.library.Library("aten", "IMPL")  # made empty, and enlarged: no wrapper can be
    for name in ("default", "start", "start_step"):
        operation = getattr(torch.ops.aten.arange, name)
        ranges.impl(operation, partial(call, operation), "MPS")
    try:
        yield called
    finally:
        makers._destroy()
        ranges._destroy()
        missing.clear()
