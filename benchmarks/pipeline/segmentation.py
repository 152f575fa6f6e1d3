"""Features to merged masks, against the one product that the method cannot do without.

That is prompts x channels x patches, in float32. On a CPU, both run on one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.settings import Settings
from benchmarks.subjects import golden_features
from benchmarks.timing import one_thread, summarise, synchronise, take_turns, take_turns_by
from promerge_fo.config import ProMergeConfig
from promerge_fo.segment import promerge, segment_features

STRIDES = (4, 2)
REPETITIONS = 15
PRESETS = ("official", "default")
#: What each step calls, by the names in promerge_fo.segment.promerge.
STEPS = {
    "prompts": ("UnitFeatures", "prompt_masks"),
    "background": ("is_background", "vote"),
    "split": ("split",),
    "filter": ("background_similarity", "filter_masks"),
    "merge": ("merge",),
    "score": ("patch_objectness",),
}


def run(settings: Settings) -> dict[str, Any]:
    features = {
        name: stored.to(settings.device)
        for name, stored in list(golden_features().items())[: settings.pick(None, 1)]
    }
    with one_thread():
        return {
            "against_product": [
                against_product(name, stored, preset, stride, settings)
                for preset in PRESETS
                for stride in STRIDES
                for name, stored in features.items()
            ],
            "steps": [
                {"stride": stride, "ms": steps(list(features.values()), stride, settings)}
                for stride in STRIDES
            ],
        }


def against_product(
    name: str, features: torch.Tensor, preset: str, stride: int, settings: Settings
) -> dict[str, Any]:
    config = ProMergeConfig.preset(preset).replace(stride=stride)
    flat = features.flatten(1)
    prompts = features[:, ::stride, ::stride].flatten(1).T.contiguous()
    out = torch.empty(len(prompts), flat.shape[1], device=settings.device)
    functions: dict[str, Callable[[], object]] = {
        "product": partial(torch.mm, prompts, flat, out=out),
        "segment": partial(segment_features, features, config),
    }
    seconds = summarise(take_turns(functions, settings.pick(REPETITIONS, 1), settings.device))
    return {
        "image": name,
        "preset": preset,
        "stride": stride,
        "prompts": len(prompts),
        "masks": len(segment_features(features, config)),
        **seconds,
        "segment_over_product": round(
            seconds["segment"]["median_s"] / seconds["product"]["median_s"], 2
        ),
    }


def steps(features: list[torch.Tensor], stride: int, settings: Settings) -> dict[str, float]:
    """Median milliseconds of each step of the default preset, over all images."""
    config = ProMergeConfig(stride=stride)
    functions = {str(i): partial(segment_features, f, config) for i, f in enumerate(features)}
    for function in functions.values():
        function()  # warms up
    seconds = dict.fromkeys(STEPS, 0.0)
    clocks = {step: partial(seconds.__getitem__, step) for step in STEPS}
    with _watched(seconds, settings.device):
        taken = take_turns_by(
            {**clocks, "whole": time.perf_counter},
            functions,
            settings.pick(REPETITIONS, 1),
            settings.device,
        )
    found = {step: each["median_s"] for step, each in summarise(*taken.values()).items()}
    whole = found.pop("whole")
    found["other"] = whole - sum(found.values())
    return {step: round(1000 * value, 3) for step, value in found.items()}


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
