"""Refinement: its time against pydensecrf's, its agreement with it, and what large images cost.

pydensecrf, the CRF of the authors' released code, takes the masks of an image one by one: its time
for n masks is n times that for one. Where it is not installed, its figures are null.
"""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks import crf_batches
from benchmarks.memory import apart, now_mb, peak_mb, reset_peak
from benchmarks.settings import Settings
from benchmarks.subjects import blobs, photographs
from benchmarks.timing import one_thread, quartiles, take_turns
from promerge_fo.images import load_image
from promerge_fo.refine import refine_masks
from promerge_fo.refine.dense_crf import (
    BILATERAL_CORNERS,
    ITERATIONS,
    SPATIAL_CORNERS,
    dense_crf,
)
from promerge_fo.refine.pydensecrf import load_reference, pydensecrf
from promerge_fo.refine.resize import upsample_nearest

COUNTS = (1, 4, 8, 16, 32)
MEGAPIXELS = (0.23, 1, 2, 4, 8, 16)
MASKS_OF_A_SIZE = 4
MASKS_TO_COMPARE = 200
FULL_PASS = 16  #: masks that go through the lattice side by side


def run(settings: Settings) -> dict[str, Any]:
    if settings.on_gpu:
        return {"batches": crf_batches.run(settings)}
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
            "batches": crf_batches.run(settings),
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
    seconds: dict[str, list[float]] = {}
    for image in list(photographs((480, 480)).values())[: settings.pick(None, 1)]:
        functions: dict[str, Any] = {
            str(n): lambda i=image, m=masks[:n]: refine_masks(i, m) for n in numbers
        }
        if with_reference:
            functions["pydensecrf"] = lambda i=image: pydensecrf(i, one)
        for name, values in take_turns(functions, settings.pick(5, 1)).items():
            seconds.setdefault(name, []).extend(values)
    reference = float(np.median(seconds["pydensecrf"])) if with_reference else None
    return {
        "pydensecrf_1_mask": quartiles(seconds["pydensecrf"]) if with_reference else None,
        "refine_masks": [
            {
                "masks": n,
                **quartiles(seconds[str(n)]),
                "times_faster": (
                    None
                    if reference is None
                    else round(n * reference / float(np.median(seconds[str(n)])), 1)
                ),
            }
            for n in numbers
        ],
    }


def first_calls() -> dict[str, float]:
    """Seconds of the first calls of a process: the first one ever, and with compiled kernels."""
    with tempfile.TemporaryDirectory() as folder:
        ever, later = (
            apart("benchmarks.crf:call_first", environment={"NUMBA_CACHE_DIR": folder})
            for _ in range(2)
        )
    return {"compiling_s": ever["seconds"], "later_s": later["seconds"]}


def call_first() -> dict[str, float]:
    """The CRF for as many masks as each of its kernels takes side by side."""
    image = photographs((64, 64))["coffee"]
    started = time.perf_counter()
    for masks in (4, 8, FULL_PASS):
        dense_crf(image, upsample_nearest(blobs(masks), (64, 64)))
    return {"seconds": round(time.perf_counter() - started, 2)}


def traffic(settings: Settings) -> dict[str, float]:
    """What bounds the CRF is moving values to and from the corners of the pixels' simplices.

    The rate at which its iterations do (of a full pass, in GB/s of the values alone), beside that
    of a plain copy of an array too large for any cache (read and written).
    """
    image = photographs((480, 480))["coffee"]
    masks = upsample_nearest(blobs(2 * FULL_PASS), (480, 480))
    source = np.ones(settings.pick(2**28, 2**22), np.uint8)  # zeros would have no memory yet
    target = np.empty_like(source)
    seconds = take_turns(
        {
            "one": lambda: dense_crf(image, masks[:FULL_PASS]),
            "two": lambda: dense_crf(image, masks),  # a pass more on the same lattice
            "copy": lambda: np.copyto(target, source),
        },
        settings.pick(9, 1),
    )
    middle = {name: float(np.median(values)) for name, values in seconds.items()}
    values = (BILATERAL_CORNERS + SPATIAL_CORNERS) * image.shape[0] * image.shape[1] * FULL_PASS
    moved = 2 * ITERATIONS * values * np.dtype(np.float32).itemsize  # splat and slice
    return {
        "pass_s": round(middle["two"] - middle["one"], 6),
        "corners_gb_per_s": round(moved / max(middle["two"] - middle["one"], 1e-9) / 1e9, 2),
        "copy_gb_per_s": round(2 * source.nbytes / middle["copy"] / 1e9, 2),
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
    by_image, everywhere, unrefined, both_empty = {}, [], [], 0
    for number, (name, image) in enumerate(images.items()):
        before = upsample_nearest(blobs(each, seed=number), (480, 480))
        after = dense_crf(image, before)
        common, either = _overlap(after, pydensecrf(image, before))
        both_empty += int((either == 0).sum())
        kept, all_of_both = _overlap(after, before)
        unrefined.extend(kept / all_of_both)
        overlaps = common[either > 0] / either[either > 0]
        by_image[name] = _summary(overlaps)
        everywhere.extend(overlaps)
    return {
        "all": _summary(everywhere),
        "both_empty": both_empty,
        "unrefined": _summary(unrefined),  # how far both have moved away from what they were given
        "images": by_image,
    }


def _overlap(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[Any]]:
    """(n,) pixels of both, and of either."""
    return (a & b).sum(axis=(1, 2)), (a | b).sum(axis=(1, 2))


def _summary(overlaps: Any) -> dict[str, Any]:
    if len(overlaps) == 0:
        return {"masks": 0, "mean_iou": None, "min_iou": None}
    return {
        "masks": len(overlaps),
        "mean_iou": round(float(np.mean(overlaps)), 6),
        "min_iou": round(float(np.min(overlaps)), 6),
    }


def of_size(megapixels: float, with_reference: bool) -> dict[str, Any]:
    """The two CRFs on a photograph of a size: each in a process of its own, for the memory's sake.

    pydensecrf takes one mask, and its time is multiplied: its masks do not share any work.
    """
    with tempfile.TemporaryDirectory() as folder:
        ours = apart("benchmarks.crf:on_size", megapixels=megapixels, folder=folder, name="ours")
        result = {"megapixels": megapixels, "masks": MASKS_OF_A_SIZE, "numba": ours}
        if not with_reference:
            return {**result, "pydensecrf": None, "iou": None}
        reference = apart(
            "benchmarks.crf:on_size", megapixels=megapixels, folder=folder, name="pydensecrf"
        )
        common, either = _overlap(
            *(np.load(Path(folder) / f"{name}.npy") for name in ("ours", "pydensecrf"))
        )
    return {
        **result,
        "pydensecrf": {**reference, "seconds": round(reference["seconds"] * MASKS_OF_A_SIZE, 4)},
        "iou": round(float(common[0] / max(either[0], 1)), 6),
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
    started = time.perf_counter()
    refined = function(image, masks)
    seconds = time.perf_counter() - started
    peak = peak_mb()
    np.save(Path(folder) / name, refined[:1])
    return {"seconds": round(seconds, 4), "memory_before_mb": before, "peak_memory_mb": peak}
