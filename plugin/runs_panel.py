"""The panel of runs: how far the operators' jobs are, what they did, and buttons that stop them."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from fiftyone.operators import types

from promerge_fo.dataset.runs.status import run_statuses, stop_runs

from . import jobs
from .look import Panel, add_button
from .places import RUNS_PANEL, open_panel

BUSY_MS, IDLE_MS = 1000, 4000  # between two looks at the records
NEWS_S = 10.0  # for which a job that has ended is news to a panel that has just been opened
HEADINGS = {
    "waiting": "waits for the one before it",
    "running": "",
    "done": "done",
    "stopped": "stopped",
    "failed": "failed",
    "lost": "its process has gone; what was done is kept, and the same form goes on from there",
}


class RunsPanel(Panel):
    """Shows the jobs of a dataset, wherever they run."""

    name = RUNS_PANEL
    label = "ProMerge: runs"
    icon = "history"
    help = (
        "What ProMerge's operators are doing on this dataset, and what they did last. A run goes "
        "on while the page is reloaded or closed, and ends with the App's server. What was started "
        "elsewhere is shown and stopped here, too."
    )

    def on_load(self, ctx: Any) -> None:
        ctx.panel.set_state("jobs", None)
        self.look(ctx)

    on_change_dataset = on_load

    def look(self, ctx: Any) -> None:
        """Read the records again, and show in the App what has been done since."""
        if ctx.dataset is None:
            return
        now, before = _shown(ctx.dataset), ctx.panel.get_state("jobs")
        if now == before:
            return
        ctx.panel.set_state("jobs", now)
        if before is None:  # what ended before the panel was there is news, too
            told = {each["id"] for each in now if not each["is_new"]}
        else:
            told = {each["id"] for each in before if not each["is_open"]}
        ended = [each for each in now if not each["is_open"] and each["id"] not in told]
        if ended:
            ctx.ops.reload_dataset()
            for each in ended:
                variant = {"done": "success", "failed": "error"}.get(each["state"], "info")
                ctx.ops.notify(f"{each['label']}: {each['state']}", variant=variant)
                if each["panel"] and each["state"] == "done":
                    open_panel(ctx, each["panel"])

    def stop(self, ctx: Any) -> None:
        """Stop the job, or the run elsewhere, whose button was clicked."""
        if ctx.params.get("field"):
            stop_runs(ctx.dataset, ctx.params["field"])
        else:
            jobs.stop(ctx.dataset, ctx.params["job"])
        ctx.ops.notify("It stops at its next step", variant="info")
        self.look(ctx)

    def forget(self, ctx: Any) -> None:
        """Leave out what has ended."""
        jobs.forget(ctx.dataset)
        self.look(ctx)

    def draw(self, ctx: Any, panel: types.Object) -> None:
        shown = ctx.panel.get_state("jobs") or []
        is_busy = any(each["is_open"] for each in shown)
        panel.view(
            "clock",
            types.TimerView(interval=BUSY_MS if is_busy else IDLE_MS, on_interval=self.look),
        )
        if not shown:
            panel.md(
                "**Nothing has run yet.** What ProMerge's operators do is shown here, such as "
                "**ProMerge: segment instances**.",
                name="empty",
            )
            return
        for i, each in enumerate(shown):
            self._add_job(panel, i, each)
        if any(not each["is_open"] for each in shown):
            row = panel.h_stack("below", gap=1)
            add_button(row, "forget", "Clear what has ended", "clear_all", self.forget)

    def _add_job(self, panel: types.Object, i: int, each: dict[str, Any]) -> None:
        heading = f"**{each['label']}**"
        if each["about"]:
            heading += f" ({each['about']})"
        if HEADINGS[each["state"]]:
            heading += f": {HEADINGS[each['state']]}"
        panel.md(heading, name=f"heading_{i}")
        if each["state"] == "failed":
            failed = types.Error(label="This failed", description=each["outcome"])
            panel.view(f"failed_{i}", failed)
        elif each["outcome"]:
            panel.md(each["outcome"], name=f"outcome_{i}")
        if not each["is_open"]:
            return
        if each["state"] == "running":
            # without a default, the bar only moves to and fro
            share = {} if each["share"] is None else {"default": each["share"]}
            bar = types.ProgressView(label=each["text"])
            panel.define_property(f"progress_{i}", types.Number(), view=bar, **share)
        row = panel.h_stack(f"buttons_{i}", gap=1)
        what = {"job": each["id"], "field": each["field"]}
        add_button(row, f"stop_{i}", "Stop", "stop_circle", self.stop, what)


def _shown(dataset: Any) -> list[dict[str, Any]]:
    """What the panel shows: jobs, and the runs that belong to none of them."""
    records = jobs.jobs_of(dataset)
    shown = [
        {
            **{k: v for k, v in asdict(record).items() if k not in ("updated", "created")},
            "state": "lost" if record.is_lost else record.state,
            "is_open": record.is_open,
            "is_new": time.time() - record.updated < NEWS_S,
            "field": None,
        }
        for record in records
    ]
    with_job = {(record.host, record.pid) for record in records if record.is_open}
    for status in run_statuses(dataset):
        if status.state == "running" and (status.host, status.pid) not in with_job:
            done = status.before + status.done
            shown.insert(
                0,
                {
                    "id": f"{status.label_field} {status.started}",
                    "label": "Segmentation",
                    "about": f"'{status.label_field}', process {status.pid} on {status.host}",
                    "state": "running",
                    "share": done / status.total if status.total else 1.0,
                    "text": f"{done:,} of {status.total:,} {status.unit}, "
                    f"{status.images_per_second:.1f} a second",
                    "outcome": "",
                    "panel": None,
                    "is_open": True,
                    "is_new": True,
                    "field": status.label_field,
                },
            )
    return shown
