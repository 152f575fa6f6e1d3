"""Refinement: its time against pydensecrf's, its agreement with it, and what large images cost.

pydensecrf, the CRF of the authors' released code, takes the masks of an image one by one: its time
for n masks is n times that for one. Where it is not installed, its figures are null.
"""

from __future__ import annotations

import math
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.memory import apart, gpu_peak_mb, now_mb, peak_mb, reset_gpu_peak, reset_peak
from benchmarks.settings import Settings
from benchmarks.subjects import blobs, mask_ious, photographs
from benchmarks.timing import measure, one_thread, quartiles, summarise, take_turns, timed
from promerge_fo.config import Config
from promerge_fo.images import load_image
from promerge_fo.instances import Refined
from promerge_fo.refine import complete, crf_batch, refine_masks, refine_resized
from promerge_fo.refine.dense_crf import (
    BILATERAL_CORNERS,
    ITERATIONS,
    SPATIAL_CORNERS,
    dense_crf,
)
from promerge_fo.refine.pydensecrf import load_reference, pydensecrf
from promerge_fo.refine.resize import upsample_nearest
from promerge_fo.refine.torch_crf import dense_crf_batch

COUNTS = (1, 4, 8, 16, 32)
MEGAPIXELS = (0.23, 1, 2, 4, 8, 16)
MASKS_OF_A_SIZE = 4
MASKS_TO_COMPARE = 200
FULL_PASS = 16  #: masks that go through the lattice side by side
BATCH_IMAGES = (1, 4, 16)
BATCH_MASKS = (1, 8, 16)


def run(settings: Settings) -> dict[str, Any]:
    if settings.on_gpu:
        return {"batches": batches(settings)}
    missing = _why_no_reference()
    with one_thread():
        return {
            "pydensecrf_missing": missing,
            "counts": counts(settings, missing is None),
            "traffic": traffic(settings),
            "first_calls": None if settings.quick else first_calls(),
            "agreement": None if missing else agreement(settings),
            "sizes": [
                of_size(megapixels, missing is None)
                for megapixels in MEGAPIXELS
                if megapixels <= settings.pick(math.inf, 0.5)
            ],
            "batches": batches(settings),
        }


def _why_no_reference() -> str | None:
    try:
        load_reference()
    except ImportError as error:
        return str(error)
    return None


def counts(settings: Settings, with_reference: bool) -> dict[str, Any]:
    """refine_masks as a whole against pydensecrf's inference alone, by the number of masks."""
    numbers = COUNTS[: settings.pick(None, 2)]
    masks = blobs(max(numbers))
    one = upsample_nearest(masks[:1], (480, 480))

    def functions(image: NDArray[np.uint8]) -> dict[str, Any]:
        ours = {str(n): partial(refine_masks, image, masks[:n]) for n in numbers}
        theirs = {"pydensecrf": partial(pydensecrf, image, one)} if with_reference else {}
        return {**ours, **theirs}

    images = list(photographs((480, 480)).values())[: settings.pick(None, 1)]
    seconds = summarise(*(take_turns(functions(image), settings.pick(5, 1)) for image in images))
    reference = seconds.get("pydensecrf")
    return {
        "pydensecrf_1_mask": reference,
        "refine_masks": [
            {
                "masks": n,
                **seconds[str(n)],
                "times_faster": reference
                and round(n * reference["median_s"] / seconds[str(n)]["median_s"], 1),
            }
            for n in numbers
        ],
    }


def first_calls() -> dict[str, float]:
    """Seconds of the first calls of a process: the first one ever, and with compiled kernels."""
    with tempfile.TemporaryDirectory() as folder:
        ever, later = (
            apart(f"{__name__}:call_first", {"NUMBA_CACHE_DIR": folder}) for _ in range(2)
        )
    return {"compiling_s": ever["seconds"], "later_s": later["seconds"]}


def call_first() -> dict[str, float]:
    """The CRF for as many masks as each of its kernels takes side by side."""
    image = photographs((64, 64))["coffee"]
    masks = [upsample_nearest(blobs(count), (64, 64)) for count in (4, 8, FULL_PASS)]
    _, seconds = timed(lambda: [dense_crf(image, each) for each in masks])
    return {"seconds": round(seconds, 2)}


def traffic(settings: Settings) -> dict[str, float]:
    """What bounds the CRF is moving values to and from the corners of the pixels' simplices.

    The rate at which its iterations do (of a full pass, in GB/s of the values alone), beside that
    of a plain copy of an array too large for any cache (read and written).
    """
    image = photographs((480, 480))["coffee"]
    masks = upsample_nearest(blobs(2 * FULL_PASS), (480, 480))
    source = np.ones(settings.pick(2**28, 2**22), np.uint8)  # zeros would have no memory yet
    target = np.empty_like(source)
    functions = {
        "one": lambda: dense_crf(image, masks[:FULL_PASS]),
        "two": lambda: dense_crf(image, masks),  # a pass more on the same lattice
        "copy": lambda: np.copyto(target, source),
    }
    seconds = summarise(take_turns(functions, settings.pick(9, 1)))
    one, two, copy = (found["median_s"] for found in seconds.values())
    values = (BILATERAL_CORNERS + SPATIAL_CORNERS) * image.shape[0] * image.shape[1] * FULL_PASS
    moved = 2 * ITERATIONS * values * np.dtype(np.float32).itemsize  # splat and slice
    return {
        "pass_s": round(two - one, 6),
        "corners_gb_per_s": round(moved / max(two - one, 1e-9) / 1e9, 2),
        "copy_gb_per_s": round(2 * source.nbytes / copy / 1e9, 2),
    }


def agreement(settings: Settings) -> dict[str, Any]:
    """IoU of the CRF's masks with pydensecrf's, mask by mask."""
    images = photographs((480, 480))
    if settings.images is not None:
        images = {
            path.name: np.array(Image.fromarray(load_image(path)).resize((480, 480)))
            for path in sorted(settings.images.iterdir())
            if path.suffix.lower() in (".jpg", ".jpeg", ".png")
        }
    each = settings.pick(math.ceil(MASKS_TO_COMPARE / len(images)), 2)
    by_image, unrefined = {}, []
    for number, (name, image) in enumerate(images.items()):
        before = upsample_nearest(blobs(each, seed=number), (480, 480))
        after = dense_crf(image, before)
        by_image[name] = mask_ious(after, pydensecrf(image, before), of_empty=math.nan)
        unrefined.append(mask_ious(after, before))
    everywhere = np.concatenate(list(by_image.values()))
    return {
        "all": _summary(everywhere),
        "both_empty": int(np.isnan(everywhere).sum()),
        # how far both have moved away from what they were given
        "unrefined": _summary(np.concatenate(unrefined)),
        "images": {name: _summary(ious) for name, ious in by_image.items()},
    }


def _summary(ious: NDArray[np.float64]) -> dict[str, Any]:
    """Of the masks that are not empty in both."""
    ious = ious[~np.isnan(ious)]
    return {
        "masks": len(ious),
        "mean_iou": round(float(ious.mean()), 6) if len(ious) else None,
        "min_iou": round(float(ious.min()), 6) if len(ious) else None,
    }


def of_size(megapixels: float, with_reference: bool) -> dict[str, Any]:
    """The two CRFs on a photograph of a size: each in a process of its own, for the memory's sake.

    pydensecrf takes one mask, and its time is multiplied: its masks do not share any work.
    """
    result: dict[str, Any] = {"megapixels": megapixels, "masks": MASKS_OF_A_SIZE}
    with tempfile.TemporaryDirectory() as folder:
        crf = partial(apart, f"{__name__}:on_size", megapixels=megapixels, folder=folder)
        result["numba"] = crf(name="numba")
        if not with_reference:
            return {**result, "pydensecrf": None, "iou": None}
        reference = crf(name="pydensecrf")
        ours, theirs = (np.load(Path(folder, f"{name}.npy")) for name in ("numba", "pydensecrf"))
    return {
        **result,
        "pydensecrf": {**reference, "seconds": round(reference["seconds"] * MASKS_OF_A_SIZE, 4)},
        "iou": round(float(mask_ious(ours, theirs)[0]), 6),
    }


def on_size(megapixels: float, folder: str, name: str) -> dict[str, Any]:
    """Time and memory of one CRF; its first mask becomes a file in the folder."""
    side = math.sqrt(megapixels * 1e6 / 12)
    size = round(3 * side), round(4 * side)
    image = photographs(size)["coffee"]
    masks = upsample_nearest(blobs(MASKS_OF_A_SIZE), size)
    if name == "pydensecrf":
        function, masks = pydensecrf, masks[:1]
    else:
        function = dense_crf
        function(image[:64, :64], masks[:, :64, :64])  # compiles, or loads what was compiled
    before = now_mb()
    reset_peak()
    refined, seconds = timed(lambda: function(image, masks))
    peak = peak_mb()
    np.save(Path(folder) / name, refined[:1])
    return {"seconds": round(seconds, 4), "memory_before_mb": before, "peak_memory_mb": peak}


def refine(
    image: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    size: tuple[int, int],
    config: Config,
    device: str,
) -> Refined:
    """Refine the masks of an image as a pipeline does on this device."""
    if device == "cpu":
        return refine_resized(image, masks, size, config)
    (after,) = crf_batch([image], [masks], config, device)
    return complete(masks, after, size, config)


def batches(settings: Settings) -> list[dict[str, Any]]:
    """The CRF in torch, for all masks of several images at once, beside the one in numba.

    On a CPU, where it is slower than the one in numba, it is one image at a time.
    """
    counts = BATCH_IMAGES if settings.on_gpu else (1,)
    cases = [(images, masks) for images in counts for masks in BATCH_MASKS]
    return [_batch(*case, settings) for case in cases[: settings.pick(None, 1)]]


def _batch(images: int, masks: int, settings: Settings) -> dict[str, Any]:
    size = settings.pick((480, 480), (96, 96))
    shown = list(photographs(size).values())
    batch = [shown[i % len(shown)] for i in range(images)]
    before = [upsample_nearest(blobs(masks, seed=i), size) for i in range(images)]
    owners = np.repeat(np.arange(images), masks)
    pixels, masked, image_of = (
        torch.from_numpy(array).to(settings.device)
        for array in (np.stack(batch), np.concatenate(before), owners)
    )
    reset_gpu_peak(settings.device)
    fast = measure(
        lambda: dense_crf_batch(pixels, masked, image_of),
        settings.pick(10 if settings.on_gpu else 3, 1),
        settings.device,
    )
    peak = gpu_peak_mb(settings.device)
    after = dense_crf_batch(pixels, masked, image_of).cpu().numpy()
    # The one in numba takes image after image: each of them is a repetition, four at least.
    pairs = list(zip(batch, before, strict=True))
    dense_crf(*pairs[0])
    other, slow = zip(
        *(timed(partial(dense_crf, *pair)) for pair in pairs * math.ceil(4 / images)), strict=True
    )
    each, whole = quartiles(slow)["median_s"], fast["median_s"]
    ious = mask_ious(after, np.concatenate(other[:images]))
    return {
        "images": images,
        "masks_per_image": masks,
        **fast,
        "ms_per_image": round(1000 * whole / images, 3),
        "masks_per_s": round(images * masks / whole, 1),
        "peak_gpu_memory_mb": peak,
        "numba_one_thread_ms_per_image": round(1000 * each, 3),
        "times_faster_than_numba": round(images * each / whole, 3),
        "iou_with_numba": {
            "mean": round(float(ious.mean()), 6),
            "min": round(float(ious.min()), 6),
        },
    }
