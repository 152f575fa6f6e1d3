"""Pseudo-labels out of FiftyOne's database and predictions into it, up to 100,000 images.

The samples are written straight into the database; their files do not exist, and nobody opens them.
Each image has five of a few stored masks, of ellipses that the CRF has snapped to the edges of
photographs: as ragged as in a real run. What was exported is then imported again, as predictions.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.database import start, why_not
from benchmarks.memory import apart, now_mb, peak_mb, reset_peak
from benchmarks.settings import Settings

COUNTS = (1000, 10_000, 100_000)
MASKS = 5  # as of benchmarks.writing, which is not imported here: it brings torch, and 500 MB
FIELD = "promerge"


def run(settings: Settings) -> dict[str, Any]:
    missing = why_not()
    if missing is not None:
        return {"fiftyone_missing": missing, "counts": None}
    return {
        "fiftyone_missing": None,
        "masks_per_image": MASKS,
        "counts": [
            apart("benchmarks.exporting:of_count", count=count)
            for count in settings.pick(COUNTS, (48,))
        ],
    }


def of_count(count: int) -> dict[str, Any]:
    """An export of so many images, and its import, in a process of their own."""
    start()
    import fiftyone as fo

    from promerge_fo.dataset.exchange.export import export_pseudo_labels
    from promerge_fo.dataset.exchange.imports import import_predictions

    # elsewhere, as what makes the masks stays in memory
    name = apart("benchmarks.exporting:fill", count=count)["dataset"]
    dataset = fo.load_dataset(name)
    small = dataset.limit(20)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pseudo.json")
        export_pseudo_labels(small, FIELD, path, min_area=0)  # warms up
        import_predictions(small, path, "warm_up")
        before = now_mb()
        reset_peak()
        started = time.perf_counter()
        summary = export_pseudo_labels(dataset, FIELD, path, min_area=0)
        exported, export_peak = time.perf_counter() - started, peak_mb()
        reset_peak()
        started = time.perf_counter()
        report = import_predictions(dataset, path, "imported")
        imported, import_peak = time.perf_counter() - started, peak_mb()
        size = path.stat().st_size
    fo.core.odm.drop_database()
    return {
        "images": summary["images"],
        "masks": summary["annotations"],
        "file_mb": round(size / 2**20, 1),
        "memory_before_mb": before,
        "export": _figures(count, exported, export_peak),
        "import": {**_figures(count, imported, import_peak), "masks": report.labels},
    }


def fill(count: int) -> dict[str, str]:
    """Make a dataset of so many samples with masks, most of them not by way of FiftyOne."""
    import fiftyone as fo
    from bson import ObjectId

    from benchmarks.writing import SIZE, stored_instances
    from promerge_fo.dataset.labels import to_detections

    dataset = fo.Dataset("stubs", persistent=True)
    metadata = fo.ImageMetadata(width=SIZE[1], height=SIZE[0])
    labels = [to_detections(instances, run="0" * 16) for instances in stored_instances()]
    dataset.add_samples(
        [
            fo.Sample(filepath=f"/images/{number:08}.jpg", metadata=metadata, **{FIELD: label})
            for number, label in enumerate(labels)
        ]
    )
    models = list(dataset._sample_collection.find({}))
    for first in range(len(models), count, 1000):
        documents = []
        for number in range(first, min(first + 1000, count)):
            model = models[number % len(models)]
            detections = [{**d, "_id": ObjectId()} for d in model[FIELD]["detections"]]
            documents.append(
                {
                    **model,
                    "_id": ObjectId(),
                    "filepath": f"/images/{number:08}.jpg",
                    FIELD: {**model[FIELD], "detections": detections},
                }
            )
        dataset._sample_collection.insert_many(documents, ordered=True)
    return {"dataset": dataset.name}


def _figures(count: int, seconds: float, peak: float) -> dict[str, Any]:
    return {
        "seconds": round(seconds, 3),
        "images_per_s": round(count / seconds, 1),
        "ms_per_image": round(1000 * seconds / count, 3),
        "peak_memory_mb": peak,
    }
