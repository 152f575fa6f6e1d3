"""``show_run``: what made the masks of a field, and the same again."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from ..forms import Form, chosen_path
from ..operator import Operator
from ..progress import follow, outcome

_SETTINGS = {"config", "settings"}  # what a method, and an import, was told


class ShowRun(Operator):
    """A run's record, and a call of ``segment_dataset`` with its settings."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="show_run",
            label="ProMerge: show a run",
            description="What made the masks of a field; run it again with the same settings",
            icon="history",
            dynamic=True,
            execute_as_generator=True,
            allow_immediate_execution=True,
            allow_delegated_execution=True,
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        form = Form(ctx, "ProMerge: runs", "Run again")
        record = choose_run(form)
        if record is None:
            return form.property()
        form.inputs.str("record", default=described(record), view=types.MarkdownView())
        if "config" not in record:
            form.refuse("An import is not run again: import the file again instead.")
            return form.property()
        form.inputs.view_target(ctx)
        form.inputs.file(
            "checkpoint",
            label="Checkpoint",
            description="the encoder's weights, where they came from a file",
            view=types.FileExplorerView(button_label="Choose a file"),
        )
        form.note(
            "again",
            "Running again fills in the images that this run has not done",
            f"Images of '{record['label_field']}' that it has done are skipped; those that failed "
            "are tried again.",
        )
        return form.property()

    def work(self, ctx: Any) -> Any:
        from promerge_fo.dataset.provenance import load_run
        from promerge_fo.dataset.runs.model import model_of_run
        from promerge_fo.dataset.runs.segment import segment_dataset

        record = load_run(ctx.dataset, ctx.params["run"])
        yield ctx.ops.set_progress(label="Loading the encoder", progress=0)
        model = model_of_run(record, chosen_path(ctx.params.get("checkpoint")))
        report = yield from follow(
            ctx,
            "images",
            lambda bar: segment_dataset(
                ctx.target_view(), model, record["label_field"], progress=bar
            ),
        )
        yield ctx.ops.reload_dataset()
        yield outcome(ctx, str(report))


def choose_run(form: Form, methods: Collection[str] | None = None) -> dict[str, Any] | None:
    """Ask for one of the dataset's runs.

    Args:
        form: that asks.
        methods: only runs of these; of all by default.

    Returns:
        The run's record, or None where there is no run, which the form then says.
    """
    from promerge_fo.dataset.provenance import list_runs, load_run

    dataset = form.ctx.dataset
    records = {key: load_run(dataset, key) for key in reversed(list_runs(dataset))}
    records = {k: r for k, r in records.items() if methods is None or r["method"] in methods}
    if not records:
        form.refuse("This dataset has no runs of ProMerge yet: segment instances first.")
        return None
    about = {
        key: f"'{r['label_field']}', {r['images']:,} images, {r['finished'].replace('T', ' ')[:16]}"
        for key, r in records.items()
    }
    key = form.choose("run", about, "Run", default=next(iter(about)))
    return records.get(key or "")


def described(record: dict[str, Any]) -> str:
    """A record as Markdown: a table, and the settings below it."""
    lines = ["| | |", "| --- | --- |"]
    for name, value in record.items():
        if name in _SETTINGS:
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{key} {part}" for key, part in value.items())
        lines.append(f"| {name.replace('_', ' ')} | {value} |")
    for name in _SETTINGS & set(record):
        lines += ["", "```json", json.dumps(record[name], indent=1), "```"]
    return "\n".join(lines)
