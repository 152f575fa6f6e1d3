"""``evaluate_instances``: COCO's AP and AR of a field, from the App."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from ..forms import Form, detection_fields, why_no_name
from ..operator import Operator
from ..progress import follow, outcome


class EvaluateInstances(Operator):
    """A form and a call of ``promerge_fo.dataset.evaluate_instances``."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="evaluate_instances",
            label="ProMerge: evaluate instances",
            description="Class-agnostic COCO AP and AR, exactly as pycocotools measures them",
            icon="query_stats",
            dynamic=True,
            execute_as_generator=True,
            allow_immediate_execution=True,
            allow_delegated_execution=True,
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        form = Form(ctx, "ProMerge: evaluate instances", "Evaluate")
        fields = detection_fields(ctx.dataset)
        if form.refuse_without_images():
            return form.property()
        if len(fields) < 2:
            form.refuse(
                "Two fields of detections are needed, predictions and ground truth; this dataset "
                f"has {fields or 'none'}."
            )
            return form.property()
        form.inputs.view_target(ctx)
        truth = "ground_truth" if "ground_truth" in fields else fields[-1]
        first = next(field for field in fields if field != truth)
        predicted = form.choose("pred_field", fields, "Predictions", default=first)
        truth = form.choose("gt_field", fields, "Ground truth", default=truth)
        if predicted == truth:
            form.refuse("Predictions and ground truth are the same field.", "same_refused")
        form.inputs.str(
            "eval_key",
            required=True,
            default=f"eval_{predicted}",
            label="Evaluation key",
            description="the run's name, and that of the fields with its matches",
        )
        key = ctx.params.get("eval_key") or f"eval_{predicted}"
        wrong = why_no_name(key, "run")
        if wrong:
            form.refuse(wrong, "key_refused")
        elif ctx.dataset.has_evaluation(key):
            form.note("replaces", f"The evaluation '{key}' is replaced")
        elif ctx.dataset.has_field(key):
            form.refuse(f"There is a field {key!r}; take another key.", "key_refused")
        return form.property()

    def work(self, ctx: Any) -> Any:
        from promerge_fo.dataset.evaluation.evaluate import evaluate_instances
        from promerge_fo.dataset.progress import steps_of

        params = ctx.params
        results = yield from follow(
            ctx,
            "images",
            lambda bar: evaluate_instances(
                ctx.target_view(),
                params["pred_field"],
                params["gt_field"],
                params["eval_key"],
                progress=steps_of(bar),
            ),
        )
        yield ctx.ops.reload_dataset()
        yield outcome(ctx, metrics_table(results.metrics()), types.MarkdownView())


def metrics_table(metrics: dict[str, dict[str, float]]) -> str:
    """Figures as Markdown."""
    names = list(next(iter(metrics.values())))
    lines = ["| | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for kind, figures in metrics.items():
        cells = ("-" if figures[name] < 0 else f"{figures[name]:.2f}" for name in names)
        lines.append(f"| {'masks' if kind == 'segm' else 'boxes'} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
