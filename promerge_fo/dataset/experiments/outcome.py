"""The measurements of one setting on images with ground truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from promerge_fo.config import Config
from promerge_fo.dataset.evaluation.coco_metrics import Scores
from promerge_fo.dataset.evaluation.intervals import percentile_interval
from promerge_fo.dataset.evaluation.matching import IouType
from promerge_fo.pipeline import Pipeline

__all__ = ["Outcome"]


@dataclass(frozen=True)
class Outcome:
    """The measurements of one setting.

    Attributes:
        pipeline: the setting.
        run: the hash that names its results, of the setting, the encoder and this package's
            version.
        scores: the scores of masks, if the ground truth has masks, and of boxes.
        drawn: the values of each metric (of masks, else of boxes) on the bootstrap's samples,
            (resamples,).
        statuses: the number of images by status.
        masks: the mean number of masks in an image.
        seconds: the median time to segment and refine an image.
        encoding_seconds: the median time to encode an image.
    """

    pipeline: Pipeline
    run: str
    scores: dict[IouType, Scores]
    drawn: dict[str, NDArray[np.float64]]
    statuses: dict[str, int]
    masks: float
    seconds: float
    encoding_seconds: float

    @property
    def config(self) -> Config:
        """The parameters of the setting, with the calibration's."""
        return self.pipeline.config

    @property
    def image_seconds(self) -> float:
        """The median time for an image from pixels to refined masks, in seconds."""
        return self.seconds + self.encoding_seconds

    def interval(self, metric: str, confidence: float) -> tuple[float, float]:
        """The bootstrap interval of a metric."""
        return percentile_interval(self.drawn[metric], confidence)
