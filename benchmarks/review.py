"""Review of a million labels: how long a reviewer waits.

The labels have masks of a few pixels: what is measured does not read masks, but the database reads
the documents that they lie in.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import psutil

from benchmarks.database import start, why_not
from benchmarks.memory import apart
from benchmarks.settings import Settings
from benchmarks.timing import quartiles

FIELD = "promerge"
PER_IMAGE = 10  # labels, on average
PAGE = 48
REPETITIONS = 5


def run(settings: Settings) -> dict[str, Any]:
    missing = why_not()
    if missing is not None:
        return {"fiftyone_missing": missing, "counts": None}
    counts = settings.pick((1_000, 10_000, 100_000), (100,))
    return {
        "fiftyone_missing": None,
        "labels_per_image": PER_IMAGE,
        "page": PAGE,
        "load_average_before": round(os.getloadavg()[0], 1),
        "counts": [apart("benchmarks.review:of_count", images=count) for count in counts],
    }


def of_count(images: int) -> dict[str, Any]:
    """Seconds of each thing that a reviewer waits for."""
    start()
    import fiftyone as fo
    from fiftyone import ViewField as F

    from promerge_fo import dataset as pfo

    dataset = fill(images)
    page = pfo.review_queue(dataset, FIELD, limit=PAGE)
    sure = dataset.filter_labels(FIELD, F("confidence") > 0.5)
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
    seconds = {name: _measure(action, REPETITIONS) for name, action in repeated.items()}
    once = {
        "accept_one_of_the_page": lambda: pfo.accept(page, FIELD, [label]),
        "undo_one": lambda: pfo.undo(page, FIELD),
        "accept_one_anywhere": lambda: pfo.accept(dataset, FIELD, [label]),
        "accept_the_page": lambda: pfo.accept(page, FIELD),
        "reject_half_of_all_by_score": lambda: pfo.reject(sure, FIELD),
        "undo_half_of_all": lambda: pfo.undo(dataset, FIELD),
    }
    for name, action in once.items():
        seconds[name] = _measure(action, 1)
    stats = dataset.stats()
    found = {
        "images": images,
        "labels": dataset.count(f"{FIELD}.detections"),
        "bytes_per_image": round(stats["samples_bytes"] / images),
        "seconds": seconds,
    }
    fo.core.odm.drop_database()
    return found


def _measure(action: Any, repetitions: int) -> dict[str, float]:
    """Seconds on the clock, and ``cpu_s``: those that this process and the database worked.

    Where other programs share the cores, the latter is what to compare.
    """
    clock, cpu = [], []
    for _ in range(repetitions):
        started, worked = time.perf_counter(), _cpu_seconds()
        action()
        clock.append(time.perf_counter() - started)
        cpu.append(_cpu_seconds() - worked)
    return {**quartiles(clock), "cpu_s": round(float(np.median(cpu)), 6)}


def _cpu_seconds() -> float:
    process = psutil.Process()
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return float(sum(time.user + time.system for time in times))


def fill(images: int) -> Any:
    """A dataset of so many samples without files; each label has been compared with "other"."""
    import fiftyone as fo
    import fiftyone.core.utils as fou
    from bson import ObjectId

    rng = np.random.default_rng(0)
    label = fo.Detection(
        label="fg", bounding_box=[0.0, 0.0, 1.0, 1.0], confidence=0.5, mask=np.ones((8, 8), bool),
        area=0.5, touches_border=False, iou_with_other=0.5,
    )  # fmt: skip
    labels = fo.Detections(detections=[label], status="ok", run="0" * 16)
    sample = fo.Sample(
        filepath="/images/0.jpg",
        metadata=fo.ImageMetadata(width=640, height=480),
        **{FIELD: labels, "other": fo.Detections()},
    )
    dataset = fo.Dataset()
    dataset.add_sample(sample, dynamic=True)
    template = dataset._sample_collection.find_one()
    mask = fou.serialize_numpy_array(np.ones((8, 8), bool))
    dataset._sample_collection.delete_many({})
    written = 0
    while written < images:
        documents = []
        for number in range(written, min(written + 1000, images)):
            count = int(rng.poisson(PER_IMAGE))
            score, iou = rng.random(count), rng.random(count)
            area = np.exp(rng.normal(-4, 1.5, count)).clip(1e-5, 1)
            detections = [
                {
                    **template[FIELD]["detections"][0],
                    "_id": ObjectId(),
                    "confidence": float(score[i]),
                    "area": float(area[i]),
                    "iou_with_other": float(iou[i]),
                    "mask": mask,
                }
                for i in range(count)
            ]
            documents.append(
                {
                    **template,
                    "_id": ObjectId(),
                    "filepath": f"/images/{number}.jpg",
                    FIELD: {**template[FIELD], "detections": detections},
                }
            )
        dataset._sample_collection.insert_many(documents)
        written += len(documents)
    return dataset
