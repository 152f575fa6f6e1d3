"""What all benchmarks are told."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class UsageError(Exception):
    """What was asked for cannot be done like this, or on this machine."""


@dataclass(frozen=True)
class Settings:
    """How to measure, and on what. Fields are also options of ``python -m benchmarks``.

    Attributes:
        device: "cpu" or "cuda".
        quick: a few repetitions of small cases, to see that it runs: the figures mean nothing.
        full: also what takes long.
        images: a folder of images to measure on besides the photographs, where that makes sense.
        annotations: a file in COCO's format for these images.
        encoder: its name, where masks are evaluated.
        presets: of ProMerge, where masks are evaluated.
        models: names of vision transformers.
        checkpoint: a file with the weights of the only model or encoder.
        samples: numbers of samples, one size after the other; none takes the benchmark's own.
        photographs: how many, up to 4.
        seeds: draws of noise for each image.
        repetitions: that count.
        save: writes the results so far, of a benchmark that takes long.
        earlier: the results that were there before, of which such a benchmark keeps some.
        deadline: of ``time.monotonic()``; what may be left out is, if it would end after that.
    """

    device: str = "cpu"
    quick: bool = False
    full: bool = False
    images: Path | None = None
    annotations: Path | None = None
    encoder: str = "texture"
    presets: Sequence[str] = ("default", "official", "paper")
    models: Sequence[str] = ("vit_small_patch8_224.dino", "vit_base_patch8_224.dino")
    checkpoint: Path | None = None
    samples: Sequence[int] = ()
    photographs: int = 2
    seeds: int = 10
    repetitions: int = 5
    save: Callable[[dict[str, Any]], object] = lambda results: None
    earlier: Mapping[str, Any] = field(default_factory=dict)
    deadline: float = math.inf

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    def pick(self, usual: T, quick: T) -> T:
        return quick if self.quick else usual

    def has(self, seconds: float) -> bool:
        """Whether there are so many seconds left."""
        return time.monotonic() + seconds < self.deadline
