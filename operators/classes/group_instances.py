"""``group_instances``: put masks that look alike into groups, from the App."""

from __future__ import annotations

from typing import Any

from ...forms import CannotRunError, Form, detection_fields, target_of
from ...jobs import Job, Outcome
from ...operator import LongOperator


class GroupInstances(LongOperator):
    """A form and a call of ``promerge_fo.dataset.group_instances``."""

    label = "ProMerge: group instances"
    description = "Put masks that look alike into groups, to name them together"
    icon = "bubble_chart"
    button = "Group"

    def ask(self, form: Form) -> None:
        fields = detection_fields(form.target())
        if not fields:
            raise CannotRunError("No field holds detections: segment the images first.")
        form.choose("label_field", fields, "Field", "masks with embeddings")
        form.count("groups", "Groups", "how many; their number is found where this is empty")
        form.note("replaces", "Masks that were grouped before are grouped anew; names stay")

    def work(self, ctx: Any, job: Job) -> Outcome:  # type: ignore[override]
        from promerge_fo.dataset.classes.groups import group_instances

        groups = group_instances(
            target_of(ctx),
            ctx.params["label_field"],
            ctx.params.get("groups"),
            progress=job.progress("images"),
        )
        text = "\n".join(f"- {group}" for group in groups)
        sizes = {group.name: group.size for group in groups}
        return Outcome(f"{len(groups)} groups\n\n{text}", {"groups": sizes}, "promerge_groups")
