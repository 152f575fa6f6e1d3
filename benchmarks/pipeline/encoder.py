"""The encoder alone: images a second, and how much of the device's arithmetic that is.

What bounds it is arithmetic: its floating-point operations are counted, and their rate is put
beside that of one large matrix product of the same type on the same device, taking turns.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray

from benchmarks.memory import gpu_peak_mb, reset_gpu_peak
from benchmarks.settings import Settings
from benchmarks.subjects import PHOTOGRAPHS, TINY, photographs, random_vit
from benchmarks.timing import summarise, synchronise, take_turns
from promerge_fo.encoder.base import Encoder

MODELS = ("vit_small_patch16_224.dino", "vit_small_patch8_224.dino", "vit_base_patch8_224.dino")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
BATCHES = (1, 8, 16, 32)
COMPILED_BATCHES = (8, 16, 32, 1)
#: Compiling takes some seconds each time; one that is not wanted for the rest is not begun.
SECONDS_TO_COMPILE = 75


def run(settings: Settings) -> dict[str, Any]:
    models = settings.pick(MODELS, (TINY,))
    encoders = [of_model(name, precision, settings) for name in models for precision in PRECISIONS]
    return {"encoders": encoders}


def run_compiled(settings: Settings) -> list[dict[str, Any]]:
    """The same with ``compile=True``: large models first, as long as there is time."""
    results = []
    for name in reversed(settings.pick(MODELS, (TINY,))):
        for precision in settings.pick(("bf16", "fp32"), ("fp32",)):
            if settings.has(SECONDS_TO_COMPILE):
                results.append(of_model(name, precision, settings, compile=True))
            else:
                results.append({"encoder": name, "precision": precision, "left_out": "no time"})
    return results


def of_model(
    name: str, precision: str, settings: Settings, compile: bool = False
) -> dict[str, Any]:
    encoder = random_vit(
        name,
        device=settings.device,
        precision=precision,
        image_size=settings.pick(480, 96),
        compile=compile,
    )
    flops = count_flops(encoder)
    operations = sum(flops.values())
    batches: tuple[int, ...] = COMPILED_BATCHES if compile else BATCHES
    if settings.quick or not settings.on_gpu:
        batches = batches[:1]
    side = encoder.image_size
    image = photographs((side, side))[PHOTOGRAPHS[0]]
    result: dict[str, Any] = {
        "encoder": name,
        "precision": precision,
        "image_size": side,
        "gflop_per_image": round(operations / 1e9, 3),
        "attention_share": round(flops["attention"] / operations, 4),
    }
    if compile:
        started = time.perf_counter()
        encoder.encode([image] * batches[0])
        synchronise(settings.device)
        result["first_batch_s"] = round(time.perf_counter() - started, 2)
    return {**result, "batches": [_batch(encoder, image, n, operations, settings) for n in batches]}


def _batch(
    encoder: Encoder, image: NDArray[np.uint8], size: int, operations: int, settings: Settings
) -> dict[str, Any]:
    reset_gpu_peak(settings.device)
    batch = [image] * size
    encoder.encode(batch)
    peak = gpu_peak_mb(settings.device)
    side = settings.pick(8192 if settings.on_gpu else 2048, 256)
    a = torch.ones(side, side, dtype=PRECISIONS[encoder.precision], device=settings.device)
    functions = {"encode": lambda: encoder.encode(batch), "product": lambda: a @ a}
    repetitions = settings.pick(15 if settings.on_gpu else 3, 1)
    seconds, of_product = summarise(take_turns(functions, repetitions, settings.device)).values()
    rate = size / seconds["median_s"]
    reached = rate * operations / 1e12
    bound = 2 * side**3 / of_product["median_s"] / 1e12
    return {
        "batch": size,
        **seconds,
        "images_per_s": round(rate, 3),
        "tflop_per_s": round(reached, 6),
        "product": {"side": side, **of_product, "tflop_per_s": round(bound, 6)},
        "share_of_product": round(reached / bound, 4),
        "peak_gpu_memory_mb": peak,
    }


def count_flops(encoder: Encoder) -> dict[str, int]:
    """Floating-point operations of an image, by part: two for each multiply-add of a product.

    Patch embedding, all blocks but the last, and the projection to the facet; in the blocks four
    projections of attention, its products QK and AV, and two of the perceptron. Norms, softmax and
    activations are not counted.
    """
    with torch.device("meta"):  # its sizes, without its memory
        trunk = timm.create_model(encoder.name, num_classes=0)
    patches = (encoder.image_size // encoder.patch_size) ** 2
    tokens, width = patches + trunk.num_prefix_tokens, trunk.embed_dim
    hidden = trunk.blocks[0].mlp.fc1.out_features
    blocks = len(trunk.blocks) - 1
    return {
        "embedding": 2 * patches * 3 * encoder.patch_size**2 * width,
        "projections": 2 * blocks * tokens * (4 * width * width + 2 * width * hidden),
        "attention": 2 * blocks * 2 * tokens * tokens * width,
        "facet": 2 * tokens * width * width,
    }
