"""FiftyOne for tests: a database, plugins and folders of their own."""

from __future__ import annotations

import os
import uuid

import numpy as np
import pytest

from benchmarks.database import isolate, start_server, why_not
from tests.needs import missing

# FiftyOne reads this when it is imported, which some test modules do as soon as they are collected.
_ROOT = isolate(f"promerge_test_{uuid.uuid4().hex}")
_WHY_NOT = None
if "FIFTYONE_DATABASE_URI" not in os.environ:
    _WHY_NOT = why_not()
    if _WHY_NOT is None:
        os.environ["FIFTYONE_DATABASE_URI"] = start_server(_ROOT)


@pytest.fixture(scope="session")
def fo():
    """The fiftyone module, connected to an empty database, which is dropped at the end."""
    if _WHY_NOT is not None:
        missing(_WHY_NOT)
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
