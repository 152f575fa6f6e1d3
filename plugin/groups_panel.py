"""The panel of groups: masks that look alike, opened, split, merged and named beside the grid."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from typing import Any

from fiftyone.operators import types

from . import review
from .forms import add_menu, detection_fields
from .look import Panel, add_button

ORDERS = {
    "most typical": "what the group is",
    "least typical": "where the group may be wrong",
}
NEAREST = 50  # masks without a name that are shown before they are named
PAGE = 12  # groups that are shown at once
NOTHING = (
    "Nothing is selected: click masks in the grid, or draw a lasso around them in the Embeddings "
    "panel. Text that is typed here ends a lasso: leave the name empty, and you are asked for it"
)
EMPTY = (
    "No masks are grouped yet. **Group** does it, once they have embeddings: **Embed** gives them "
    "theirs."
)


def told(method: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """Say what is wrong with what was asked for, in place of an error that nobody sees."""

    @wraps(method)
    def call(self: Any, ctx: Any) -> None:
        try:
            method(self, ctx)
        except ValueError as error:
            ctx.ops.notify(str(error), variant="error")

    return call


class GroupsPanel(Panel):
    """Lists groups with typical masks of each, and does with them what the library does."""

    name = "promerge_groups"
    label = "ProMerge: groups"
    icon = "bubble_chart"
    help = (
        "Masks that look alike. Open a group, name it, or name the masks that you select in the "
        "grid or by a lasso in the Embeddings panel. The least typical masks are where a group may "
        "be wrong."
    )

    def on_load(self, ctx: Any) -> None:
        """Begin with a dataset; or go on with it, where another tab had hidden the panel."""
        dataset = getattr(ctx.dataset, "name", None)
        if ctx.panel.get_state("dataset") != dataset:
            ctx.panel.set_state("dataset", dataset)
            ctx.panel.set_state("label_field", review.settings_of(ctx)["label_field"])
            ctx.panel.set_state("first", next(iter(ORDERS)))
            ctx.panel.set_state("found", None)
            ctx.panel.set_state("shown", PAGE)
        self.count(ctx)

    on_change_dataset = on_load  # which FiftyOne calls for a panel that comes back, too

    def count(self, ctx: Any) -> None:
        """List the groups again, with pictures of their typical masks."""
        from promerge_fo.dataset.classes.groups import list_groups

        field = _field(ctx)
        groups = []
        if field is not None and ctx.dataset.has_field(f"{field}.detections.group"):
            groups = list_groups(ctx.dataset, field)
        before = {each["name"]: each["typical"] for each in ctx.panel.get_state("groups") or []}
        for group in groups[: ctx.panel.get_state("shown")]:
            if before.get(group.name) != group.typical or not _has_picture(ctx, group.name):
                ctx.panel.set_state(f"picture_{group.name}", _picture(ctx, str(field), group))
        listed = [{**asdict(group), "text": str(group)} for group in groups]
        ctx.panel.set_state("groups", listed)
        names = [each["name"] for each in listed]
        if ctx.panel.get_state("group") not in names:
            ctx.panel.set_state("group", next(iter(names), None))

    def change_field(self, ctx: Any) -> None:
        review.keep(ctx, label_field=ctx.panel.get_state("label_field"))
        ctx.panel.set_state("group", None)
        ctx.panel.set_state("found", None)
        self.count(ctx)

    def show_more(self, ctx: Any) -> None:
        ctx.panel.set_state("shown", ctx.panel.get_state("shown") + PAGE)
        self.count(ctx)

    def embed(self, ctx: Any) -> None:
        ctx.prompt("@promerge/promerge/embed_instances")

    def find_groups(self, ctx: Any) -> None:
        ctx.prompt("@promerge/promerge/group_instances")

    @told
    def open_group(self, ctx: Any) -> None:
        """Show the masks of a group in the grid."""
        ctx.panel.set_state("group", ctx.params["group"])
        self._show(ctx)
        ctx.ops.open_panel("Samples")  # the grid, where the panel hides it

    @told
    def reopen(self, ctx: Any) -> None:
        """Another order was chosen."""
        self._show(ctx)
        ctx.ops.open_panel("Samples")

    @told
    def split(self, ctx: Any) -> None:
        from promerge_fo.dataset.classes.groups import split_group

        parts = split_group(ctx.dataset, _field(ctx), ctx.panel.get_state("group"))
        self._regrouped(ctx, " and ".join(map(str, parts)))

    @told
    def merge(self, ctx: Any) -> None:
        from promerge_fo.dataset.classes.groups import merge_groups

        group, other = ctx.panel.get_state("group"), ctx.panel.get_state("other")
        if not other:
            raise ValueError("Choose the other group to merge with")
        merged = merge_groups(ctx.dataset, _field(ctx), [group, other])
        ctx.panel.set_state("other", None)
        self._regrouped(ctx, str(merged))

    @told
    def name_group(self, ctx: Any) -> None:
        from promerge_fo.dataset.classes.names import name_groups

        name, group = _name(ctx), ctx.panel.get_state("group")
        field = str(_field(ctx))
        count = name_groups(review.whole_of(ctx, field), field, name, [group])
        self._named(ctx, f"{count:,} masks are named {name!r}")

    @told
    def name_selected(self, ctx: Any) -> None:
        from promerge_fo.dataset.classes.names import name_instances

        name, chosen = _name(ctx), review.selected(ctx, _field(ctx))
        if chosen is None:
            raise ValueError(NOTHING)
        if not name:  # a change of the panel's own input ends a lasso
            params = {"label_field": chosen.label_field, "scope": "selected"}
            ctx.prompt("@promerge/promerge/name_instances", params, on_success=self.count)
            return
        count = name_instances(chosen.samples, str(chosen.label_field), name, chosen.ids)
        self._named(ctx, f"{count:,} masks are named {name!r}")

    @told
    def show_nearest(self, ctx: Any) -> None:
        """Show the nearest masks without a name; nothing is named yet."""
        from promerge_fo.dataset.classes.names import nearest_unnamed, view_nearest

        name = (ctx.panel.get_state("name") or "").strip() or None
        found = nearest_unnamed(ctx.dataset, str(_field(ctx)), name, limit=NEAREST)
        if not len(found):
            raise ValueError(
                f"No mask without a name is within {found.max_distance:.2f} of a named one"
            )
        ctx.panel.set_state("found", asdict(found))
        ctx.ops.clear_selected_samples()
        ctx.ops.set_view(view_nearest(ctx.dataset, str(_field(ctx)), found))
        ctx.ops.open_panel("Samples")

    @told
    def propagate(self, ctx: Any) -> None:
        """Name the masks that are shown, but those that are selected."""
        from promerge_fo.dataset.classes.names import Nearest, propagate_names, view_nearest

        found = Nearest(**ctx.panel.get_state("found")).without(ctx.selected)
        count = propagate_names(ctx.dataset, str(_field(ctx)), found)
        ctx.panel.set_state("found", None)
        named = view_nearest(ctx.dataset, str(_field(ctx)), found) if len(found) else None
        self._named(ctx, f"{count:,} masks are named", named)

    def forget_nearest(self, ctx: Any) -> None:
        ctx.panel.set_state("found", None)

    @told
    def take_back(self, ctx: Any) -> None:
        from promerge_fo.dataset.classes.names import undo_names

        field = str(_field(ctx))
        count = undo_names(review.whole_of(ctx, field), field)
        if not count:
            raise ValueError("There is no name to take back")
        self._named(ctx, f"{count:,} masks have their former names")

    def _show(self, ctx: Any) -> None:
        """Show the masks of the group in the grid."""
        from promerge_fo.dataset.classes.groups import view_group

        group, first = ctx.panel.get_state("group"), ctx.panel.get_state("first")
        if group is not None:
            ctx.panel.set_state("found", None)
            ctx.ops.clear_selected_samples()
            ctx.ops.set_view(view_group(ctx.dataset, str(_field(ctx)), group, first))

    def _regrouped(self, ctx: Any, what: str) -> None:
        ctx.ops.notify(what, variant="success")
        self.count(ctx)
        self._show(ctx)

    def _named(self, ctx: Any, what: str, view: Any = None) -> None:
        review.show_named(ctx, what, view)
        self.count(ctx)

    def draw(self, ctx: Any, panel: types.Object) -> None:
        fields = detection_fields(ctx.dataset)
        if not fields:
            panel.md(review.NO_MASKS)
            return
        add_menu(panel, "label_field", fields, "Field", default=_field(ctx),
                 on_change=self.change_field)  # fmt: skip
        row = panel.h_stack("buttons_0", gap=1)
        add_button(row, "embed", "Embed", "scatter_plot", self.embed)
        add_button(row, "find_groups", "Group", "bubble_chart", self.find_groups)
        add_button(row, "count", "Look again", "refresh", self.count)
        groups = ctx.panel.get_state("groups") or []
        self._add_naming(ctx, panel, bool(groups))
        if not groups:
            panel.md(EMPTY, name="empty")
            return
        self._add_changes(ctx, panel, [each["name"] for each in groups])
        for each in groups[: ctx.panel.get_state("shown")]:
            self._add_group(panel, each)
        left = len(groups) - ctx.panel.get_state("shown")
        if left > 0:
            add_button(panel, "show_more", f"{left} more groups", "expand_more", self.show_more)

    def _add_naming(self, ctx: Any, panel: types.Object, has_groups: bool) -> None:
        group, found = ctx.panel.get_state("group"), ctx.panel.get_state("found")
        panel.str("name", label="Name")
        row = panel.h_stack("buttons_1", gap=1)
        if has_groups:
            add_button(row, "name_group", f"Name group {group}", "label", self.name_group)
        add_button(row, "name_selected", "Name selected", "highlight_alt", self.name_selected)
        add_button(row, "show_nearest", f"{NEAREST} nearest unnamed", "radar", self.show_nearest)
        if found is not None:
            count = len(found["ids"])
            panel.md(
                f"**{count} masks without a name are shown, the nearest first.** Select those that "
                "are wrong.",
                name="nearest_text",
            )
            row = panel.h_stack("buttons_2", gap=1)
            label = f"Name these {count}, but what is selected"
            add_button(row, "propagate", label, "done_all", self.propagate)
            add_button(row, "forget", "Name none", "close", self.forget_nearest)
        row = panel.h_stack("buttons_4", gap=1)
        add_button(row, "take_back", "Undo naming", "undo", self.take_back)

    def _add_changes(self, ctx: Any, panel: types.Object, names: list[str]) -> None:
        group = ctx.panel.get_state("group")
        add_menu(panel, "first", ORDERS, "First", default=ctx.panel.get_state("first"),
                 on_change=self.reopen)  # fmt: skip
        others = [name for name in names if name != group]
        row = panel.h_stack("buttons_3", gap=1)
        add_button(row, "split", f"Split group {group}", "call_split", self.split)
        if others:
            add_menu(row, "other", others, f"Merge group {group} with")
            add_button(row, "merge", "Merge", "call_merge", self.merge)

    def _add_group(self, panel: types.Object, group: dict[str, Any]) -> None:
        name = group["name"]
        panel.md(f"**{group['text'].capitalize()}**", name=f"text_{name}")
        picture = types.ImageView(width="100%")
        panel.str(f"picture_{name}", view=picture)
        row = panel.h_stack(f"buttons_of_{name}", gap=1)
        label = f"Open group {name}"
        add_button(row, f"open_{name}", label, "grid_view", self.open_group, {"group": name})


def _field(ctx: Any) -> Any:
    field = ctx.panel.get_state("label_field")
    return field if field in detection_fields(ctx.dataset) else None


def _name(ctx: Any) -> str:
    return str(ctx.panel.get_state("name") or "").strip()


def _has_picture(ctx: Any, group: str) -> bool:
    return bool(ctx.panel.get_state(f"picture_{group}"))


def _picture(ctx: Any, label_field: str, group: Any) -> str:
    """Typical masks of a group, for an image in a page."""
    from PIL import Image

    from promerge_fo.dataset.classes.pictures import picture_of

    pixels = picture_of(ctx.dataset, label_field, group.typical, group.sample_ids)
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, "jpeg", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(made.getvalue()).decode()}"
