"""Fifty kills: a run on Ray whose workers, driver and database die at seeded random moments.

What it leaves in the database is compared, image by image, with what an undisturbed run on one
machine leaves. ``make soak`` runs it; tests/cluster/test_faults.py is the same with three kills.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.crew import (
    DATABASE,
    DATASET,
    FIELD,
    VICTIMS,
    Crew,
    Database,
    copies,
    disturbed,
    labels_of,
    pipeline,
)
from benchmarks.database import start
from benchmarks.settings import Settings
from benchmarks.subjects import PHOTOGRAPHS, photograph_files

SEED = 8
FULL: dict[str, Any] = {
    "images": 3000,
    "shard_size": 4,
    "kills": 50,
    "up_to_s": 3,
    "early": 0.3,
    "limit_s": 7200,
}
QUICK: dict[str, Any] = {
    "images": 80,
    "shard_size": 4,
    "kills": 1,
    "up_to_s": 0.5,
    "early": 0,
    "limit_s": 300,
}


def run(settings: Settings) -> dict[str, Any]:
    soak = settings.pick(FULL, QUICK)
    with tempfile.TemporaryDirectory() as name:
        return {"seed": SEED, **soak, **_soak(Path(name), **soak)}


def _soak(
    folder: Path, *, images: int, shard_size: int, kills: int, **moments: float
) -> dict[str, Any]:
    rng = random.Random(SEED)
    plan = [rng.choice(VICTIMS) for _ in range(kills)]
    photographs = photograph_files(folder, len(PHOTOGRAPHS), side=200)
    paths = copies(photographs, folder / "images", images)
    undisturbed = _undisturbed(paths)
    database = Database(folder / "server")
    crew = Crew(folder, database.uri, paths, shard_size)
    started = time.perf_counter()
    try:
        made, starts = disturbed(crew, database, plan, SEED, **moments)
        found = labels_of(database.uri, DATABASE, DATASET)
    finally:
        crew.end()
        database.kill()
    other = [path for path, labels in undisturbed.items() if found.get(path) != labels]
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "kills_by_victim": dict(Counter(kill.victim for kill in made)),
        "runs_started": starts,
        "shards_at_each_kill": [kill.shards for kill in made],
        "shards": crew.count_shards(),
        "statuses": dict(Counter(labels["status"] for labels in undisturbed.values())),
        "masks": sum(len(labels["detections"]) for labels in undisturbed.values()),
        "images_found": len(found),
        "images_that_differ": len(other),
        "equal": found == undisturbed,
    }


def _undisturbed(paths: list[str]) -> dict[str, Any]:
    """What a run on this machine makes, without Ray."""
    fo = start()
    from promerge_fo.dataset.runs.model import ProMergeModel
    from promerge_fo.dataset.runs.segment import segment_dataset

    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(filepath=path) for path in paths])
    segment_dataset(dataset, ProMergeModel(pipeline()), FIELD)
    return labels_of(os.environ["FIFTYONE_DATABASE_URI"], fo.config.database_name, dataset.name)
