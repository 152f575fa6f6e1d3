"""Workers, the run itself and the database are killed at seeded random moments: nothing shows."""

from __future__ import annotations

import os

import pytest

from tests.needs import need

need("ray.data", "pip install 'promerge-fo[cluster]'")
need("pyarrow", "pip install 'promerge-fo[cluster]'")

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
from benchmarks.database import why_not
from tests.needs import missing

IMAGES = 160
SHARD_SIZE = 4
SEED = 8


@pytest.fixture
def database(tmp_path):
    reason = why_not()
    if reason is not None:
        missing(reason)
    database = Database(tmp_path / "server")
    yield database
    database.kill()


@pytest.mark.timeout(400)
def test_a_run_that_is_killed_three_times_makes_the_same_masks(
    fo, dataset, database, photographs, tmp_path
):
    from promerge_fo.dataset.runs.model import ProMergeModel
    from promerge_fo.dataset.runs.segment import segment_dataset

    paths = copies(photographs, tmp_path / "images", IMAGES)
    dataset.add_samples([fo.Sample(filepath=path) for path in paths])
    segment_dataset(dataset, ProMergeModel(pipeline()), FIELD)
    uri = os.environ["FIFTYONE_DATABASE_URI"]
    undisturbed = labels_of(uri, fo.config.database_name, dataset.name)

    crew = Crew(tmp_path, database.uri, paths, shard_size=SHARD_SIZE)
    try:
        kills, starts = disturbed(crew, database, VICTIMS, SEED, up_to_s=1.5, early=0, limit_s=350)
    finally:
        crew.end()
    assert [kill.victim for kill in kills] == list(VICTIMS)
    assert starts == 2
    shards = [kill.shards for kill in kills]
    assert 0 < shards[0] < shards[1] < shards[2] < IMAGES / SHARD_SIZE
    assert labels_of(database.uri, DATABASE, DATASET) == undisturbed
    assert not list(crew.shards.glob("*/*.part"))
    assert not list(crew.shards.glob("*/*.damaged"))
