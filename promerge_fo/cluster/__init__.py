"""The pipeline on Ray Data: masks into Parquet shards, and from there into FiftyOne.

Ray and pyarrow are imported by what uses them; the workers need neither FiftyOne nor a database.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promerge_fo.cluster.driver import segment_on_ray
    from promerge_fo.cluster.worker import Recipe

__all__ = ["Recipe", "segment_on_ray"]

_HOMES = {"Recipe": "worker", "segment_on_ray": "driver"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        for module in ("pyarrow.parquet", "ray.data"):
            try:
                import_module(module)
            except ImportError as error:
                raise ImportError(
                    f"{module} cannot be imported ({error}); runs on Ray need more than the rest: "
                    "pip install 'promerge-fo[cluster]'"
                ) from error
        return getattr(import_module(f"promerge_fo.cluster.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'promerge_fo.cluster' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
