"""What the plugin remembers of a dataset, in the store that FiftyOne has for it."""

from __future__ import annotations

from typing import Any

from promerge_fo.dataset.database import store

TRAININGS_KEPT = 20


def recall(ctx: Any, name: str) -> Any:
    """What was kept under a name; None if nothing was, or if no dataset is open."""
    return None if ctx.dataset is None else store(ctx.dataset).get(name)


def remember(ctx: Any, name: str, value: Any) -> None:
    """Keep something that JSON can hold, in place of what was kept under the name."""
    store(ctx.dataset).set(name, value)


def last_settings(ctx: Any, operator_uri: str) -> dict[str, Any]:
    """What an operator was given the last time on this dataset; nothing for calls from Python."""
    if getattr(ctx, "from_python", False):
        return {}
    return dict(recall(ctx, f"settings {operator_uri}") or {})


def keep_settings(ctx: Any) -> None:
    """Keep what the operator is given now, for the next time."""
    remember(ctx, f"settings {ctx.operator_uri}", dict(ctx.params))


def trainings(ctx: Any) -> list[str]:
    """The folders of the trainings that were started or looked at, the newest first."""
    return list(recall(ctx, "trainings") or [])


def keep_training(ctx: Any, folder: str) -> None:
    """Keep a training's folder as the newest."""
    others = [path for path in trainings(ctx) if path != folder]
    remember(ctx, "trainings", [folder, *others][:TRAININGS_KEPT])
