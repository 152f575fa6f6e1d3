"""Time of segmentation, and of segmentation with refinement, against the number of prompts.

The paper's Fig. 5 has this axis (K). On a CPU, all runs on one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.pipeline.crf import refine
from benchmarks.settings import Settings
from benchmarks.subjects import golden_features, photographs
from benchmarks.timing import one_thread, summarise, take_turns
from promerge_fo.config import ProMergeConfig
from promerge_fo.instances import Refined
from promerge_fo.segment import segment_features

STRIDES = (2, 4, 6, 8, 10, 15, 30)


def run(settings: Settings) -> dict[str, Any]:
    features = [stored.to(settings.device) for stored in golden_features().values()]
    images = list(photographs((480, 480)).values())
    pairs = list(zip(features, images, strict=True))[: settings.pick(None, 1)]
    with one_thread():
        return {"strides": [_at(stride, pairs, settings) for stride in STRIDES]}


def _at(
    stride: int, pairs: list[tuple[torch.Tensor, NDArray[np.uint8]]], settings: Settings
) -> dict[str, Any]:
    config = ProMergeConfig(stride=stride)
    segment = partial(segment_features, config=config)

    def segment_and_refine(features: torch.Tensor, image: NDArray[np.uint8]) -> Refined:
        size = (image.shape[0], image.shape[1])
        return refine(image, segment(features).masks, size, config, settings.device)

    def take(features: torch.Tensor, image: NDArray[np.uint8]) -> dict[str, list[float]]:
        functions: dict[str, Callable[[], object]] = {
            "segment": partial(segment, features),
            "segment_and_refine": partial(segment_and_refine, features, image),
        }
        return take_turns(functions, settings.pick(7, 1), settings.device)

    return {
        "stride": stride,
        "prompts": len(range(0, pairs[0][0].shape[1], stride)) ** 2,
        "masks": [len(segment(features)) for features, _ in pairs],
        **summarise(*(take(*pair) for pair in pairs)),
    }
