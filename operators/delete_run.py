"""``delete_run``: a run's labels and its record go."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from ..forms import Form
from ..operator import Operator
from .show_run import choose_run


class DeleteRun(Operator):
    """A form and a call of ``promerge_fo.dataset.delete_run``."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="delete_run",
            label="ProMerge: delete a run",
            description="Delete the labels that a run made, and its record",
            icon="delete",
            dynamic=True,
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        form = Form(ctx, "ProMerge: delete a run", "Delete")
        record = choose_run(form)
        if record is not None:
            form.warn(
                "gone",
                f"The {record['instances']:,} masks of this run in '{record['label_field']}' go",
                "This cannot be undone: reviews of them go too. Labels of other runs stay.",
            )
        return form.property()

    def work(self, ctx: Any) -> dict[str, Any]:
        from promerge_fo.dataset.provenance import delete_run

        cleared = delete_run(ctx.dataset, ctx.params["run"])
        ctx.ops.reload_dataset()
        return {"report": f"{ctx.params['run']} is gone, with the labels of {cleared:,} images"}

    def resolve_output(self, ctx: Any) -> types.Property:
        outputs = types.Object()
        outputs.str("report", label="Result")
        return types.Property(outputs)
