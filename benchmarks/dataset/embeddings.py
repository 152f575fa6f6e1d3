"""Embeddings of masks: what they cost beside the masks, and 200,000 of them in FiftyOne.

- cost: milliseconds an image of what embedding adds to a run, beside what the masks take. The
  encoder's features are stored ones of ViT-B/8, as in benchmarks/pipeline/end_to_end.py.
- stored: so many seeded vectors (384 numbers, as of a ViT-S, of some kinds) go in, are read, and
  are mapped by FiftyOne Brain.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.database import multiply, start
from benchmarks.memory import apart, peak_mb, reset_peak
from benchmarks.settings import Settings
from benchmarks.subjects import instant, photograph_files
from benchmarks.timing import one_thread, summarise, take_turns_by, timed
from promerge_fo.config import ProMergeConfig
from promerge_fo.instances import Instances, crops_of, mean_features
from promerge_fo.pipeline import Encoded, Pipeline
from promerge_fo.segment import segment_features

MASKS = 200_000
DIMENSIONS = 384
KINDS = 12
FIELD = "promerge"


def run(settings: Settings) -> dict[str, Any]:
    return {
        "cost": apart(f"{__name__}:cost", quick=settings.quick),
        "stored": apart(f"{__name__}:stored", masks=settings.pick(MASKS, 300)),
    }


def cost(quick: bool) -> dict[str, Any]:
    """Seconds an image, one image after the other on one thread, by what they are spent on.

    By the clock and of the CPU: the share is of the CPU's, which other processes do not change.
    """
    start()
    from promerge_fo.dataset.labels import to_detections

    settings = Settings(quick=quick)
    taken, masks = [], 0
    with tempfile.TemporaryDirectory() as folder, one_thread():
        pipeline = Pipeline(instant(settings), ProMergeConfig())
        for path in photograph_files(Path(folder), settings.pick(4, 1)):
            prepared = pipeline.prepare(path)
            encoded = pipeline.encode([prepared])[0]
            found = pipeline.finish(prepared, encoded)
            masks += len(found)
            labels = to_detections(found, run="0" * 16)
            functions: dict[str, Callable[[], object]] = {
                "segment": partial(segment_features, encoded.features, pipeline.config),
                "segment_and_refine": partial(pipeline.finish, prepared, encoded),
                "means": partial(_means, encoded, found, prepared.size),
                "fingerprints": partial(_fingerprints, labels),
            }
            for function in functions.values():
                function()
            clocks = {"wall": time.perf_counter, "cpu": time.process_time}
            taken.append(take_turns_by(clocks, functions, settings.pick(9, 1)))
    wall, cpu = (
        summarise(*({name: clocks[kind] for name, clocks in each.items()} for each in taken))
        for kind in ("wall", "cpu")
    )
    added = cpu["means"]["median_s"] + cpu["fingerprints"]["median_s"]
    return {
        "images": len(taken),
        "masks_per_image": masks / len(taken),
        "wall": wall,
        "cpu": cpu,
        "share_of_segmentation": round(added / cpu["segment_and_refine"]["median_s"], 4),
    }


def _means(encoded: Encoded, found: Instances, size: tuple[int, int]) -> NDArray[np.float32]:
    return mean_features(encoded.described, crops_of(found.masks, found.boxes), size)


def _fingerprints(labels: Any) -> list[bytes]:
    from promerge_fo.dataset.classes.stored_vectors import fingerprint

    return [fingerprint(each) for each in labels.to_dict()["detections"]]


def stored(masks: int) -> dict[str, Any]:
    """So many vectors into the database, out of it, and through FiftyOne Brain."""
    fo = start()
    from benchmarks.dataset.writing import MASKS as EACH
    from benchmarks.dataset.writing import stored_instances
    from promerge_fo.dataset.classes.embeddings import read_embeddings
    from promerge_fo.dataset.classes.maps import map_instances
    from promerge_fo.dataset.classes.stored_vectors import write_embeddings
    from promerge_fo.dataset.database import companion
    from promerge_fo.dataset.labels import declare_field, to_detections

    dataset = fo.Dataset()
    labels = [to_detections(each, run="0" * 16) for each in stored_instances()]
    dataset.add_samples(
        [fo.Sample(filepath=f"/images/{i}.jpg", **{FIELD: made}) for i, made in enumerate(labels)]
    )
    declare_field(dataset, FIELD)
    multiply(dataset, masks // EACH, FIELD, list)
    dataset.reload()
    before = dataset.stats()["samples_bytes"]
    source = {"name": "seeded", "facet": "key"}

    def measured(function: Any) -> tuple[Any, dict[str, float]]:
        reset_peak()
        result, seconds = timed(function)
        return result, {"seconds": round(seconds, 3), "peak_memory_mb": peak_mb()}

    _, written = measured(lambda: write_embeddings(dataset, FIELD, source, _vectors(dataset)))
    server = fo.core.odm.get_db_conn()
    size = server.command("collStats", companion(dataset, FIELD).name)["size"]
    found, read = measured(lambda: read_embeddings(dataset, FIELD))
    count, dimensions = found.vectors.shape
    grown = dataset.stats()["samples_bytes"] - before
    del found
    results, mapped = measured(lambda: map_instances(dataset, FIELD, method="pca"))
    ranked, ranking = measured(
        lambda: (
            dataset.to_patches(FIELD)
            .sort_by_similarity(
                str(results.label_ids[0]), k=min(100, count), brain_key=f"{FIELD}_map_similarity"
            )
            .values("id")
        )
    )
    assert ranked[0] == results.label_ids[0]
    return {
        "masks": count,
        "images": masks // EACH,
        "dimensions": dimensions,
        "bytes_per_mask": round(size / count),
        "label_documents_grew_by_bytes": grown,
        "write": written,
        "read": read,
        "map": mapped,
        "sort_by_similarity": ranking,
    }


def _vectors(dataset: Any) -> Iterator[Any]:
    """Seeded vectors of some kinds, for all masks."""
    from promerge_fo.dataset.classes.stored_vectors import Embedded, label_parts
    from promerge_fo.dataset.database import documents

    rng = np.random.default_rng(0)
    kinds = rng.standard_normal((KINDS, DIMENSIONS))
    for document in documents(dataset, {}, *label_parts(FIELD)):
        labels = document[FIELD]["detections"]
        noise = rng.standard_normal((len(labels), DIMENSIONS))
        means = kinds[rng.integers(KINDS, size=len(labels))] + 0.7 * noise
        yield Embedded(document["_id"], labels, means.astype(np.float32))
