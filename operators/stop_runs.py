"""``stop_runs``: end what this plugin's operators are doing on the dataset."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo

from ..progress import stop


class StopRuns(foo.Operator):
    """What is done is kept."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="stop_runs",
            label="ProMerge: stop",
            description="End what ProMerge is doing on this dataset; what is done is kept",
            icon="stop_circle",
        )

    def __call__(self, samples: Any) -> Any:
        """Stop what runs in this process on a dataset."""
        return foo.execute_operator(self.uri, {"dataset": samples._root_dataset})

    def execute(self, ctx: Any) -> dict[str, int]:
        stopped = stop(ctx.dataset)
        ctx.ops.notify(
            "It stops at the next image" if stopped else "Nothing of ProMerge is running here",
            variant="info",
        )
        return {"stopped": stopped}
