"""``compare_fields``: fields of instances against each other, with intervals and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fiftyone.operators import types

from ..forms import CannotRunError, Form, chosen_path, detection_fields, menu, target_of
from ..jobs import Job, Outcome
from ..operator import LongOperator


class CompareFields(LongOperator):
    """A form and calls of ``compare_fields`` and ``evaluate_instances``."""

    label = "ProMerge: compare fields"
    description = "AP and AR of several fields, how sure their differences are, and where"
    icon = "compare"
    button = "Compare"

    def ask(self, form: Form) -> None:
        fields = detection_fields(form.target())
        if len(fields) < 3:
            raise CannotRunError(
                "Two fields of predictions and one of ground truth are needed; this dataset has "
                f"the fields of detections {fields or 'none'}."
            )
        truth = "ground_truth" if "ground_truth" in fields else fields[-1]
        truth = form.choose("gt_field", fields, "Ground truth", default=truth)
        others = [field for field in fields if field != truth]
        first = form.choose("baseline", others, "Baseline", "what the others are compared with")
        rest = [field for field in others if field != first]
        form.inputs.list(
            "fields",
            types.String(),
            default=rest,
            label="Compared with it",
            view=menu(types.DropdownView(multiple=True), rest),
        )
        chosen = form.ctx.params.setdefault("fields", rest)
        if not chosen or not set(chosen) <= set(rest):
            form.refuse(f"Choose one or more of {rest} to compare.", "fields_refused")
        about = "tables, plots and pictures side by side; none is written if empty"
        form.folder("folder", "Folder for a report", about)

    def about(self, ctx: Any) -> str:
        return ", ".join([ctx.params["baseline"], *ctx.params["fields"]])

    def work(self, ctx: Any, job: Job) -> Outcome:  # type: ignore[override]
        from promerge_fo.dataset.evaluation.comparison import compare_fields
        from promerge_fo.dataset.evaluation.evaluate import evaluate_instances

        params, view = ctx.params, target_of(ctx)
        fields, truth = [params["baseline"], *params["fields"]], params["gt_field"]
        for field in fields:
            bar = job.progress(f"images of {field}")
            evaluate_instances(view, field, truth, f"eval_{field}", progress=bar)
        comparison = compare_fields(view, fields, truth, progress=job.progress("images"))
        folder, text = chosen_path(params.get("folder")), str(comparison)
        report = None
        if folder is not None:
            report = comparison.report(Path(folder) / "promerge-comparison")
            text += f"\n\nReport: `{report}`"
        result = {"report": None if report is None else str(report)}
        return Outcome(text, result, panel="promerge_compare")
