"""Calibrate a model on the images of a dataset, once for each encoder."""

from __future__ import annotations

import logging
from typing import Any

import fiftyone.core.media as fom

from promerge_fo.calibration import IMAGES, Calibration
from promerge_fo.config import run_hash
from promerge_fo.dataset.database import root_dataset, store
from promerge_fo.dataset.runs.frames import evenly_spaced_frames
from promerge_fo.dataset.runs.model import ProMergeModel
from promerge_fo.progress import ShowProgress

__all__ = ["calibrate_once"]

logger = logging.getLogger("fiftyone.promerge")


def calibrate_once(
    samples: Any, model: ProMergeModel, *, progress: ShowProgress = None
) -> Calibration | None:
    """Calibrate a model, if its encoder wants it, and remember the calibration on the dataset.

    A later run with the same encoder takes the same calibration, also if the dataset has grown or
    the first run was stopped: otherwise it would have another run hash, and start anew.

    Args:
        samples: a dataset or a view of images, or of videos, whose frames they are then; 32 of
            them are measured.
        model: is changed, unless its encoder or configuration takes no calibration, or it has one.
        progress: see :data:`promerge_fo.progress.ShowProgress`.

    Returns:
        The calibration that the model has now; None if it has none.
    """
    pipeline = model.pipeline
    if not pipeline.wants_calibration:
        return pipeline.calibration
    encoder = pipeline.encoder
    known = store(root_dataset(samples))
    measured = {"encoder": encoder.identity(), "facets": list(encoder.facets)}
    key = f"calibration {run_hash(measured)}"
    stored = known.get(key)
    if stored is not None:
        calibration = model.calibrate(Calibration.from_dict(stored))
        logger.info("promerge: calibrated as before (%s)", calibration)
        return calibration
    try:
        if samples.media_type == fom.VIDEO:
            images: Any = evenly_spaced_frames(samples, IMAGES)
        else:
            images = samples.values("filepath")
        calibration = model.calibrate(images, progress=progress)
    except ValueError as error:
        logger.warning("promerge: not calibrated for %s: %s", encoder.name, error)
        model.is_left_uncalibrated = True
        return None
    known.set(key, calibration.to_dict())
    logger.info("promerge: calibrated (%s)", calibration)
    return calibration
