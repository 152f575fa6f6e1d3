"""Features to merged masks, against the one product that the method cannot do without.

That is prompts x channels x patches, in float32. On a CPU, both run on one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.settings import Settings
from benchmarks.subjects import golden_features
from benchmarks.timing import one_thread, quartiles, synchronise, take_turns
from promerge_fo.config import ProMergeConfig
from promerge_fo.segment import promerge, segment_features

STRIDES = (4, 2)
PRESETS = ("official", "default")
#: What each step calls, by the names in promerge_fo.segment.promerge.
STEPS = {
    "prompts": ("UnitFeatures", "prompt_masks"),
    "background": ("is_background", "vote"),
    "split": ("split",),
    "filter": ("background_similarity", "filter_masks"),
    "merge": ("merge",),
    "score": ("patch_quality",),
}


def run(settings: Settings) -> dict[str, Any]:
    repetitions = settings.pick(15, 1)
    features = {
        name: stored.to(settings.device)
        for name, stored in list(golden_features().items())[: settings.pick(None, 1)]
    }
    with one_thread():
        return {
            "against_product": [
                against_product(name, stored, preset, stride, repetitions, settings.device)
                for preset in PRESETS
                for stride in STRIDES
                for name, stored in features.items()
            ],
            "steps": [
                {
                    "stride": stride,
                    "ms": steps(list(features.values()), stride, repetitions, settings.device),
                }
                for stride in STRIDES
            ],
        }


def against_product(
    name: str, features: torch.Tensor, preset: str, stride: int, repetitions: int, device: str
) -> dict[str, Any]:
    config = ProMergeConfig.preset(preset).replace(stride=stride)
    flat = features.flatten(1)
    prompts = features[:, ::stride, ::stride].flatten(1).T.contiguous()
    out = torch.empty(len(prompts), flat.shape[1], device=device)
    seconds = take_turns(
        {
            "product": lambda: torch.mm(prompts, flat, out=out),
            "segment": lambda: segment_features(features, config),
        },
        repetitions,
        device,
    )
    ratio = np.median(seconds["segment"]) / np.median(seconds["product"])
    return {
        "image": name,
        "preset": preset,
        "stride": stride,
        "prompts": len(prompts),
        "masks": len(segment_features(features, config)),
        **{part: quartiles(values) for part, values in seconds.items()},
        "segment_over_product": round(float(ratio), 2),
    }


def steps(
    features: list[torch.Tensor], stride: int, repetitions: int, device: str
) -> dict[str, float]:
    """Median milliseconds of each step of the default preset, over all images."""
    config = ProMergeConfig(stride=stride)
    taken: dict[str, list[float]] = {name: [] for name in (*STEPS, "other")}
    for repetition in range(repetitions + 1):
        for stored in features:
            seconds = dict.fromkeys(STEPS, 0.0)
            with _watched(seconds, device):
                started = time.perf_counter()
                segment_features(stored, config)
                whole = time.perf_counter() - started
            if repetition:
                for name, value in seconds.items():
                    taken[name].append(value)
                taken["other"].append(whole - sum(seconds.values()))
    return {name: round(1000 * float(np.median(values)), 3) for name, values in taken.items()}


@contextmanager
def _watched(seconds: dict[str, float], device: str) -> Iterator[None]:
    """Add up the seconds of each step meanwhile: of the real thing, not of a copy of it."""

    def timed(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            started = time.perf_counter()
            result = function(*arguments)
            synchronise(device)
            seconds[step] += time.perf_counter() - started
            return result

        return call

    with ExitStack() as stack:
        for step, names in STEPS.items():
            for name in names:
                watched = timed(step, getattr(promerge, name))
                stack.enter_context(patch.object(promerge, name, watched))
        yield
