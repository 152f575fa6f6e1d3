"""``show_run``: what made the masks of a field, and the same again."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from fiftyone.operators import types

from promerge_fo.words import markdown_table

from ..forms import CannotRunError, Form, chosen_path, target_of
from ..jobs import Job, Outcome
from ..operator import LongOperator
from .segment_instances import report_outcome

_SETTINGS = ("config", "settings")  # what a method, and an import, was told


class ShowRun(LongOperator):
    """A run's record, and a call of ``segment_dataset`` with its settings."""

    label = "ProMerge: show a run"
    description = "What made the masks of a field; run it again with the same settings"
    icon = "history"
    makes_masks = True
    heading = "ProMerge: runs"
    button = "Run again"
    needs_images = False

    def ask(self, form: Form) -> None:
        record = choose_run(form)
        form.inputs.str("record", default=described(record), view=types.MarkdownView())
        if "config" not in record:
            raise CannotRunError("An import is not run again: import the file again instead.")
        form.target()
        form.file("checkpoint", "Checkpoint", "the encoder's weights, where they came from a file")
        form.note(
            "again",
            "Running again fills in the images that this run has not done",
            f"Images of '{record['label_field']}' that it has done are skipped; those that failed "
            "are tried again.",
        )

    def about(self, ctx: Any) -> str:
        return f"run {ctx.params['run']}"

    def work(self, ctx: Any, job: Job) -> Outcome:  # type: ignore[override]
        from promerge_fo.dataset.provenance import load_run
        from promerge_fo.dataset.runs.model import model_of_run
        from promerge_fo.dataset.runs.segment import segment_dataset

        record = load_run(ctx.dataset, ctx.params["run"])
        job.show("Loading the encoder")
        model = model_of_run(record, chosen_path(ctx.params.get("checkpoint")))
        target, field = target_of(ctx), record["label_field"]
        report = segment_dataset(target, model, field, progress=job.progress("images"))
        return report_outcome(report, field, model)


def choose_run(form: Form, methods: Collection[str] | None = None) -> dict[str, Any]:
    """Ask for one of the dataset's runs.

    Args:
        form: that asks.
        methods: only runs of these; of all by default.

    Returns:
        The run's record.

    Raises:
        CannotRunError: there is no run.
    """
    from promerge_fo.dataset.provenance import list_runs, load_run

    dataset = form.ctx.dataset
    records = {key: load_run(dataset, key) for key in reversed(list_runs(dataset))}
    records = {k: r for k, r in records.items() if methods is None or r["method"] in methods}
    if not records:
        raise CannotRunError("This dataset has no runs of ProMerge yet: segment instances first.")
    about = {
        key: f"'{r['label_field']}', {r['images']:,} images, {r['finished'].replace('T', ' ')[:16]}"
        for key, r in records.items()
    }
    return records[form.choose("run", about, "Run")]


def described(record: dict[str, Any]) -> str:
    """A record as Markdown: a table, and the settings below it."""
    rows = []
    for name, value in record.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {part}" for key, part in value.items())
        if name not in _SETTINGS:
            rows.append((name.replace("_", " "), str(value)))
    settings = [json.dumps(record[name], indent=1) for name in _SETTINGS if name in record]
    blocks = [f"```json\n{text}\n```" for text in settings]
    return "\n\n".join([markdown_table(["", ""], rows), *blocks])
