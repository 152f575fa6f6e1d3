"""A million samples evaluated, compared and exported: time and memory, of smaller sizes as well.

Each sample has two objects and two predictions in each of two fields: ellipses with masks in images
of 480 x 640 that no file holds. They are written straight into the database. Then every stage runs
in a process of its own: an evaluation with a key, its results as the App loads them, a comparison
of both fields with 1,000 resamples, the objects that one field finds alone, and an export in COCO's
format. What the processes hold together is looked at four times a second, mongod's memory apart.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]

from benchmarks.database import isolate, samples_of, start_server
from benchmarks.memory import apart, now_mb, reset_peak
from benchmarks.record import conditions
from benchmarks.settings import Settings
from benchmarks.timing import rates, timed

COUNTS = (10_000, 100_000, 1_000_000)
SIZE = (480, 640)
LABELS = 2  # of a sample in each field
FIELDS = ("ground_truth", "first", "second")
DIFFERENT = 500  # samples, of which the others are copies but for scores and ids
STAGES = ("fill", "evaluate", "load_results", "compare", "export")
NAME = "million"
EVERY_S = 0.25


def run(settings: Settings) -> dict[str, Any]:
    root = isolate("promerge_million")
    os.environ["FIFTYONE_DATABASE_URI"] = start_server(root)
    wanted = settings.samples or settings.pick(COUNTS, (40,))
    earlier = settings.earlier.get("counts", [])  # a million takes an hour: other sizes stay
    counts = [each for each in earlier if each["samples"] not in wanted and STAGES[-1] in each]
    results = {"labels_per_field": LABELS, "fields": len(FIELDS), "counts": counts}
    taken_on = {key: conditions()[key] for key in ("commit", "time")}
    for count in wanted:
        measured: dict[str, Any] = {"samples": count, **taken_on}
        counts.append(measured)
        counts.sort(key=itemgetter("samples"))
        for stage in STAGES:
            with _watched() as peaks:
                found = apart(f"{__name__}:{stage}", count=count)
            measured[stage] = {**found, **peaks}
            settings.save(results)  # what is measured is there if a later stage fails
            print(f"{count:,} samples, {stage}: {measured[stage]}", flush=True)
        measured["peak_memory_mb"] = max(measured[each]["peak_memory_mb"] for each in STAGES)
        apart(f"{__name__}:clean")
    return results


@contextmanager
def _watched() -> Iterator[dict[str, float]]:
    """The most memory that this process and those below it hold meanwhile, and the server."""
    peaks = {"peak_memory_mb": 0.0, "server_peak_mb": 0.0}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(EVERY_S):
            held = dict.fromkeys(peaks, 0.0)
            own = psutil.Process()
            for process in [own, *own.children(recursive=True)]:
                try:
                    is_server = process.name() == "mongod"
                    megabytes = process.memory_info().rss / 2**20
                except psutil.Error:  # it has ended meanwhile
                    continue
                held["server_peak_mb" if is_server else "peak_memory_mb"] += megabytes
            for name, value in held.items():
                peaks[name] = max(peaks[name], round(value, 1))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()


def fill(count: int) -> dict[str, Any]:
    """Write the samples into the database."""
    import fiftyone as fo
    from bson import ObjectId

    dataset = fo.Dataset(NAME, persistent=True)
    dataset.add_samples(_originals())
    collection = samples_of(fo.core.odm.get_db_conn(), NAME)
    originals = list(collection.find({}))
    collection.delete_many({})
    rng = np.random.default_rng(1)

    def copy_of(number: int, scores: list[list[float | None]]) -> dict[str, Any]:
        original = originals[number % len(originals)]
        copy = {**original, "_id": ObjectId(), "filepath": f"/images/{number:08}.jpg"}
        drawn: list[list[float | None]] = [[None] * LABELS, *scores]
        for field, confidences in zip(FIELDS, drawn, strict=True):
            labels = original[field]["detections"]
            made = [
                {**label, "_id": ObjectId(), "confidence": confidence}
                for label, confidence in zip(labels, confidences, strict=True)
            ]
            copy[field] = {**original[field], "detections": made}
        return copy

    def write() -> None:
        for first in range(0, count, 1000):
            numbers = range(first, min(first + 1000, count))
            scores = rng.random((len(numbers), len(FIELDS) - 1, LABELS)).tolist()
            pairs = zip(numbers, scores, strict=True)
            collection.insert_many([copy_of(*pair) for pair in pairs], ordered=False)

    _, seconds = timed(write)
    stats = fo.core.odm.get_db_conn().command("dbStats")
    return {**rates(count, seconds), "database_mb": round(stats["dataSize"] / 2**20, 1)}


def _originals() -> list[Any]:
    """Samples whose fields find some of the objects, each field others."""
    import fiftyone as fo

    from benchmarks.dataset.evaluation import ellipses_of, labels_of

    rng = np.random.default_rng(0)
    samples: list[Any] = []
    for _ in range(DIFFERENT):
        truth = ellipses_of(LABELS, rng)
        truth[:, 2:] = np.minimum(truth[:, 2:], 60)
        fields = {"ground_truth": labels_of(truth, None)}
        for field in FIELDS[1:]:
            moved = truth.copy()
            moved[:, 2:] *= rng.normal(1, 0.1, (LABELS, 2))
            moved[:, :2] += truth[:, 2:] * rng.normal(0, 0.15, (LABELS, 2))
            moved[:, :2] = np.clip(moved[:, :2], 0, np.array(SIZE) - 1)  # none is out of sight
            fields[field] = labels_of(moved, rng.random(LABELS))
        metadata = fo.ImageMetadata(height=SIZE[0], width=SIZE[1])
        samples.append(
            fo.Sample(filepath=f"/images/{len(samples)}.jpg", metadata=metadata, **fields)
        )
    return samples


def evaluate(count: int) -> dict[str, Any]:
    """An evaluation that is stored."""
    from promerge_fo.dataset import evaluate_instances

    dataset, before = _opened()
    results, seconds = timed(lambda: evaluate_instances(dataset, "first", eval_key="first"))
    found, missed = (dataset.sum(f"first_{suffix}") for suffix in ("tp", "fn"))
    if found + missed != LABELS * count:
        raise RuntimeError(f"{found} objects found and {missed} missed of {LABELS * count}")
    return {**_measured(count, seconds, before), "AP": results.metrics()["segm"]["AP"]}


def load_results(count: int) -> dict[str, Any]:
    """The results of this evaluation, as the App's panel loads them."""
    dataset, before = _opened()
    results, seconds = timed(lambda: dataset.load_evaluation_results("first"))
    return {**_measured(count, seconds, before), "AP": results.metrics()["segm"]["AP"]}


def compare(count: int) -> dict[str, Any]:
    """Two fields against each other, and the objects that one of them finds alone, counted."""
    from promerge_fo.dataset import compare_fields

    dataset, before = _opened()
    comparison, seconds = timed(lambda: compare_fields(dataset, FIELDS[1:]))
    value, low, high = comparison.difference("second", "AP")
    objects, counting = timed(
        lambda: comparison.found_only_by("first", "second").count("ground_truth.detections")
    )
    return {
        **_measured(count, seconds, before),
        "found_by_one": {"objects": objects, "seconds": round(counting, 3)},
        "AP": comparison.metrics()["first"]["AP"],
        "difference": [round(each, 4) for each in (value, low, high)],
    }


def export(count: int) -> dict[str, Any]:
    """One field in COCO's format."""
    from promerge_fo.dataset import export_pseudo_labels

    dataset, before = _opened()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "first.json")
        summary, seconds = timed(lambda: export_pseudo_labels(dataset, "first", path, min_area=0))
        size = path.stat().st_size
    if (summary["images"], summary["annotations"]) != (count, LABELS * count):
        raise RuntimeError(f"{summary} is not what there is")
    return {**_measured(count, seconds, before), "json_mb": round(size / 2**20, 1)}


def clean() -> dict[str, Any]:
    """Delete all that was written."""
    import fiftyone as fo

    fo.core.odm.drop_database()
    return {}


def _opened() -> tuple[Any, float]:
    """The dataset, and the memory that this process holds before it works with it."""
    import fiftyone as fo

    dataset = fo.load_dataset(NAME)
    reset_peak()
    return dataset, now_mb() or 0.0


def _measured(count: int, seconds: float, before: float) -> dict[str, Any]:
    from benchmarks.memory import peak_mb

    grown = (peak_mb() - before) * 2**20 / count
    return {**rates(count, seconds), "memory_before_mb": before, "bytes_per_sample": round(grown)}
