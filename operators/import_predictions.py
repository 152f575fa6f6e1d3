"""``import_predictions``: a detector's predictions as a field."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from ..forms import Form, chosen_path
from ..operator import Operator


class ImportPredictions(Operator):
    """A form and a call of ``promerge_fo.dataset.import_predictions``."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="import_predictions",
            label="ProMerge: import predictions",
            description="coco_instances_results.json of any detector, as a field",
            icon="upload",
            dynamic=True,
            allow_immediate_execution=True,
            allow_delegated_execution=True,
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        form = Form(ctx, "ProMerge: import predictions", "Import")
        if form.refuse_without_images():
            return form.property()
        form.inputs.view_target(ctx)
        form.ask_file("path", "Predictions", "coco_instances_results.json", required=True)
        form.ask_file(
            "annotations",
            "Images",
            "a JSON file with 'images' that says which file each image_id is; not needed for "
            "images with a coco_id, or predictions made on this dataset's own export",
        )
        form.ask_free_field("label_field", "predictions")
        form.inputs.float(
            "min_score", default=form.last.get("min_score"), min=0, max=1, label="Lowest score"
        )
        form.inputs.int(
            "top_k", default=form.last.get("top_k"), min=1, label="At most so many an image"
        )
        return form.property()

    def work(self, ctx: Any) -> dict[str, Any]:
        from promerge_fo.dataset.exchange.imports import import_predictions

        params = ctx.params
        report = import_predictions(
            ctx.target_view(),
            chosen_path(params["path"]),
            params["label_field"],
            annotations=chosen_path(params.get("annotations")),
            min_score=params.get("min_score"),
            top_k=params.get("top_k"),
            overwrite=params.get("overwrite", False),
        )
        if not ctx.delegated:
            ctx.ops.reload_dataset()
        return {"report": str(report).replace("\n", "\n\n")}

    def resolve_output(self, ctx: Any) -> types.Property:
        outputs = types.Object()
        outputs.str("report", label="Result", view=types.MarkdownView())
        return types.Property(outputs)
