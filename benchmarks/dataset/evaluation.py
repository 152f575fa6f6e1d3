"""evaluate_instances on a dataset of COCO's size, from the database to the figures, and back.

5,000 images with 36,000 objects and 100,000 predictions: ellipses between 8 and 300 pixels in
images of 480 x 640, the first predictions of each image moved objects of it. Beside the whole, on
the same records: pycocotools alone, masks and boxes, without the database.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.database import start
from benchmarks.memory import apart, peak_mb
from benchmarks.settings import Settings
from benchmarks.timing import timed

IMAGES, OBJECTS, PREDICTIONS = 5000, 36_000, 100_000
SIZE = (480, 640)


def run(settings: Settings) -> dict[str, Any]:
    images = settings.pick(IMAGES, 20)
    return {
        "size": list(SIZE),
        "evaluation": apart(f"{__name__}:of_images", images=images),
    }


def of_images(images: int) -> dict[str, Any]:
    """Seconds of an evaluation that is stored, and of its parts."""
    start()
    from promerge_fo.dataset.evaluation.evaluate import evaluate_instances, score_field
    from promerge_fo.dataset.stored_labels import read_labels

    rng = np.random.default_rng(0)
    fields = ("predictions", "ground_truth")
    evaluate_instances(_dataset(4, rng), "predictions", eval_key="warm_up")
    dataset = _dataset(images, rng)
    results, whole = timed(lambda: evaluate_instances(dataset, "predictions", eval_key="whole"))
    read, reading = timed(lambda: list(read_labels(dataset, fields)))
    scores, scoring = timed(lambda: score_field(read, *fields))
    figures, seconds = _pycocotools(read)
    for kind, score in scores.items():
        found = [value / 100 if value >= 0 else value for value in score.metrics.values()]
        if not np.array_equal(np.round(found, 12), np.round(figures[kind], 12)):
            raise RuntimeError(f"{kind}: {found} is not pycocotools' {figures[kind]}")
    return {
        "images": images,
        "objects": dataset.count("ground_truth.detections"),
        "predictions": dataset.count("predictions.detections"),
        "seconds": round(whole, 3),
        "parts": {
            "read": round(reading, 3),
            "score": round(scoring, 3),
            "write": round(whole - reading - scoring, 3),
        },
        "pycocotools_s": round(seconds, 3),
        "times_faster_than_pycocotools": round(seconds / scoring, 2),
        "AP": round(results.metrics()["segm"]["AP"], 3),
        "peak_memory_mb": peak_mb(),
    }


def _pycocotools(read: list[Any]) -> tuple[dict[str, NDArray[np.float64]], float]:
    """Its figures of masks and boxes, and the seconds that it takes."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images = [{"id": image.number, "height": SIZE[0], "width": SIZE[1]} for image in read]
    truth, found = (
        [
            {**record, "id": number, "image_id": image.number, "category_id": 1}
            for number, (image, record) in enumerate(
                ((image, record) for image in read for record in image.records[field]), start=1
            )
        ]
        for field in ("ground_truth", "predictions")
    )

    def score() -> dict[str, NDArray[np.float64]]:
        figures = {}
        table = COCO()
        table.dataset = {"images": images, "annotations": truth, "categories": [{"id": 1}]}
        table.createIndex()
        for kind, left_out in (("segm", "bbox"), ("bbox", "segmentation")):
            kept = [{k: v for k, v in record.items() if k != left_out} for record in found]
            evaluation = COCOeval(table, table.loadRes(kept), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            figures[kind] = evaluation.stats
        return figures

    with contextlib.redirect_stdout(io.StringIO()):
        return timed(score)


def _dataset(images: int, rng: np.random.Generator) -> Any:
    """Images that nobody opens, with as many objects and predictions each as the whole has."""
    import fiftyone as fo

    dataset = fo.Dataset()
    counts = np.diff(np.linspace(0, images * OBJECTS / IMAGES, images + 1).astype(int))
    predicted = np.diff(np.linspace(0, images * PREDICTIONS / IMAGES, images + 1).astype(int))
    samples = []
    for number, (objects, predictions) in enumerate(zip(counts, predicted, strict=True)):
        ellipses = ellipses_of(objects, rng)
        others = ellipses_of(predictions, rng)
        same = min(objects, predictions)
        others[:same] = ellipses[:same] * rng.normal(1, 0.08, (same, 4))
        others[:, :2] = np.clip(others[:, :2], 0, np.array(SIZE) - 1)  # none is out of sight
        sample = fo.Sample(
            filepath=f"/images/{number}.jpg",
            metadata=fo.ImageMetadata(height=SIZE[0], width=SIZE[1]),
            ground_truth=labels_of(ellipses, None),
            predictions=labels_of(others, rng.random(predictions)),
        )
        samples.append(sample)
    dataset.add_samples(samples)
    return dataset


def ellipses_of(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(count, 4): centre and radii in pixels, down and across; most of them small."""
    radii = np.exp(rng.uniform(np.log(4), np.log(150), (count, 2)))
    return np.hstack([rng.uniform(0, 1, (count, 2)) * SIZE, radii])


def labels_of(ellipses: NDArray[np.float64], scores: NDArray[np.float64] | None) -> Any:
    import fiftyone as fo

    labels = []
    for k, (y, x, ry, rx) in enumerate(ellipses):
        top, left = max(int(y - ry), 0), max(int(x - rx), 0)
        bottom, right = min(int(y + ry) + 2, SIZE[0]), min(int(x + rx) + 2, SIZE[1])
        rows, columns = np.ogrid[top:bottom, left:right]
        mask = ((rows - y) / ry) ** 2 + ((columns - x) / rx) ** 2 <= 1
        height, width = mask.shape
        labels.append(
            fo.Detection(
                label="fg",
                bounding_box=[left / SIZE[1], top / SIZE[0], width / SIZE[1], height / SIZE[0]],
                mask=mask,
                confidence=None if scores is None else float(scores[k]),
            )
        )
    return fo.Detections(detections=labels)
