"""``evaluate_instances``: COCO's AP and AR of a field, from the App."""

from __future__ import annotations

from typing import Any

from promerge_fo.words import markdown_table

from ..forms import CannotRunError, Form, detection_fields, target_of, why_no_name
from ..jobs import Job, Outcome
from ..operator import LongOperator


class EvaluateInstances(LongOperator):
    """A form and a call of ``promerge_fo.dataset.evaluate_instances``."""

    label = "ProMerge: evaluate instances"
    description = "Class-agnostic COCO AP and AR, exactly as pycocotools measures them"
    icon = "query_stats"
    button = "Evaluate"

    def ask(self, form: Form) -> None:
        dataset = form.ctx.dataset
        fields = detection_fields(form.target())
        if len(fields) < 2:
            raise CannotRunError(
                "Two fields of detections are needed, predictions and ground truth; this dataset "
                f"has {fields or 'none'}."
            )
        truth = "ground_truth" if "ground_truth" in fields else fields[-1]
        first = next(field for field in fields if field != truth)
        predicted = form.choose("pred_field", fields, "Predictions", default=first)
        if predicted == form.choose("gt_field", fields, "Ground truth", default=truth):
            form.refuse("Predictions and ground truth are the same field.", "same_refused")
        form.last.pop("eval_key", None)  # it follows the field
        about = "the run's name, and that of the fields with its matches"
        key = form.text("eval_key", "Evaluation key", about, f"eval_{predicted}")
        wrong = why_no_name(key, "run")
        if wrong:
            form.refuse(wrong, "key_refused")
        elif dataset.has_evaluation(key):
            form.note("replaces", f"The evaluation '{key}' is replaced")
        elif dataset.has_field(key):
            form.refuse(f"There is a field {key!r}; take another key.", "key_refused")

        about = "against the predictions of the same name; the matches stay those of all labels"
        form.tick("classwise", "Also measure each class of the ground truth", about, keep=True)

    def about(self, ctx: Any) -> str:
        return f"{ctx.params['pred_field']} against {ctx.params['gt_field']}"

    def work(self, ctx: Any, job: Job) -> Outcome:  # type: ignore[override]
        from promerge_fo.dataset.evaluation.evaluate import evaluate_instances

        options = {name: ctx.params[name] for name in ("pred_field", "gt_field", "eval_key")}
        options["classwise"] = bool(ctx.params.get("classwise"))
        bar = job.progress("images")
        results = evaluate_instances(target_of(ctx), progress=bar, **options)
        metrics, classes = results.coco_metrics, results.class_metrics
        tables = [metrics_table(metrics)]
        tables += [f"{name}\n\n{metrics_table(figures)}" for name, figures in classes.items()]
        found = {"metrics": metrics, "classes": classes, "eval_key": options["eval_key"]}
        return Outcome("\n\n".join(tables), found)


def metrics_table(metrics: dict[str, dict[str, float]]) -> str:
    """Figures as Markdown."""
    header = ["", *next(iter(metrics.values()))]
    rows = []
    for kind, figures in metrics.items():
        cells = ("-" if value < 0 else f"{value:.2f}" for value in figures.values())
        rows.append(["masks" if kind == "segm" else "boxes", *cells])
    return markdown_table(header, rows)
