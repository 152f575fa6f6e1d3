"""``promerge evaluate``, ``compare`` and ``review``: the masks in a dataset's fields."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from promerge_fo.cli.arguments import Commands, add, add_command, positive
from promerge_fo.cli.progress import TerminalBar

_ORDERS = ("score", "disagreement", "size", "typicality")
#: Names of the plugin, of its panel, and of what the panel remembers.
_PLUGIN, _PANEL, _MEMORY = "@promerge/promerge", "promerge_review", "review"


def add_commands(commands: Commands) -> None:
    """Declare the commands."""
    made = add_command(commands, evaluate, "DATASET|DIR [options]")
    add(made, "dataset")
    add(made, "--view")
    add(made, "--label-field", default="promerge")
    add(made, "--gt-field", default="ground_truth")
    add(made, "--eval-key", "NAME", "also keep it as an evaluation run, which the App shows")
    add(made, "--classwise", bool, "also measure each class of the ground truth alone")
    add(made, "--output", "JSON", "also write the figures")

    made = add_command(commands, compare, "DATASET|DIR FIELD FIELD... [options]")
    add(made, "dataset")
    add(made, "fields", "FIELD", "fields with masks; the first is the baseline", nargs="+")
    add(made, "--view")
    add(made, "--gt-field", default="ground_truth")
    add(made, "--resamples", positive, "of the images, for the intervals", default=1000)
    add(made, "--confidence", float, "of the intervals", default=0.95)
    add(made, "--seed", int, "seed of the resampling", default=0)
    add(made, "--report", "DIR", "also write tables, plots and pictures side by side")

    made = add_command(commands, review, "DATASET|DIR [options]")
    add(made, "dataset")
    add(made, "--view")
    add(made, "--label-field", default="promerge")
    text = "first: lowest score, greatest disagreement, odd size, or least typical of its group"
    add(made, "--order", _ORDERS, text, default="score")
    add(made, "--other-field", "NAME", "field that the masks are compared with, for disagreement")
    add(made, "--limit", positive, "masks on a page", default=48)
    app = made.add_argument_group("the App")
    add(app, "--port", positive, "port to serve it on (5151)")
    add(app, "--address", "ADDRESS", "address to serve it on (this machine alone)")
    add(app, "--remote", bool, "only serve it, and open no browser")


def evaluate(
    dataset: str, view: str | None, label_field: str, output: str | None, **options: Any
) -> int:
    """Measure masks against ground truth: COCO's AP and AR.

    The figures are pycocotools', of masks (segm) and of boxes (bbox), whatever the labels' names:
    0 to 100, or -1 where there is no ground truth of that size. --classwise adds those of each name
    that the ground truth has, against predictions of that name, and their mean. With --eval-key the
    labels say what was found, and the App's Model Evaluation panel shows it.

      promerge evaluate my-dataset
      promerge evaluate photos/ --label-field fine --gt-field truth --output figures.json
      promerge evaluate my-dataset --eval-key eval_promerge
      promerge evaluate my-dataset --label-field named --classwise
    """
    from promerge_fo.dataset.evaluation.evaluate import evaluate_instances
    from promerge_fo.dataset.samples import find_dataset, require_objects

    samples = find_dataset(dataset, view)
    require_objects(samples, options["gt_field"])
    results = evaluate_instances(samples, label_field, progress=TerminalBar, **options)
    results.print_metrics()
    if output is not None:
        figures: dict[str, Any] = {**results.coco_metrics}
        if results.class_metrics:
            figures["classes"] = results.class_metrics
        Path(output).write_text(
            json.dumps(figures, indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )
        print(f"figures: {output}")
    return 0


def compare(
    dataset: str, view: str | None, fields: list[str], report: str | None, **options: Any
) -> int:
    """Compare the masks of two or more fields, by ground truth.

    COCO's AP and AR of each field, and their differences to the first one. The intervals in
    brackets come from drawing the images anew: a difference whose interval does not hold 0 is
    unlikely to be luck in the choice of the images.

      promerge compare my-dataset maskcut promerge
      promerge compare photos/ promerge fine --gt-field truth --report comparison/
    """
    from promerge_fo.dataset.evaluation.comparison import compare_fields
    from promerge_fo.dataset.samples import find_dataset, require_objects

    samples = find_dataset(dataset, view)
    require_objects(samples, options["gt_field"])
    comparison = compare_fields(samples, fields, progress=TerminalBar, **options)
    print(comparison)
    if report is not None:
        print(f"\nplots, pictures and all figures: {comparison.report(report)}")
    return 0


def review(
    dataset: str,
    view: str | None,
    label_field: str,
    port: int | None,
    address: str | None,
    remote: bool,
    **queue: Any,
) -> int:
    """Open the App on the masks that most need a look.

    The grid shows a page of the undecided masks, the most doubtful first, and the panel beside it
    accepts and rejects them and brings the next page; docs/review.md says how. Ctrl-C ends the
    command, and so does closing the App.

      promerge review my-dataset
      promerge review photos/ --order disagreement --other-field maskcut
      promerge review photos/ --order typicality
      promerge review my-dataset --remote --port 5152
    """
    import fiftyone as fo
    from fiftyone.plugins import list_plugins

    from promerge_fo.dataset.database import dataset_name, root_dataset, stages_of, store
    from promerge_fo.dataset.review.decisions import enable_annotation, review_progress
    from promerge_fo.dataset.review.queue import review_queue
    from promerge_fo.dataset.samples import find_dataset

    if all(plugin.name != _PLUGIN for plugin in list_plugins()):
        raise ValueError(
            "the App has no buttons for a review, as the plugin is not installed; promerge plugin "
            "install, or fiftyone plugins download, puts it there"
        )
    samples = find_dataset(dataset, view)
    root = root_dataset(samples)
    is_first = not root.has_field(f"{label_field}.detections.review")
    page = review_queue(samples, label_field, **queue)
    print(f"decided on so far: {review_progress(samples, label_field)}")
    if not len(page):
        print("nothing is left to decide on")
        return 0
    if is_first:
        enable_annotation(root, label_field)
    shown = {"page": dataset_name(page), "samples": stages_of(samples)}
    before = store(root).get(_MEMORY) or {}
    store(root).set(_MEMORY, {**before, "label_field": label_field, **queue, **shown})
    panels = [fo.Panel(type=name) for name in ("Samples", _PANEL)]
    columns = [fo.Space(children=[each], active_child=each.component_id) for each in panels]
    spaces = fo.Space(children=columns, orientation="horizontal")
    session = fo.launch_app(view=page, spaces=spaces, port=port, address=address, remote=remote)
    print("Ctrl-C ends this", flush=True)
    with suppress(KeyboardInterrupt):
        session.wait()
    return 0
