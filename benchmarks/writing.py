"""Labels into FiftyOne's database: what it costs beside everything else, by the number of images.

The whole way through ``dataset.apply_model``, with a pipeline that hands on stored masks (5 an
image, at 480 x 640 pixels) without looking at any image; and each part of that way alone. The
masks are ellipses that the CRF has snapped to the edges of photographs: as ragged as in a real run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.database import start, why_not
from benchmarks.memory import apart, peak_mb
from benchmarks.settings import Settings
from benchmarks.subjects import blobs, instant, photographs
from benchmarks.timing import quartiles
from promerge_fo.config import ProMergeConfig
from promerge_fo.flow import Round, flow
from promerge_fo.instances import Instances
from promerge_fo.pipeline import Pipeline
from promerge_fo.refine import refine_masks

COUNTS = (100, 1000, 10_000)
SIZE = (480, 640)
MASKS = 5
DIFFERENT = 20  #: stored images, which are handed on in turn
BATCH = 8
FIELD = "promerge"


def run(settings: Settings) -> dict[str, Any]:
    missing = why_not()
    if missing is not None:
        return {"fiftyone_missing": missing, "parts": None, "counts": None}
    return {
        "fiftyone_missing": None,
        "masks_per_image": MASKS,
        "size": list(SIZE),
        "batch": BATCH,
        "parts": apart("benchmarks.writing:parts", images=settings.pick(400, 16)),
        "counts": [
            apart("benchmarks.writing:of_count", count=count)
            for count in settings.pick(COUNTS, (24,))
        ],
    }


class Stored(Pipeline):
    """Hands on stored instances, by the same threads by which a pipeline makes them."""

    stored: Sequence[Instances] = ()

    def run(
        self,
        images: Iterable[Any],
        batch_size: int = 8,
        *,
        then: Callable[[Instances], Any] | None = None,
    ) -> Generator[Any, None, None]:
        assert then is not None
        stored = self.stored
        numbered = enumerate(images)
        return flow(
            numbered,
            lambda pair: stored[pair[0] % len(stored)],
            [Round(list, batch_size, then)],
            readers=self.readers,
            workers=self.threads,
        )


def stored_instances() -> list[Instances]:
    images = list(photographs(SIZE).values())
    config = ProMergeConfig(min_refined_iou=0)
    stored = []
    for seed in range(DIFFERENT):
        refined = refine_masks(images[seed % len(images)], blobs(MASKS, seed), config)
        stored.append(Instances(refined.masks, refined.agreement))
    return stored


def parts(images: int) -> dict[str, Any]:
    """Milliseconds an image of each part alone, one image or one batch after the other."""
    start()
    import bson
    import fiftyone.core.odm as foo

    from promerge_fo.dataset.labels import to_detections

    stored = stored_instances()
    collection = foo.get_db_conn()["written_alone"]
    collection.insert_many([{"_id": number} for number in range(images)])
    seconds: dict[str, list[float]] = {name: [] for name in ("labels", "serialise", "write")}
    size = 0
    for number in range(0, images, BATCH):
        numbers = range(number, min(number + BATCH, images))
        clock = [time.perf_counter()]
        labels = [to_detections(stored[i % DIFFERENT], run="0" * 16) for i in numbers]
        clock.append(time.perf_counter())
        documents = [label.to_mongo() for label in labels]
        size += sum(len(bson.encode(document)) for document in documents)
        clock.append(time.perf_counter())
        collection.bulk_write(_updates(numbers, documents), ordered=False)
        clock.append(time.perf_counter())
        if number:  # the first warms up
            for name, value in zip(seconds, np.diff(clock), strict=True):
                seconds[name].append(float(value) / len(numbers))
    foo.drop_database()
    return {
        "images": images,
        "bytes_per_image": round(size / images),
        **{name: quartiles(values) for name, values in seconds.items()},
    }


def _updates(numbers: Iterable[int], documents: list[Any]) -> list[Any]:
    from pymongo import UpdateOne

    return [
        UpdateOne({"_id": number}, {"$set": {FIELD: document}})
        for number, document in zip(numbers, documents, strict=True)
    ]


def of_count(count: int) -> dict[str, Any]:
    """apply_model over so many samples, whose files nobody opens."""
    start()
    import fiftyone as fo

    from promerge_fo.dataset.runs.model import ProMergeModel

    pipeline = Stored(instant(Settings()))
    pipeline.stored = stored_instances()
    model = ProMergeModel(pipeline)
    warm_up, dataset = fo.Dataset(), fo.Dataset()
    warm_up.add_samples(_samples(BATCH))
    warm_up.apply_model(model, label_field=FIELD, batch_size=BATCH, num_workers=0)
    dataset.add_samples(_samples(count))
    before = dataset.stats()["samples_bytes"]
    started = time.perf_counter()
    dataset.apply_model(model, label_field=FIELD, batch_size=BATCH, num_workers=0)
    seconds = time.perf_counter() - started
    written, stats = dataset.count(f"{FIELD}.detections"), dataset.stats()
    fo.core.odm.drop_database()
    return {
        "images": count,
        "masks": written,
        "seconds": round(seconds, 3),
        "images_per_s": round(count / seconds, 3),
        "ms_per_image": round(1000 * seconds / count, 3),
        "bytes_per_image": round((stats["samples_bytes"] - before) / count),
        "peak_memory_mb": peak_mb(),
    }


def _samples(count: int) -> list[Any]:
    import fiftyone as fo

    return [fo.Sample(filepath=f"/images/{number}.jpg") for number in range(count)]
