"""The CRF in torch, for all masks of several images at once, beside the one in numba."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch

from benchmarks.settings import Settings
from benchmarks.subjects import blobs, photographs
from benchmarks.timing import measure, quartiles
from promerge_fo.refine.dense_crf import dense_crf
from promerge_fo.refine.resize import upsample_nearest
from promerge_fo.refine.torch_crf import dense_crf_batch

IMAGES = (1, 4, 16)
MASKS = (1, 8, 16)


def run(settings: Settings) -> list[dict[str, Any]]:
    """By images of a batch, and masks of an image.

    On a CPU, where it is slower than the one in numba, it is one image at a time.
    """
    if settings.on_gpu:
        cases = [(images, masks) for images in IMAGES for masks in MASKS]
    else:
        cases = [(1, masks) for masks in MASKS]
    if settings.quick:
        cases = cases[:1]
    return [_batch(images, masks, settings) for images, masks in cases]


def _batch(images: int, masks: int, settings: Settings) -> dict[str, Any]:
    size = settings.pick((480, 480), (96, 96))
    shown = list(photographs(size).values())
    batch = [shown[i % len(shown)] for i in range(images)]
    before = [upsample_nearest(blobs(masks, seed=i), size) for i in range(images)]
    owners = np.repeat(np.arange(images), masks)
    arguments = [
        torch.from_numpy(array).to(settings.device)
        for array in (np.stack(batch), np.concatenate(before), owners)
    ]
    if settings.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    fast = measure(
        lambda: dense_crf_batch(*arguments),
        settings.pick(10 if settings.on_gpu else 3, 1),
        settings.device,
    )
    peak = torch.cuda.max_memory_allocated() / 2**20 if settings.on_gpu else None
    after = dense_crf_batch(*arguments).cpu().numpy()
    # The one in numba takes image after image: each of them is a repetition, four at least.
    pairs = list(zip(batch, before, strict=True))
    dense_crf(*pairs[0])
    slow, other = [], []
    for pair in pairs * math.ceil(4 / images):
        started = time.perf_counter()
        other.append(dense_crf(*pair))
        slow.append(time.perf_counter() - started)
    each = quartiles(slow)["median_s"]
    expected = np.concatenate(other[:images])
    common, either = (after & expected).sum(axis=(1, 2)), (after | expected).sum(axis=(1, 2))
    iou = np.where(either > 0, common / np.maximum(either, 1), 1)
    whole = fast["median_s"]
    return {
        "images": images,
        "masks_per_image": masks,
        **fast,
        "ms_per_image": round(1000 * whole / images, 3),
        "masks_per_s": round(images * masks / whole, 1),
        "peak_gpu_memory_mb": None if peak is None else round(peak, 1),
        "numba_one_thread_ms_per_image": round(1000 * each, 3),
        "times_faster_than_numba": round(images * each / whole, 3),
        "iou_with_numba": {
            "mean": round(float(iou.mean()), 6),
            "min": round(float(iou.min()), 6),
        },
    }
