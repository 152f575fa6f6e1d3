"""``promerge status`` and ``stop``: runs, in whichever process or machine they are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from promerge_fo.cli.arguments import Commands, add, add_command

if TYPE_CHECKING:
    from promerge_fo.dataset.runs.status import RunStatus

_INTERVAL_S = 0.5


def add_commands(commands: Commands) -> None:
    """Declare the commands."""
    made = add_command(commands, status, "DATASET|DIR [options]")
    add(made, "dataset")
    add(made, "--failed", bool, "also list the images that failed, with the reasons")

    made = add_command(commands, stop, "DATASET|DIR [options]")
    add(made, "dataset")
    add(made, "--label-field", "NAME", "only the run that fills this field")


def status(dataset: str, failed: bool) -> int:
    """How far a run is: done, failed, rate, time left.

    Shows the last run of each field of a dataset, local or on Ray, on any machine that reaches the
    same database. For a folder, these are all datasets with images in it, whatever their names.

      promerge status photos/
      promerge status my-dataset --failed
    """
    from promerge_fo.dataset.runs.resume import failures
    from promerge_fo.dataset.runs.status import run_statuses
    from promerge_fo.dataset.samples import find_datasets

    for found in find_datasets(dataset):
        runs = list(run_statuses(found))
        if not runs:
            print(f"{found.name} has no run of promerge segment")
        for run in runs:
            print(f"{found.name}: {run}")
            for failure in failures(found, run.label_field, run.run) if failed else ():
                print(f"  {failure}")
    return 0


def stop(dataset: str, label_field: str | None) -> int:
    """End runs of promerge segment, and wait until they have ended.

    The runs on a dataset, or on all datasets with images in a folder, are asked to stop, in
    whichever process they are: in another terminal, in the App, on a cluster. Each stops at its
    next image. What is done is kept, and the command that began a run goes on with it. Where a run
    does not answer, the exit status is 1.

      promerge stop photos/
      promerge stop my-dataset --label-field fine
    """
    from promerge_fo.dataset.runs.status import stop_runs
    from promerge_fo.dataset.samples import find_datasets

    asked = [
        (found, run) for found in find_datasets(dataset) for run in stop_runs(found, label_field)
    ]
    for found, run in asked:
        print(f"{found.name}: the run on field {run.label_field!r} is asked to stop", flush=True)
    ended = [(found, _end_of(found, run)) for found, run in asked]
    for found, run in ended:
        print(f"{found.name}: {run}")
    if not asked:
        print("nothing to stop: no run of promerge segment goes on there")
    return 1 if any(run.state == "lost" for _, run in ended) else 0


def _end_of(dataset: Any, run: RunStatus) -> RunStatus:
    """The status of a run when it no longer goes on."""
    from promerge_fo.dataset.runs.status import run_statuses

    while run.state == "running":
        time.sleep(_INTERVAL_S)
        run = next(each for each in run_statuses(dataset) if each.label_field == run.label_field)
    return run
