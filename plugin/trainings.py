"""The folders of trainings, as a dataset remembers them."""

from __future__ import annotations

from typing import Any

from .forms import STORE

KEPT = 20


def keep_training(ctx: Any, folder: str) -> None:
    """Remember a training's folder, as the newest."""
    others = [path for path in trainings(ctx) if path != folder]
    ctx.store(STORE).set("trainings", [folder, *others][:KEPT])


def trainings(ctx: Any) -> list[str]:
    """The folders of the trainings that were started or looked at, the newest first."""
    if ctx.dataset is None:
        return []
    return list(ctx.store(STORE).get("trainings") or [])
