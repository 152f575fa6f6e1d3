"""What each process of a training needs to know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promerge_fo.detector.config import DetectorConfig
from promerge_fo.progress import ShowProgress

__all__ = ["FINAL", "RECORD", "Job"]

FINAL = "model_final.pth"
"""The trained detector, in the folder of its round."""

RECORD = "training.json"
"""Settings, and what was trained on, in the folder of a training."""


@dataclass(frozen=True)
class Job:
    """One round.

    Attributes:
        labels: the annotation file.
        root: the folder that its names are relative to.
        place: the folder of the round, which exists.
        config: the settings.
        start: weights to start from; None for random ones.
        whole: whether ``start`` holds a detector, not a backbone alone.
        device: "cuda" or "cpu".
        workers: processes that make batches.
        checkpoint_every: iterations between two checkpoints.
        pictures_every: iterations between two looks at sample predictions.
        say: takes lines of progress.
        progress: how to show a bar of the iterations; with one process only.
        classes: whether the labels' categories are learned apart.
    """

    labels: Path
    root: Path
    place: Path
    config: DetectorConfig
    start: Path | None
    whole: bool
    device: str
    workers: int
    checkpoint_every: int
    pictures_every: int
    say: Callable[[str], Any]
    progress: ShowProgress = False
    classes: bool = False
