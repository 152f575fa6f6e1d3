"""A local run whose database is killed, or which is killed itself, makes all masks in the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from benchmarks.crew import FIELD, ROOT, Database, copies, labels_of
from benchmarks.database import why_not
from tests.needs import missing

IMAGES = 100  # one in ten is broken
RUN = """
import sys
import fiftyone as fo
from benchmarks.crew import FIELD, pipeline
from promerge_fo.dataset import segment_dataset
from promerge_fo.dataset.runs.model import ProMergeModel
from promerge_fo.dataset.samples import open_source

dataset = open_source(sys.argv[1], "run")
report = segment_dataset(dataset, ProMergeModel(pipeline()), FIELD, batch_size=2)
print(sum(report.counts.values()), report.skipped, report.counts.get("failed"))
"""


@pytest.fixture
def database(tmp_path):
    reason = why_not()
    if reason is not None:
        missing(reason)
    database = Database(tmp_path / "server")
    yield database
    database.kill()


@pytest.fixture
def started(database, tmp_path, photographs):
    """Starts a local run over the same images: ``started()``."""
    copies(photographs, tmp_path / "images", IMAGES)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "FIFTYONE_DATABASE_URI": database.uri,
        "FIFTYONE_DATABASE_NAME": "promerge_faults",
    }
    return lambda: subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path / "images")],
        env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_labels(database, process, at_least):
    """Until so many images have labels; returns how many."""
    from pymongo import MongoClient

    with MongoClient(database.uri) as client:
        while True:
            assert process.poll() is None, process.stderr.read()[-3000:]
            stored = client["promerge_faults"]["datasets"].find_one({"name": "run"})
            if stored is not None:
                samples = client["promerge_faults"][stored["sample_collection_name"]]
                done = samples.count_documents({f"{FIELD}.run": {"$exists": True}})
                if done >= at_least:
                    return done
            time.sleep(0.05)


@pytest.mark.timeout(300)
def test_a_run_that_is_killed_goes_on_and_waits_for_a_database_that_is_killed(
    started, database, fo, dataset, tmp_path
):
    """What a killed run has done is kept; what a killed database lost is done again."""
    from benchmarks.crew import pipeline
    from promerge_fo.dataset.runs.model import ProMergeModel
    from promerge_fo.dataset.runs.segment import segment_dataset

    first = started()
    wait_for_labels(database, first, 20)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second = started()
    assert 40 <= wait_for_labels(database, second, 40) < IMAGES
    database.restart_after(3)
    out, err = second.communicate(timeout=200)
    assert second.returncode == 0, err[-3000:]
    done, skipped, failed = map(int, out.split()[-3:])
    assert done + skipped == IMAGES
    assert 20 <= skipped < IMAGES
    assert failed == IMAGES // 10 - skipped // 10  # every tenth image, in their order

    dataset.add_samples(
        [fo.Sample(filepath=str(path)) for path in sorted((tmp_path / "images").iterdir())]
    )
    report = segment_dataset(dataset, ProMergeModel(pipeline()), FIELD)
    assert report.counts["failed"] == IMAGES // 10
    undisturbed = labels_of(
        os.environ["FIFTYONE_DATABASE_URI"], fo.config.database_name, dataset.name
    )
    assert len(undisturbed) == IMAGES
    assert labels_of(database.uri, "promerge_faults", "run") == undisturbed


def test_a_database_that_stays_away_ends_the_run(fo, monkeypatch):
    from pymongo.errors import AutoReconnect

    from promerge_fo.dataset import database as patience

    calls = []

    def once():
        calls.append(1)
        if len(calls) == 1:
            raise AutoReconnect("broken off")
        return 7

    assert patience.retry_while_unreachable(once) == 7
    monkeypatch.setattr(patience, "WAIT_S", 0.0)

    def never():
        raise AutoReconnect("gone")

    with pytest.raises(AutoReconnect, match="gone"):
        patience.retry_while_unreachable(never)


def test_labels_never_reach_the_sample_of_another_image(fo, dataset, model, photographs):
    from promerge_fo.dataset.runs.model import OutOfStepError

    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    samples = list(dataset)
    with model:
        with pytest.raises(OutOfStepError, match="run the same again"):
            model.predict_all([photographs[1]], samples=[samples[0]])
        assert len(model.predict_all([photographs[0]], samples=[samples[0]])) == 1
