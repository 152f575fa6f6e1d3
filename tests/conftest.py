"""FiftyOne for tests: a database, plugins and folders of their own, started when first used."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from pathlib import Path

import numpy as np
import pytest

# FiftyOne reads these when it is imported, which happens in the fixture below or not at all.
_ROOT = Path(tempfile.mkdtemp(prefix="promerge-fiftyone-"))
os.environ.update(
    FIFTYONE_DATABASE_NAME=f"promerge_test_{uuid.uuid4().hex}",
    FIFTYONE_DATABASE_DIR=str(_ROOT / "db"),
    FIFTYONE_PLUGINS_DIR=str(_ROOT / "plugins"),
    FIFTYONE_MODEL_ZOO_DIR=str(_ROOT / "zoo"),
    FIFTYONE_DEFAULT_DATASET_DIR=str(_ROOT / "datasets"),
    FIFTYONE_DATABASE_VALIDATION="false",
    FIFTYONE_DO_NOT_TRACK="true",
    FIFTYONE_SHOW_PROGRESS_BARS="false",
)


def pytest_unconfigure() -> None:
    shutil.rmtree(_ROOT, ignore_errors=True)


@pytest.fixture(scope="session")
def fo():
    """The fiftyone module, connected to an empty database, which is dropped at the end."""
    from promerge_fo.dataset.mongod import MongodError, find_mongod

    try:
        missing = None if find_mongod() else "FiftyOne has no mongod: promerge doctor helps"
    except MongodError as error:
        missing = str(error)
    if missing and "FIFTYONE_DATABASE_URI" not in os.environ:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    import fiftyone

    yield fiftyone
    fiftyone.core.odm.drop_database()
    service = fiftyone.core.odm.database._db_service
    if service is not None and service.child is not None:  # else it is not ours to stop
        server = service.child
        service.stop()
        server.wait(timeout=60)


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
