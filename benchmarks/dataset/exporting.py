"""Pseudo-labels out of FiftyOne's database and predictions into it, up to 100,000 images.

The samples are written straight into the database; their files do not exist, and nobody opens them.
Each image has five of a few stored masks, of ellipses that the CRF has snapped to the edges of
photographs: as ragged as in a real run. What was exported is then imported again, as predictions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.database import multiply, start
from benchmarks.memory import apart, now_mb, peak_mb, reset_peak
from benchmarks.settings import Settings
from benchmarks.timing import rates, timed

COUNTS = (1000, 10_000, 100_000)
MASKS = 5  # as of writing.py, which is not imported here: it brings torch, and 500 MB
FIELD = "promerge"


def run(settings: Settings) -> dict[str, Any]:
    counts = settings.pick(COUNTS, (48,))
    return {
        "masks_per_image": MASKS,
        "counts": [apart(f"{__name__}:of_count", count=count) for count in counts],
    }


def of_count(count: int) -> dict[str, Any]:
    """An export of so many images, and its import, in a process of their own."""
    fo = start()
    from promerge_fo.dataset.exchange.export import export_pseudo_labels
    from promerge_fo.dataset.exchange.imports import import_predictions

    # elsewhere, as what makes the masks stays in memory
    dataset = fo.load_dataset(apart(f"{__name__}:fill", count=count)["dataset"])
    small = dataset.limit(20)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pseudo.json")
        export_pseudo_labels(small, FIELD, path, min_area=0)  # warms up
        import_predictions(small, path, "warm_up")
        before = now_mb()
        summary, exported = _measure(
            count, lambda: export_pseudo_labels(dataset, FIELD, path, min_area=0)
        )
        report, imported = _measure(count, lambda: import_predictions(dataset, path, "imported"))
        size = path.stat().st_size
    return {
        "images": summary["images"],
        "masks": summary["annotations"],
        "file_mb": round(size / 2**20, 1),
        "memory_before_mb": before,
        "export": exported,
        "import": {**imported, "masks": report.labels},
    }


def _measure(count: int, function: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """What a function returns, and its speed and memory."""
    reset_peak()
    result, seconds = timed(function)
    return result, {**rates(count, seconds), "peak_memory_mb": peak_mb()}


def fill(count: int) -> dict[str, str]:
    """Make a dataset of so many samples with masks, most of them not by way of FiftyOne."""
    import fiftyone as fo

    from benchmarks.dataset.writing import SIZE, stored_instances
    from promerge_fo.dataset.labels import to_detections

    dataset = fo.Dataset("stubs", persistent=True)
    metadata = fo.ImageMetadata(width=SIZE[1], height=SIZE[0])
    labels = [to_detections(instances, run="0" * 16) for instances in stored_instances()]
    dataset.add_samples(
        [
            fo.Sample(filepath=f"/images/{number}.jpg", metadata=metadata, **{FIELD: label})
            for number, label in enumerate(labels)
        ]
    )
    multiply(dataset, count, FIELD, lambda detections: detections)
    return {"dataset": dataset.name}
