"""Where panels open: in one column beside the grid, the runs below the others.

FiftyOne would halve the window for each panel. Panels that are open stay where their user put them.
FiftyOne's own, such as the map of embeddings, stand above the others: it forgets a lasso on a map
that is hidden.
"""

from __future__ import annotations

from typing import Any

import fiftyone as fo

RUNS_PANEL = "promerge_runs"  #: the panel that shows jobs


def open_panel(ctx: Any, name: str) -> None:
    """Open a panel of the grid, or bring it to the front where it is open."""
    spaces = ctx.spaces or fo.Space()
    if name in {panel.type for space in _tabs(spaces) for panel in space.children}:
        ctx.ops.open_panel(name)
    elif place_panel(spaces, name):
        ctx.ops.set_spaces(spaces)
    else:
        ctx.ops.open_panel(name, layout="horizontal", force=True)


def place_panel(spaces: fo.Space, name: str) -> bool:
    """Put one more panel where this plugin's are: beside the others, or above or below the runs.

    Args:
        spaces: the App's spaces, which are changed.
        name: of a panel that is not open.

    Returns:
        Whether there was a place: none is there for the first panel.
    """
    ours = [space for space in _tabs(spaces) if any(map(_is_ours, space.children))]
    if not ours:
        return False
    panel = fo.Panel(type=name)
    others = [s for s in ours if any(_is_ours(p) and p.type != RUNS_PANEL for p in s.children)]
    if others and name != RUNS_PANEL and _is_ours(panel):
        others[0].children = [*others[0].children, panel]
        others[0].active_child = panel.component_id
        return True
    place = others[0] if others and name != RUNS_PANEL else ours[-1]
    new = fo.Space(children=[panel], active_child=panel.component_id)
    old = fo.Space(children=list(place.children), active_child=place.active_child)
    place.children = [old, new] if name == RUNS_PANEL else [new, old]
    place.active_child, place.orientation, place.sizes = None, "vertical", [0.65, 0.35]
    return True


def _tabs(space: fo.Space) -> list[fo.Space]:
    """The spaces whose children are panels."""
    inner = [child for child in space.children if isinstance(child, fo.Space)]
    return [found for child in inner for found in _tabs(child)] if inner else [space]


def _is_ours(panel: Any) -> bool:
    return str(panel.type).startswith("promerge_")
