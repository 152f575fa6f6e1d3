"""``stop_runs``: end what this plugin's operators are doing on the dataset."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo

from promerge_fo.dataset.database import root_dataset

from ..operator import BaseOperator
from ..progress import stop


class StopRuns(BaseOperator):
    """What is done is kept."""

    label = "ProMerge: stop"
    description = "End what ProMerge is doing on this dataset; what is done is kept"
    icon = "stop_circle"
    dynamic = False

    def __call__(self, samples: Any) -> Any:
        """Stop what runs in this process on a dataset."""
        return foo.execute_operator(self.uri, {"dataset": root_dataset(samples)})

    def resolve_input(self, ctx: Any) -> None:
        """There is nothing to ask."""

    def work(self, ctx: Any) -> dict[str, int]:
        stopped = stop(ctx.dataset)
        ctx.ops.notify(
            "It stops at the next image" if stopped else "Nothing of ProMerge is running here",
            variant="info",
        )
        return {"stopped": stopped}
