"""What the preset "fast" saves: its encoder and grid against the default's, side by side.

    python -m benchmarks.presets --output benchmarks/results/presets.json

Time does not depend on the weights, so seeded random ones stand in: nothing is downloaded, and
nothing is said about masks. Medians and interquartile ranges; the two take turns.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import timm
import torch
from skimage import data

from benchmarks.record import write
from benchmarks.subjects import ENCODERS, random_vit
from benchmarks.timing import quartiles, synchronise
from promerge_fo.config import ProMergeConfig
from promerge_fo.pipeline import Pipeline
from promerge_fo.segment import segment_features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--device")
    parser.add_argument("--output")
    arguments = parser.parse_args()

    stages: dict[str, dict[str, list[float]]] = {}
    pipelines, sizes = {}, {}
    for preset in ("default", "fast"):
        encoder = random_vit(ENCODERS[preset], device=arguments.device)
        with torch.device("meta"):  # its size, without its memory
            model = timm.create_model(ENCODERS[preset], num_classes=0)
        pipelines[preset] = Pipeline(encoder, ProMergeConfig.preset(preset))
        sizes[preset] = sum(p.numel() for p in model.parameters()) / 1e6
        stages[preset] = {"encode": [], "segment": []}
    image = data.coffee()
    for repetition in range(arguments.repetitions + 1):
        for preset, pipeline in pipelines.items():
            pixels = pipeline.prepare(image).pixels
            started = time.perf_counter()
            features = pipeline.encoder.encode([pixels])[0]
            synchronise(features.device.type)
            encoded = time.perf_counter()
            segment_features(features, pipeline.config)
            if repetition:  # the first warms up
                stages[preset]["encode"].append(encoded - started)
                stages[preset]["segment"].append(time.perf_counter() - encoded)
    results = {
        preset: {
            "encoder": pipelines[preset].encoder.name,
            "parameters_millions": round(sizes[preset], 1),
            "grid": list(pipelines[preset].encoder.encode([pixels_of(pipelines[preset])])[0].shape),
            **{stage: quartiles(seconds) for stage, seconds in stages[preset].items()},
        }
        for preset in pipelines
    }
    ratio = results["default"]["encode"]["median_s"] / results["fast"]["encode"]["median_s"]
    results["encode_default_over_fast"] = round(ratio, 1)
    print(json.dumps(results, indent=2))
    if arguments.output:
        write(arguments.output, {"results": results})


def pixels_of(pipeline: Pipeline) -> np.ndarray:
    return pipeline.prepare(data.coffee()).pixels


if __name__ == "__main__":
    main()
