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
    from promerge_fo.dataset.agreement import measure_agreement
    from promerge_fo.dataset.compare import Comparison, compare_fields, samples_by_gain
    from promerge_fo.dataset.distribution import Histogram, review_histograms, select_between
    from promerge_fo.dataset.doubt import review_queue
    from promerge_fo.dataset.evaluation import InstanceResults, evaluate_instances, list_evaluations
    from promerge_fo.dataset.export import export_pseudo_labels
    from promerge_fo.dataset.labels import mask_of, masks_of, require_images, to_detections
    from promerge_fo.dataset.model import ProMergeModel, load_model, model_of_run
    from promerge_fo.dataset.prediction_intake import ImportReport
    from promerge_fo.dataset.predictions import import_predictions
    from promerge_fo.dataset.protocols import load_benchmark, load_coco
    from promerge_fo.dataset.review import (
        Progress,
        accept,
        decide,
        enable_annotation,
        list_labels,
        prepare_review,
        reject,
        review_progress,
        undo,
    )
    from promerge_fo.dataset.review_updates import label_path
    from promerge_fo.dataset.runs import delete_run, list_runs, load_run
    from promerge_fo.dataset.segment import segment_dataset
    from promerge_fo.dataset.settings import grid, sweep
    from promerge_fo.dataset.tuned import Tuning
    from promerge_fo.dataset.tuning import search_space, tune

__all__ = [
    "Ablation",
    "Comparison",
    "Histogram",
    "ImportReport",
    "InstanceResults",
    "ProMergeModel",
    "Progress",
    "Tuning",
    "ablate",
    "accept",
    "compare_fields",
    "decide",
    "delete_run",
    "enable_annotation",
    "evaluate_instances",
    "export_pseudo_labels",
    "grid",
    "import_predictions",
    "label_path",
    "list_evaluations",
    "list_labels",
    "list_runs",
    "load_benchmark",
    "load_coco",
    "load_model",
    "load_run",
    "mask_of",
    "masks_of",
    "measure_agreement",
    "model_of_run",
    "prepare_review",
    "reject",
    "require_images",
    "review_histograms",
    "review_progress",
    "review_queue",
    "samples_by_gain",
    "search_space",
    "segment_dataset",
    "select_between",
    "sweep",
    "to_detections",
    "tune",
    "undo",
]

_HOMES = {
    "Ablation": "ablation",
    "Comparison": "compare",
    "Histogram": "distribution",
    "ImportReport": "prediction_intake",
    "InstanceResults": "evaluation",
    "ProMergeModel": "model",
    "Progress": "review",
    "Tuning": "tuned",
    "ablate": "ablating",
    "accept": "review",
    "compare_fields": "compare",
    "decide": "review",
    "delete_run": "runs",
    "enable_annotation": "review",
    "evaluate_instances": "evaluation",
    "export_pseudo_labels": "export",
    "grid": "settings",
    "import_predictions": "predictions",
    "label_path": "review_updates",
    "list_evaluations": "evaluation",
    "list_labels": "review",
    "list_runs": "runs",
    "load_benchmark": "protocols",
    "load_coco": "protocols",
    "load_model": "model",
    "load_run": "runs",
    "mask_of": "labels",
    "masks_of": "labels",
    "measure_agreement": "agreement",
    "model_of_run": "model",
    "prepare_review": "review",
    "reject": "review",
    "require_images": "labels",
    "review_histograms": "distribution",
    "review_progress": "review",
    "review_queue": "doubt",
    "samples_by_gain": "compare",
    "search_space": "tuning",
    "segment_dataset": "segment",
    "select_between": "distribution",
    "sweep": "settings",
    "to_detections": "labels",
    "tune": "tuning",
    "undo": "review",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"promerge_fo.dataset.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'promerge_fo.dataset' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
