"""What one setting is worth on images with ground truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from promerge_fo.config import Config
from promerge_fo.dataset.evaluation.coco_metrics import IouType, Scores
from promerge_fo.dataset.evaluation.intervals import interval

__all__ = ["Outcome"]


@dataclass(frozen=True)
class Outcome:
    """What one setting is worth.

    Attributes:
        config: the setting.
        run: what names its results: a hash of the setting, the encoder and this package's version.
        scores: of masks, where the ground truth has them, and of boxes.
        drawn: the figures (of masks, else of boxes) on the bootstrap's samples, by metric.
        statuses: images by status.
        masks: the mean number of an image.
        seconds: median time of an image for segmenting and refining.
        encoding_seconds: median time of an image in the encoder.
    """

    config: Config
    run: str
    scores: dict[IouType, Scores]
    drawn: dict[str, NDArray[np.float64]]
    statuses: dict[str, int]
    masks: float
    seconds: float
    encoding_seconds: float

    @property
    def image_seconds(self) -> float:
        """Median time of an image from pixels to refined masks."""
        return self.seconds + self.encoding_seconds

    def interval(self, metric: str, confidence: float) -> tuple[float, float]:
        """The bootstrap's interval of a figure."""
        return interval(self.drawn[metric], confidence)
