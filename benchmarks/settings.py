"""What all benchmarks are told."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        device: "cpu" or "cuda".
        quick: a few repetitions of small cases, to see that it runs: the figures mean nothing.
        full: also what takes long.
        images: a folder of images to measure on besides the photographs, where that makes sense.
        deadline: of ``time.monotonic()``; what may be left out is, if it would end after that.
    """

    device: str = "cpu"
    quick: bool = False
    full: bool = False
    images: Path | None = None
    deadline: float = math.inf

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    def pick(self, usual: T, quick: T) -> T:
        return quick if self.quick else usual

    def has(self, seconds: float) -> bool:
        """Whether there are so many seconds left."""
        return time.monotonic() + seconds < self.deadline
