"""FiftyOne for tests: a database, plugins and folders of their own."""

from __future__ import annotations

import os
import uuid

import numpy as np
import pytest

from benchmarks.database import isolate, start_server, why_not
from promerge_fo.machine import available_cpus
from tests.needs import missing

WHY_NOT = pytest.StashKey()  # what FiftyOne lacks here, or None

# What takes longest begins first, so that no process is left to end alone.
LONGEST = (
    "tests/app/",
    "tests/cluster/test_faults.py",
    "tests/cluster/",
    "tests/dataset/runs/test_faults.py",
    "tests/test_benchmarks.py",
    "tests/encoder/test_vit.py",
)


def pytest_configure(config):
    """Give each process that runs tests a database and its share of the CPU's cores.

    FiftyOne and PyTorch read this when they are imported: by test modules, as they are collected.
    """
    if config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput"):
        return  # this process only hands out the tests
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    if processes > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, available_cpus() // processes)))
    root = isolate(f"promerge_test_{uuid.uuid4().hex}")
    config.stash[WHY_NOT] = None
    if "FIFTYONE_DATABASE_URI" not in os.environ:
        config.stash[WHY_NOT] = why_not()
        if config.stash[WHY_NOT] is None:
            os.environ["FIFTYONE_DATABASE_URI"] = start_server(root)


def pytest_collection_modifyitems(items):
    def place(item):
        begins = (i for i, start in enumerate(LONGEST) if item.nodeid.startswith(start))
        return next(begins, len(LONGEST))

    items.sort(key=place)


def pytest_runtest_setup(item):
    """Let the tests in the App go first: a page draws while it waits, and costs more the longer."""
    beside = "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "nice")
    if beside and not item.nodeid.startswith("tests/app/") and os.nice(0) == 0:
        os.nice(10)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """One process for the tests of a file, and one for all in the App: they share what is made."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return "tests/app" if nodeid.startswith("tests/app/") else nodeid.split("::")[0]

    config.option.loadscopereorder = False  # the order is ours
    return ByFile(config, log)


@pytest.fixture(scope="session")
def fo(pytestconfig):
    """The fiftyone module, connected to an empty database, which is dropped at the end."""
    if pytestconfig.stash[WHY_NOT] is not None:
        missing(pytestconfig.stash[WHY_NOT])
    import fiftyone

    yield fiftyone
    fiftyone.core.odm.drop_database()


@pytest.fixture
def dataset(fo):
    """An empty dataset, deleted afterwards."""
    dataset = fo.Dataset()
    yield dataset
    if not dataset.deleted:
        dataset.delete()


@pytest.fixture
def copy_of(fo):
    """Copies of a dataset that was made once, deleted afterwards: ``copy_of(made)``."""
    copies = []

    def copy(made):
        copies.append(made.clone())
        return copies[-1]

    yield copy
    for each in copies:
        if not each.deleted:
            each.delete()


@pytest.fixture
def fill_up(fo):
    """Fills the document of a sample but for some bytes: ``fill_up(dataset, sample, room)``."""
    import bson

    def fill(dataset, sample, room):
        sample["heat"] = fo.Heatmap(map=np.zeros((2, 2), np.float32))
        sample.save()
        stored, key = dataset._sample_collection, {"_id": bson.ObjectId(sample.id)}
        used = len(bson.encode(stored.find_one(key)))
        filling = "x" * ((16 << 20) - used - room - 10)  # its type, name, length and end
        stored.update_one(key, {"$set": {"heat.big": filling}})
        assert len(bson.encode(stored.find_one(key))) == (16 << 20) - room

    return fill


@pytest.fixture(scope="session")
def photographs(tmp_path_factory) -> list[str]:
    """Paths of four photographs of different shapes (JPEG, up to 200 pixels a side)."""
    from PIL import Image
    from skimage import data

    folder = tmp_path_factory.mktemp("photographs")
    paths = []
    for name in ("coffee", "astronaut", "chelsea", "rocket"):
        image = Image.fromarray(np.asarray(getattr(data, name)()))
        image.thumbnail((200, 200))
        paths.append(str(folder / f"{name}.jpg"))
        image.save(paths[-1], quality=95)
    return paths
