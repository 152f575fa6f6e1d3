"""Seconds an image, one image after the other: the protocol of the paper's Table 2.

There, 200 images, the first 100 of which warm up, on an RTX 3080 with a Core i7-12700K. Here it is
from a JPEG file to refined masks, with the presets' encoders and stored features; see
benchmarks/subjects.py. On a CPU the default preset takes 20 images, unless it is a full run. With
weights and the images of the paper, ``promerge reproduce table2`` measures the same.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.settings import Settings
from benchmarks.subjects import ENCODERS, STAND_IN_NOTE, encoder_of, photograph_files, stand_in
from benchmarks.timing import quartiles, synchronise, timed
from promerge_fo.config import ProMergeConfig
from promerge_fo.instances import Instances
from promerge_fo.pipeline import Pipeline

#: Table 2 of the paper, images a second, on its hardware.
PAPER = {
    "hardware": "RTX 3080, Core i7-12700K",
    "images_per_s": {"TokenCut": 0.34, "MaskCut": 0.15, "ProMerge": 0.54},
}


def run(settings: Settings) -> dict[str, Any]:
    presets = settings.pick(tuple(ENCODERS), ("fast",))
    return {
        "paper": PAPER,
        "note": STAND_IN_NOTE,
        "presets": [of_preset(preset, settings) for preset in presets],
    }


def of_preset(preset: str, settings: Settings) -> dict[str, Any]:
    short = preset == "default" and not settings.on_gpu and not settings.full
    count = settings.pick(20 if short else 200, 4)
    encoder = stand_in(encoder_of(preset, settings), settings)
    pipeline = Pipeline(encoder, ProMergeConfig.preset(preset))

    def segment(path: str) -> Instances:
        result = pipeline([path])[0]
        synchronise(settings.device)
        if result.status == "failed":
            raise RuntimeError(result.error)
        return result

    with tempfile.TemporaryDirectory() as folder:
        paths = photograph_files(Path(folder), count)
        results, seconds = zip(*(timed(partial(segment, path)) for path in paths), strict=True)
    counted = seconds[count // 2 :]
    mean = float(np.mean(counted))
    return {
        "preset": preset,
        "encoder": encoder_of(preset, settings),
        "precision": "fp32",
        "images": count,
        "warm_up": count // 2,
        "masks_per_image": round(float(np.mean([len(result) for result in results])), 2),
        "mean_s": round(mean, 5),
        **quartiles(counted),
        "images_per_s": round(1 / mean, 3),
    }
