"""Pipeline.run over photographs in JPEG files: what the stages cost alone, and what together.

- Overlap: an encoder that sleeps for as long as all other stages take. If they went on at the same
  time perfectly, all would take as long as the slower side; one after the other, twice as long.
- Throughput: the presets' encoders, with the features of others; see benchmarks/subjects.py.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.memory import gpu_peak_mb, now_mb, peak_mb, reset_gpu_peak, reset_peak
from benchmarks.pipeline.crf import refine
from benchmarks.settings import Settings
from benchmarks.subjects import (
    ENCODERS,
    STAND_IN_NOTE,
    encoder_of,
    instant,
    photograph_files,
    stand_in,
)
from benchmarks.timing import measure, one_thread, rates, summarise, take_turns, timed
from promerge_fo.config import ProMergeConfig
from promerge_fo.instances import Instances
from promerge_fo.pipeline import Pipeline
from promerge_fo.segment import segment_features

BATCHES = (8, 16, 32)
#: Images of a run on a CPU; on a GPU, a few of the largest batches.
IMAGES_ON_CPU = {"default": 4, "fast": 24}
IMAGES_ON_GPU = 320


def run(settings: Settings) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return {
            "overlap": overlap(Path(folder), settings),
            "note": STAND_IN_NOTE,
            "throughput": [
                part
                for preset in settings.pick(tuple(ENCODERS), ("fast",))
                for precision in (("bf16", "fp32") if settings.on_gpu else ("fp32",))
                for part in throughput(Path(folder), preset, precision, settings)
            ],
        }


def overlap(folder: Path, settings: Settings) -> dict[str, Any]:
    """Seconds of a run whose encoder sleeps, over those of the slower of its two sides."""
    paths = photograph_files(folder, settings.pick(32, 2))
    others = Pipeline(instant(settings))
    _run(others, paths, 8)
    each = measure(lambda: _run(others, paths, 8), settings.pick(2, 1))["median_s"] / len(paths)
    sleeper = Pipeline(instant(settings, each))
    functions: dict[str, Any] = {
        "others_alone": lambda: _run(others, paths, 8),
        "encoder_alone": lambda: time.sleep(each * len(paths)),
        "together": lambda: _run(sleeper, paths, 8),
    }
    if not settings.on_gpu:  # where the CRF of a run is the CPU's, too
        functions["one_thread"] = lambda: _one_by_one(others, paths)
    seconds = summarise(take_turns(functions, settings.pick(5, 1), settings.device))
    middle = {name: found["median_s"] for name, found in seconds.items()}
    slower = max(middle["others_alone"], middle["encoder_alone"])
    return {
        "images": len(paths),
        "threads": others.threads,
        **seconds,
        # 1: as many times faster than on one thread as there are threads
        "share_of_threads": (
            None
            if settings.on_gpu
            else round(middle["one_thread"] / others.threads / middle["others_alone"], 3)
        ),
        "together_over_slower": round(middle["together"] / slower, 3),
    }


def _one_by_one(pipeline: Pipeline, paths: list[str]) -> None:
    """What a run does, image after image on one thread."""
    with one_thread():
        for path in paths:
            pipeline.explain(path)


def throughput(
    folder: Path, preset: str, precision: str, settings: Settings
) -> list[dict[str, Any]]:
    """Images a second by batch size."""
    encoder = stand_in(encoder_of(preset, settings), settings, precision)
    config = ProMergeConfig.preset(preset)
    few = photograph_files(folder, settings.pick(4, 1))
    alone = stages(Pipeline(encoder, config), few, settings)
    # On a CPU, images are encoded one by one. On a GPU, the CRF's other place is tried once.
    cases = [(1, "cpu")]
    if settings.on_gpu:
        cases = [*((batch, settings.device) for batch in BATCHES), (BATCHES[-1], "cpu")]
    count = IMAGES_ON_GPU if settings.on_gpu else settings.pick(IMAGES_ON_CPU[preset], 2)
    paths = photograph_files(folder, count)
    results = []
    for batch, crf_device in cases:
        pipeline = Pipeline(encoder, config, crf_device=crf_device)
        pixels = [pipeline.prepare(path).pixels for path in paths[:batch]]
        encode = {"encode": partial(encoder.encode, pixels)}
        repetitions = settings.pick(3 if settings.on_gpu else 1, 1)
        alone_before = take_turns(encode, repetitions, settings.device)
        _run(pipeline, paths[:batch], batch)  # warms up
        before = now_mb()
        reset_peak()
        reset_gpu_peak(settings.device)
        masks, seconds = timed(partial(_run, pipeline, paths, batch))
        peaks = {"peak_memory_mb": peak_mb(), "peak_gpu_memory_mb": gpu_peak_mb(settings.device)}
        # before and after: what else the machine does falls on both
        alone_after = take_turns(encode, repetitions, settings.device)
        encoder_rate = batch / summarise(alone_before, alone_after)["encode"]["median_s"]
        results.append(
            {
                "preset": preset,
                "encoder": encoder_of(preset, settings),
                "precision": precision,
                "batch": batch,
                "crf_device": crf_device,
                "images": count,
                **rates(count, seconds),
                "masks_per_s": round(sum(masks) / seconds, 3),
                "encoder_alone_images_per_s": round(encoder_rate, 3),
                "share_of_encoder_alone": round(count / seconds / encoder_rate, 3),
                "stages_alone": alone,
                "memory_before_mb": before,
                **peaks,
            }
        )
    return results


def stages(pipeline: Pipeline, paths: list[str], settings: Settings) -> dict[str, Any]:
    """Seconds of each stage for one image, alone; all but the encoder on one thread."""
    encoder, config, device = pipeline.encoder, pipeline.config, settings.device
    prepared = [pipeline.prepare(path) for path in paths]
    features = [encoder.encode([image.pixels])[0] for image in prepared]
    found = [segment_features(each, config).masks for each in features]

    with one_thread():  # as in the pipeline's threads
        taken = [
            take_turns(
                {
                    "read": partial(pipeline.prepare, path),
                    "segment": partial(segment_features, each, config),
                    "refine": partial(refine, image.pixels, masks, image.size, config, device),
                },
                settings.pick(5, 1),
                device,
            )
            for path, image, each, masks in zip(paths, prepared, features, found, strict=True)
        ]
    encode = partial(encoder.encode, [prepared[0].pixels])
    return {
        "masks_per_image": round(float(np.mean([len(masks) for masks in found])), 2),
        **summarise(*taken),
        "encode": measure(encode, settings.pick(2, 1), device),
    }


def _run(pipeline: Pipeline, paths: list[str], batch_size: int) -> list[int]:
    """The number of masks of each image."""
    masks = list(pipeline.run(paths, batch_size, then=_count))
    if -1 in masks:
        raise RuntimeError("an image failed")
    return masks


def _count(instances: Instances) -> int:
    return -1 if instances.status == "failed" else len(instances)
