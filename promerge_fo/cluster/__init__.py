"""The pipeline on Ray Data: workers write masks to Parquet shards, and the driver merges them.

The driver needs FiftyOne and its database; the workers need neither. Ray and pyarrow are imported
only when they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promerge_fo.cluster.driver import segment_on_ray
    from promerge_fo.cluster.worker import Recipe

__all__ = ["Recipe", "segment_on_ray"]

_MODULES = {"Recipe": "worker", "segment_on_ray": "driver"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        for module in ("pyarrow.parquet", "ray.data"):
            try:
                import_module(module)
            except ImportError as error:
                raise ImportError(
                    f"{module} cannot be imported ({error}), but runs on Ray need it: "
                    "pip install 'promerge-fo[cluster]'"
                ) from error
        return getattr(import_module(f"promerge_fo.cluster.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'promerge_fo.cluster' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
