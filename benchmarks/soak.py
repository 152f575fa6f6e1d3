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
from dataclasses import asdict, dataclass
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
from benchmarks.database import start, why_not
from benchmarks.settings import Settings
from benchmarks.subjects import PHOTOGRAPHS, photographs

SEED = 8


@dataclass(frozen=True)
class Soak:
    """How much is done, and how much of it is killed."""

    images: int
    shard_size: int
    kills: int
    up_to_s: float
    early: float
    limit_s: float


FULL = Soak(images=3000, shard_size=4, kills=50, up_to_s=3, early=0.3, limit_s=7200)
QUICK = Soak(images=80, shard_size=4, kills=1, up_to_s=0.5, early=0, limit_s=300)


def run(settings: Settings) -> dict[str, Any]:
    missing = why_not()
    if missing is not None:
        return {"fiftyone_missing": missing}
    soak = settings.pick(FULL, QUICK)
    with tempfile.TemporaryDirectory() as name:
        return {"fiftyone_missing": None, "seed": SEED, **asdict(soak), **_soak(soak, Path(name))}


def _soak(soak: Soak, folder: Path) -> dict[str, Any]:
    rng = random.Random(SEED)
    plan = [rng.choice(VICTIMS) for _ in range(soak.kills)]
    paths = copies(_small_photographs(folder), folder / "images", soak.images)
    undisturbed = _undisturbed(paths)
    database = Database(folder / "server")
    crew = Crew(folder, database.uri, paths, soak.shard_size)
    started = time.perf_counter()
    try:
        kills, starts = disturbed(
            crew, database, plan, SEED,
            up_to_s=soak.up_to_s, early=soak.early, limit_s=soak.limit_s,
        )  # fmt: skip
        found = labels_of(database.uri, DATABASE, DATASET)
    finally:
        crew.end()
        database.kill()
    other = [path for path, labels in undisturbed.items() if found.get(path) != labels]
    statuses = Counter(labels["status"] for labels in undisturbed.values())
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "kills_by_victim": dict(Counter(kill.victim for kill in kills)),
        "runs_started": starts,
        "shards_at_each_kill": [kill.shards for kill in kills],
        "shards": crew.count_shards(),
        "statuses": dict(statuses),
        "masks": sum(len(labels["detections"]) for labels in undisturbed.values()),
        "images_found": len(found),
        "images_that_differ": len(other),
        "equal": found == undisturbed,
    }


def _small_photographs(folder: Path) -> list[str]:
    from PIL import Image

    paths = []
    for name in PHOTOGRAPHS:
        image = Image.fromarray(photographs()[name])
        image.thumbnail((200, 200))
        paths.append(str(folder / f"{name}.png"))
        image.save(paths[-1])
    return paths


def _undisturbed(paths: list[str]) -> dict[str, Any]:
    """What a run on this machine makes, without Ray."""
    start()
    import fiftyone as fo

    from promerge_fo.dataset.runs.model import ProMergeModel
    from promerge_fo.dataset.runs.segment import segment_dataset

    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(filepath=path) for path in paths])
    segment_dataset(dataset, ProMergeModel(pipeline()), FIELD)
    uri = os.environ["FIFTYONE_DATABASE_URI"]
    found = labels_of(uri, fo.config.database_name, dataset.name)
    fo.core.odm.drop_database()
    return found
