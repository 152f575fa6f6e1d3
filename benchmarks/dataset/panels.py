"""Forms and panels over a million labels: how long they take to open.

Every operator's form, and the compare panel with two evaluations, on the labels of
benchmarks/dataset/review.py; what the review's panel takes is there.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from benchmarks.database import start
from benchmarks.dataset.review import COUNTS, FIELD, REPETITIONS, fill
from benchmarks.memory import apart
from benchmarks.settings import Settings
from benchmarks.timing import measure

RUNS = ("eval_first", "eval_second")


def run(settings: Settings) -> dict[str, Any]:
    counts = settings.pick(COUNTS, (100,))
    return {
        "load_average_before": round(os.getloadavg()[0], 1),
        "counts": [apart(f"{__name__}:of_count", images=count) for count in counts],
    }


def of_count(images: int) -> dict[str, Any]:
    """Seconds until each form and the compare panel are there."""
    start()
    import fiftyone.operators as foo
    from fiftyone.operators.executor import ExecutionContext, Executor

    from promerge_fo.install.plugin import install_plugin

    install_plugin()
    dataset = fill(images)
    evaluate(dataset)
    request = {"dataset_name": dataset.name, "params": {"panel_id": "panel", "panel_state": {}}}

    def context(uri: str) -> Any:
        return ExecutionContext(operator_uri=uri, request_params={**request}, executor=Executor())

    def form(operator: Any) -> None:
        operator.resolve_input(context(operator.uri))

    def compare(panel: Any) -> None:
        ctx = context(panel.uri)
        panel.on_load(ctx)
        panel.render(ctx)

    seconds = {
        f"form of {operator.name}": measure(partial(form, operator), REPETITIONS)
        for operator in foo.list_operators(builtin=False)
        if operator.uri.startswith("@promerge/")
        and operator.name != "stop_runs"
        and not isinstance(operator, foo.Panel)
    }
    panel = foo.get_operator("@promerge/promerge/promerge_compare")
    seconds["panel promerge_compare"] = measure(partial(compare, panel), REPETITIONS)
    return {
        "images": images,
        "labels": dataset.count(f"{FIELD}.detections"),
        "seconds": seconds,
        "slowest_s": max(value["median_s"] for value in seconds.values()),
    }


def evaluate(dataset: Any) -> None:
    """Two evaluations as they are stored, of figures and counts that are made up."""
    import fiftyone as fo

    from promerge_fo.dataset.database import update_all
    from promerge_fo.dataset.evaluation.coco_metrics import METRICS
    from promerge_fo.dataset.evaluation.evaluate import InstanceEvaluationConfig

    for key in RUNS:
        config = InstanceEvaluationConfig(
            FIELD,
            "other",
            images=len(dataset),
            figures={kind: dict.fromkeys(METRICS, 1.0) for kind in ("segm", "bbox")},
            curves={iou: [1.0] * 101 for iou in ("0.50", "0.75")},
        )
        config.build().register_run(dataset, key)
        counts = {}
        for suffix in ("_tp", "_fp", "_fn"):
            dataset.add_sample_field(f"{key}{suffix}", fo.IntField)
            counts[f"{key}{suffix}"] = {"$floor": {"$multiply": [{"$rand": {}}, 6]}}
        update_all(dataset, {}, [{"$set": counts}])
    dataset.reload()
