"""``compare_fields``: fields of instances against each other, with intervals and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from ..forms import Form, chosen_path, detection_fields
from ..operator import Operator
from ..progress import follow, outcome


class CompareFields(Operator):
    """A form and calls of ``compare_fields`` and ``evaluate_instances``."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="compare_fields",
            label="ProMerge: compare fields",
            description="AP and AR of several fields, how sure their differences are, and where",
            icon="compare",
            dynamic=True,
            execute_as_generator=True,
            allow_immediate_execution=True,
            allow_delegated_execution=True,
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        form = Form(ctx, "ProMerge: compare fields", "Compare")
        fields = detection_fields(ctx.dataset)
        if len(fields) < 3:
            form.refuse(
                "Two fields of predictions and one of ground truth are needed; this dataset has "
                f"the fields of detections {fields or 'none'}."
            )
            return form.property()
        form.inputs.view_target(ctx)
        truth = "ground_truth" if "ground_truth" in fields else fields[-1]
        truth = form.choose("gt_field", fields, "Ground truth", default=truth)
        others = [field for field in fields if field != truth]
        first = form.choose(
            "baseline", others, "Baseline", "what the others are compared with", others[0]
        )
        rest = [field for field in others if field != first]
        choices = types.DropdownView(multiple=True)
        for field in rest:
            choices.add_choice(field, label=field)
        form.inputs.list(
            "fields",
            types.String(),
            default=rest,
            required=True,
            label="Compared with it",
            view=choices,
        )
        chosen = ctx.params.get("fields", rest)
        if not chosen or not set(chosen) <= set(rest):
            form.refuse(f"Choose one or more of {rest} to compare.", "fields_refused")
        form.inputs.file(
            "folder",
            label="Folder for a report",
            description="tables, plots and pictures side by side; none is written if empty",
            view=types.FileExplorerView(choose_dir=True, button_label="Choose a folder"),
        )
        return form.property()

    def work(self, ctx: Any) -> Any:
        from promerge_fo.dataset.evaluation.comparison import compare_fields
        from promerge_fo.dataset.evaluation.evaluate import evaluate_instances
        from promerge_fo.dataset.progress import steps_of

        params, view = ctx.params, ctx.target_view()
        fields = [params["baseline"], *params["fields"]]

        def work(bar: Any) -> Any:
            for field in fields:
                evaluate_instances(
                    view, field, params["gt_field"], f"eval_{field}", progress=steps_of(bar)
                )
            return compare_fields(view, fields, params["gt_field"], progress=steps_of(bar))

        comparison = yield from follow(ctx, "images", work)
        folder, text = chosen_path(params.get("folder")), str(comparison)
        if folder is not None:
            report = comparison.report(Path(folder) / "promerge-comparison")
            text += f"\n\nReport: `{report}`"
        yield ctx.ops.reload_dataset()
        yield ctx.ops.open_panel("promerge_compare", layout="horizontal", force=True)
        yield outcome(ctx, text, types.MarkdownView())
