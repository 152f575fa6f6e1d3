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

from benchmarks.database import start
from benchmarks.memory import apart, peak_mb
from benchmarks.settings import Settings
from benchmarks.subjects import blobs, instant, photographs
from benchmarks.timing import quartiles, rates, timed
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
    counts = settings.pick(COUNTS, (24,))
    return {
        "masks_per_image": MASKS,
        "size": list(SIZE),
        "batch": BATCH,
        "parts": apart(f"{__name__}:parts", images=settings.pick(400, 16)),
        "counts": [apart(f"{__name__}:of_count", count=count) for count in counts],
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
        return flow(
            enumerate(images),
            lambda pair: self.stored[pair[0] % len(self.stored)],
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
    fo = start()
    import bson
    from pymongo import UpdateOne

    from promerge_fo.dataset.labels import to_detections

    stored = stored_instances()
    collection = fo.core.odm.get_db_conn()["written_alone"]
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
        updates = [
            UpdateOne({"_id": i}, {"$set": {FIELD: document}})
            for i, document in zip(numbers, documents, strict=True)
        ]
        collection.bulk_write(updates, ordered=False)
        clock.append(time.perf_counter())
        if number:  # the first warms up
            for name, value in zip(seconds, np.diff(clock), strict=True):
                seconds[name].append(float(value) / len(numbers))
    return {
        "images": images,
        "bytes_per_image": round(size / images),
        **{name: quartiles(values) for name, values in seconds.items()},
    }


def of_count(count: int) -> dict[str, Any]:
    """apply_model over so many samples, whose files nobody opens."""
    fo = start()
    from promerge_fo.dataset.runs.model import ProMergeModel

    pipeline = Stored(instant(Settings()))
    pipeline.stored = stored_instances()
    model = ProMergeModel(pipeline)

    def samples(count: int) -> Any:
        made = fo.Dataset()
        made.add_samples([fo.Sample(filepath=f"/images/{number}.jpg") for number in range(count)])
        return made

    def apply(dataset: Any) -> None:
        dataset.apply_model(model, label_field=FIELD, batch_size=BATCH, num_workers=0)

    apply(samples(BATCH))  # warms up
    dataset = samples(count)
    before = dataset.stats()["samples_bytes"]
    _, seconds = timed(lambda: apply(dataset))
    grown = dataset.stats()["samples_bytes"] - before
    return {
        "images": count,
        "masks": dataset.count(f"{FIELD}.detections"),
        **rates(count, seconds),
        "bytes_per_image": round(grown / count),
        "peak_memory_mb": peak_mb(),
    }
