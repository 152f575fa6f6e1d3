"""``name_instances``: give masks a name, from the App."""

from __future__ import annotations

from typing import Any

from fiftyone.operators import types

from ... import review
from ...forms import Form, is_from_app
from ...review_operator import ReviewOperator, ask_scope


class NameInstances(ReviewOperator):
    """A form and a call of ``promerge_fo.dataset.name_instances``, or of ``name_groups``."""

    label = "ProMerge: name masks"
    description = "The selected masks, a group, or those of the current view get a name"
    icon = "label"
    button = "Name"
    place = types.Places.SAMPLES_VIEWER_ACTIONS

    def __call__(
        self,
        samples: Any,
        label_field: str,
        name: str,
        ids: list[str] | None = None,
        groups: list[str] | None = None,
    ) -> Any:
        """Name from Python; arguments as those of the library's functions."""
        scope = "view" if groups is None else "group"
        return self.run(samples, label_field, name=name, ids=ids, group=groups, scope=scope)

    def run(self, samples: Any, label_field: str, **params: Any) -> Any:
        group = params.pop("group") or []
        joined = ", ".join([group] if isinstance(group, str) else map(str, group))
        return super().run(samples, label_field, group=joined, **params)

    def ask(self, form: Form) -> None:
        super().ask(form)
        ctx = form.ctx
        field = form.choose("label_field", review.fields_of(ctx, ctx.view), "Field")
        form.text("name", "Name", "such as cat", missing="Say what the masks are.")
        scopes = {}
        if review.selected(ctx, field) is not None:
            scopes["selected"] = ("What is selected", "")
        if ctx.dataset.has_field(f"{field}.detections.group"):
            scopes["group"] = ("Groups", "all masks of them, also those that are not shown")
        scopes["view"] = ("Every mask of the current view", "")
        if ask_scope(form, scopes, "name") == "group":
            form.text("group", "Groups", "their numbers, such as 1, 7", missing="Say which groups.")
        form.inputs.list("ids", types.String(), view=types.HiddenView())

    def work(self, ctx: Any) -> dict[str, int]:
        from promerge_fo.dataset.classes.names import name_groups, name_instances

        field = ctx.params.get("label_field") or review.settings_of(ctx)["label_field"]
        name, scope = str(ctx.params.get("name") or ""), ctx.params.get("scope", "selected")
        if scope == "group":
            groups = [each.strip() for each in str(ctx.params.get("group") or "").split(",")]
            target = review.whole_of(ctx, field) if is_from_app(ctx) else ctx.view
            count = name_groups(target, field, name, groups)
        else:
            chosen = review.selected(ctx, field)
            if scope == "view":
                chosen = review.Chosen(ctx.view, field, ctx.params.get("ids"))
            if chosen is None:
                raise ValueError(
                    "nothing is selected: select patches, labels or samples, or take every mask of "
                    'the current view (scope "view")'
                )
            count = name_instances(chosen.samples, str(chosen.label_field), name, chosen.ids)
        review.show_named(ctx, f"{count:,} masks are named {name.strip()!r}")
        return {"named": count}
