"""``stop_runs``: end what this plugin's operators are doing on the dataset."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo

from promerge_fo.dataset.database import root_dataset
from promerge_fo.dataset.runs import status

from ..jobs import stop
from ..operator import BaseOperator


class StopRuns(BaseOperator):
    """What is done is kept."""

    label = "ProMerge: stop"
    description = "End what ProMerge is doing on this dataset, in the App or elsewhere"
    icon = "stop_circle"
    dynamic = False

    def __call__(self, samples: Any) -> Any:
        """Stop what runs on a dataset, in whichever process."""
        return foo.execute_operator(self.uri, {"dataset": root_dataset(samples)})

    def resolve_input(self, ctx: Any) -> None:
        """There is nothing to ask."""

    def work(self, ctx: Any) -> dict[str, int]:
        jobs = stop(ctx.dataset)
        stopped = max(jobs, len(status.stop_runs(ctx.dataset)))  # a job may be a run
        ctx.ops.notify(
            "It stops at the next image" if stopped else "Nothing of ProMerge is running here",
            variant="info",
        )
        return {"stopped": stopped}
