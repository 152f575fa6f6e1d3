"""``show_run``: what made the masks of a field, and the same again."""

from __future__ import annotations

import json
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from ..forms import Form, chosen_path
from ..operator import Operator
from ..progress import follow


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
        if record["method"] == "import":
            form.refuse(f"Predictions cannot be made again here: import {record['file']} again.")
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
        from promerge_fo.dataset import load_run, model_of_run, segment_dataset

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
        yield {"report": str(report)}

    def resolve_output(self, ctx: Any) -> types.Property:
        outputs = types.Object()
        outputs.str("report", label="Result")
        return types.Property(outputs)


def records_of(ctx: Any) -> dict[str, dict[str, Any]]:
    """The records of the dataset's runs by key, the latest first."""
    from promerge_fo.dataset import list_runs, load_run

    return {key: load_run(ctx.dataset, key) for key in reversed(list_runs(ctx.dataset))}


def made_here(records: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The runs that a model of this package made: not imported predictions."""
    return {key: record for key, record in records.items() if record["method"] != "import"}


def choose_run(form: Form, records: dict[str, dict[str, Any]] | None = None) -> Any:
    """Ask for one of the dataset's runs, or of some; its record, or None where there is no run."""
    records = records_of(form.ctx) if records is None else records
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
    """A record as Markdown."""
    statuses = ", ".join(f"{count:,} {status}" for status, count in record["counts"].items())
    imported = record["method"] == "import"
    rows = {
        "field": record["label_field"],
        "method": record["method"],
        **(_of_file(record) if imported else _of_encoder(record)),
        "images": f"{record['images']:,} ({statuses}); {record['instances']:,} masks",
        "finished": record["finished"] + (", interrupted" if record["interrupted"] else ""),
        "versions": ", ".join(f"{k} {v}" for k, v in record["versions"].items()),
        "run hash": record["run_hash"],
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    settings = json.dumps(record["settings" if imported else "config"], indent=1)
    return f"| | |\n| --- | --- |\n{table}\n\n```json\n{settings}\n```"


def _of_encoder(record: dict[str, Any]) -> dict[str, str]:
    encoder = record["encoder"]
    return {
        "encoder": f"{encoder['name']}, {encoder['facet']}, {encoder['precision']}, "
        f"{encoder['image_size']} pixels",
        "weights": f"SHA-256 {(encoder['weights_sha256'] or 'none')[:16]}",
        "time": f"{record['seconds']:,} s, {record['images_per_second']} images/s on "
        f"{record['device']}",
    }


def _of_file(record: dict[str, Any]) -> dict[str, str]:
    return {
        "file": f"{record['file']}, SHA-256 {record['sha256'][:16]}",
        "time": f"{record['seconds']:,} s",
    }
