"""Review of a million labels: how long a reviewer waits.

The labels have masks of a few pixels: what is measured does not read masks, but the database reads
the documents that they lie in.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]

from benchmarks.database import multiply, start
from benchmarks.memory import apart
from benchmarks.settings import Settings
from benchmarks.timing import quartiles, take_turns_by

COUNTS = (1_000, 10_000, 100_000)
FIELD = "promerge"
PER_IMAGE = 10  # labels, on average
PAGE = 48
REPETITIONS = 5


def run(settings: Settings) -> dict[str, Any]:
    counts = settings.pick(COUNTS, (100,))
    return {
        "labels_per_image": PER_IMAGE,
        "page": PAGE,
        "load_average_before": round(os.getloadavg()[0], 1),
        "counts": [apart(f"{__name__}:of_count", images=count) for count in counts],
    }


def of_count(images: int) -> dict[str, Any]:
    """Seconds of each thing that a reviewer waits for."""
    fo = start()

    from promerge_fo import dataset as pfo

    dataset = fill(images)
    page = pfo.review_queue(dataset, FIELD, limit=PAGE)
    sure = dataset.filter_labels(FIELD, fo.ViewField("confidence") > 0.5)
    label = page.first().id
    repeated = {
        "progress": lambda: pfo.review_progress(dataset, FIELD),
        "histograms": lambda: pfo.review_histograms(dataset, FIELD),
        "queue_by_score": lambda: pfo.review_queue(dataset, FIELD, "score", limit=PAGE),
        "queue_by_size": lambda: pfo.review_queue(dataset, FIELD, "size", limit=PAGE),
        "queue_by_disagreement": lambda: pfo.review_queue(
            dataset, FIELD, "disagreement", "other", limit=PAGE
        ),
        "open_a_bar": lambda: (
            pfo.select_between(dataset, FIELD, "score", 0.1, 0.15).limit(20).values("id")
        ),
    }
    once = {
        "accept_one_of_the_page": lambda: pfo.accept(page, FIELD, [label]),
        "undo_one": lambda: pfo.undo(page, FIELD),
        "accept_one_anywhere": lambda: pfo.accept(dataset, FIELD, [label]),
        "accept_the_page": lambda: pfo.accept(page, FIELD),
        "reject_half_of_all_by_score": lambda: pfo.reject(sure, FIELD),
        "undo_half_of_all": lambda: pfo.undo(dataset, FIELD),
    }
    seconds = {**_measure(repeated, REPETITIONS), **_measure(once, 1)}
    return {
        "images": images,
        "labels": dataset.count(f"{FIELD}.detections"),
        "bytes_per_image": round(dataset.stats()["samples_bytes"] / images),
        "seconds": seconds,
    }


def _measure(
    actions: Mapping[str, Callable[[], object]], repetitions: int
) -> dict[str, dict[str, float]]:
    """Seconds on the clock, and ``cpu_s``: those that this process and the database worked.

    Where other programs share the cores, the latter is what to compare.
    """
    clocks = {"wall": time.perf_counter, "cpu": _cpu_seconds}
    taken = take_turns_by(clocks, actions, repetitions)
    return {
        name: {**quartiles(seconds["wall"]), "cpu_s": quartiles(seconds["cpu"])["median_s"]}
        for name, seconds in taken.items()
    }


def _cpu_seconds() -> float:
    process = psutil.Process()
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return float(sum(time.user + time.system for time in times))


def fill(images: int) -> Any:
    """A dataset of so many samples without files; each label has been compared with "other"."""
    import fiftyone as fo

    label = fo.Detection(
        label="fg", bounding_box=[0.0, 0.0, 1.0, 1.0], confidence=0.5, mask=np.ones((8, 8), bool),
        area=0.5, touches_border=False, iou_with_other=0.5,
    )  # fmt: skip
    sample = fo.Sample(
        filepath="/images/0.jpg",
        metadata=fo.ImageMetadata(width=640, height=480),
        **{FIELD: fo.Detections(detections=[label], status="ok", run="0" * 16)},
        other=fo.Detections(),
    )
    dataset = fo.Dataset()
    dataset.add_sample(sample, dynamic=True)
    rng = np.random.default_rng(0)

    def labels(stored: list[dict[str, Any]]) -> list[dict[str, Any]]:
        count = int(rng.poisson(PER_IMAGE))
        figures = {
            "confidence": rng.random(count),
            "iou_with_other": rng.random(count),
            "area": np.exp(rng.normal(-4, 1.5, count)).clip(1e-5, 1),
        }
        return [
            {**stored[0], **{name: float(values[i]) for name, values in figures.items()}}
            for i in range(count)
        ]

    multiply(dataset, images, FIELD, labels)
    return dataset
