"""The FiftyOne side: masks into datasets, and out of them again.

The public names load what they need when they are first used: importing this package does not
import FiftyOne, so that :mod:`promerge_fo.dataset.mongod` works where FiftyOne does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promerge_fo.dataset.ablating import ablate
    from promerge_fo.dataset.ablation import Ablation
    from promerge_fo.dataset.compare import Comparison, compare_fields, samples_by_gain
    from promerge_fo.dataset.evaluation import InstanceResults, evaluate_instances, list_evaluations
    from promerge_fo.dataset.export import export_pseudo_labels
    from promerge_fo.dataset.labels import mask_of, masks_of, require_images, to_detections
    from promerge_fo.dataset.model import ProMergeModel, load_model, model_of_run
    from promerge_fo.dataset.predictions import ImportReport, import_predictions
    from promerge_fo.dataset.protocols import load_benchmark, load_coco
    from promerge_fo.dataset.runs import delete_run, list_runs, load_run
    from promerge_fo.dataset.segment import segment_dataset
    from promerge_fo.dataset.settings import grid, sweep

__all__ = [
    "Ablation",
    "Comparison",
    "ImportReport",
    "InstanceResults",
    "ProMergeModel",
    "ablate",
    "compare_fields",
    "delete_run",
    "evaluate_instances",
    "export_pseudo_labels",
    "grid",
    "import_predictions",
    "list_evaluations",
    "list_runs",
    "load_benchmark",
    "load_coco",
    "load_model",
    "load_run",
    "mask_of",
    "masks_of",
    "model_of_run",
    "require_images",
    "samples_by_gain",
    "segment_dataset",
    "sweep",
    "to_detections",
]

_HOMES = {
    "Ablation": "ablation",
    "Comparison": "compare",
    "ProMergeModel": "model",
    "ablate": "ablating",
    "compare_fields": "compare",
    "delete_run": "runs",
    "InstanceResults": "evaluation",
    "evaluate_instances": "evaluation",
    "export_pseudo_labels": "export",
    "grid": "settings",
    "ImportReport": "predictions",
    "import_predictions": "predictions",
    "list_evaluations": "evaluation",
    "list_runs": "runs",
    "load_benchmark": "protocols",
    "load_coco": "protocols",
    "load_model": "model",
    "load_run": "runs",
    "mask_of": "labels",
    "masks_of": "labels",
    "model_of_run": "model",
    "require_images": "labels",
    "samples_by_gain": "compare",
    "segment_dataset": "segment",
    "sweep": "settings",
    "to_detections": "labels",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"promerge_fo.dataset.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'promerge_fo.dataset' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
