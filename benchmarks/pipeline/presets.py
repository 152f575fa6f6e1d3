"""What the preset "fast" saves: its encoder and grid against the default's, side by side.

Time does not depend on the weights, so seeded random ones stand in: nothing is downloaded, and
nothing is said about masks. Medians and interquartile ranges; the two take turns.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import timm
import torch

from benchmarks.settings import Settings
from benchmarks.subjects import encoder_of, photographs, random_vit
from benchmarks.timing import summarise, take_turns
from promerge_fo.config import ProMergeConfig
from promerge_fo.segment import segment_features


def run(settings: Settings) -> dict[str, Any]:
    results: dict[str, Any] = {}
    encode, segment = {}, {}
    for preset in ("default", "fast"):
        name = encoder_of(preset, settings)
        encoder = random_vit(name, device=settings.device)
        pixels = encoder.transform(photographs()["coffee"])
        features = encoder.encode([pixels])[0]
        encode[preset] = partial(encoder.encode, [pixels])
        segment[preset] = partial(segment_features, features, ProMergeConfig.preset(preset))
        with torch.device("meta"):  # its size, without its memory
            model = timm.create_model(name, num_classes=0)
        parameters = sum(part.numel() for part in model.parameters())
        results[preset] = {
            "encoder": name,
            "parameters_millions": round(parameters / 1e6, 1),
            "grid": list(features.shape),
        }
    for stage, functions in (("encode", encode), ("segment", segment)):
        taken = take_turns(functions, settings.pick(settings.repetitions, 1), settings.device)
        for preset, seconds in summarise(taken).items():
            results[preset][stage] = seconds
    default, fast = (results[preset]["encode"]["median_s"] for preset in ("default", "fast"))
    return {**results, "encode_default_over_fast": round(default / fast, 1)}
