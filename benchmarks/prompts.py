"""Time of segmentation, and of segmentation with refinement, against the number of prompts.

The paper's Fig. 5 has this axis (K). On a CPU, all runs on one thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.settings import Settings
from benchmarks.subjects import golden_features, photographs
from benchmarks.timing import one_thread, quartiles, take_turns
from promerge_fo.config import ProMergeConfig
from promerge_fo.refine import refine_batch, refine_masks
from promerge_fo.segment import segment_features

STRIDES = (2, 4, 6, 8, 10, 15, 30)


def run(settings: Settings) -> dict[str, Any]:
    count = settings.pick(4, 1)
    features = [stored.to(settings.device) for stored in golden_features().values()][:count]
    images = list(photographs((480, 480)).values())[:count]
    with one_thread():
        return {"strides": [_at(stride, features, images, settings) for stride in STRIDES]}


def _at(
    stride: int, features: list[torch.Tensor], images: list[NDArray[np.uint8]], settings: Settings
) -> dict[str, Any]:
    config = ProMergeConfig(stride=stride)
    masks = [len(segment_features(stored, config)) for stored in features]
    seconds: dict[str, list[float]] = {"segment": [], "segment_and_refine": []}

    def both(stored: torch.Tensor, image: NDArray[np.uint8]) -> None:
        found = segment_features(stored, config).masks
        if settings.on_gpu:
            refine_batch([image], [found], [image.shape[:2]], config, settings.device)
        else:
            refine_masks(image, found, config)

    for stored, image in zip(features, images, strict=True):
        taken = take_turns(
            {
                "segment": lambda s=stored: segment_features(s, config),
                "segment_and_refine": lambda s=stored, i=image: both(s, i),
            },
            settings.pick(7, 1),
            settings.device,
        )
        for name, values in taken.items():
            seconds[name] += values
    prompts = len(range(0, features[0].shape[1], stride)) ** 2
    return {
        "stride": stride,
        "prompts": prompts,
        "masks": masks,
        **{name: quartiles(values) for name, values in seconds.items()},
    }
