"""``import_predictions``: a detector's predictions as a field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..forms import Form, filled, target_of
from ..jobs import Job, Outcome
from ..operator import LongOperator


class ImportPredictions(LongOperator):
    """A form and a call of ``promerge_fo.dataset.import_predictions``."""

    label = "ProMerge: import predictions"
    description = "What a detector found, as a field: COCO's JSON, or torchvision's tensors"
    icon = "upload"
    makes_masks = True
    button = "Import"

    def ask(self, form: Form) -> None:
        form.target()
        about = "coco_instances_results.json, ultralytics' predictions.json, or torchvision's .pt"
        form.path("path", "Predictions", about, _require_file, missing="Say which file.")
        form.path(
            "annotations",
            "Images",
            "a JSON file with 'images' that says which file each image_id is; not needed for "
            "images with a coco_id, or predictions made on this dataset's own export",
            _require_file,
        )
        about = "as the predictions say otherwise, or fg"
        form.tick("class_names", "Name labels by the categories of that file", about, keep=True)
        form.new_field("label_field", "predictions")
        form.share("min_score", "Lowest score")
        form.count("top_k", "At most so many an image")

    def work(self, ctx: Any, job: Job) -> Outcome:  # type: ignore[override]
        from promerge_fo.dataset.exchange.imports import import_predictions

        params = ctx.params
        job.show("Reading the file")
        report = import_predictions(
            target_of(ctx),
            params["path"],
            params["label_field"],
            annotations=params.get("annotations") or None,
            class_names="annotations" if params.get("class_names") else None,
            **filled(params, "min_score", "top_k", "overwrite", "drop_decisions"),
        )
        return Outcome(str(report).replace("\n", "\n\n"), {"label_field": params["label_field"]})


def _require_file(path: str) -> None:
    if not Path(path).expanduser().is_file():
        raise ValueError(f"There is no file {path}.")
