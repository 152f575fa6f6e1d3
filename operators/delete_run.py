"""``delete_run``: delete a run's labels and its record."""

from __future__ import annotations

from typing import Any

from fiftyone.operators import types

from ..forms import Form, result
from ..operator import Operator
from .show_run import choose_run


class DeleteRun(Operator):
    """A form and a call of ``promerge_fo.dataset.delete_run``."""

    label = "ProMerge: delete a run"
    description = "Delete the labels that a run made, and its record"
    icon = "delete"
    button = "Delete"
    needs_images = False

    def ask(self, form: Form) -> None:
        record = choose_run(form)
        form.warn(
            "gone",
            f"The {record['instances']:,} masks of this run in '{record['label_field']}' go",
            "This cannot be undone: reviews of them go too. Labels of other runs stay.",
        )

    def work(self, ctx: Any) -> dict[str, Any]:
        from promerge_fo.dataset.provenance import delete_run

        cleared = delete_run(ctx.dataset, ctx.params["run"])
        ctx.ops.reload_dataset()
        return {"report": f"{ctx.params['run']} is gone, with the labels of {cleared:,} images"}

    def resolve_output(self, ctx: Any) -> types.Property:
        return result("report")
