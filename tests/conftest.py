"""FiftyOne for tests: a database, plugins and folders of their own, started when first used."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import numpy as np
import pytest

from tests.needs import missing

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
atexit.register(shutil.rmtree, _ROOT, ignore_errors=True)


@pytest.fixture(scope="session")
def fo():
    """The fiftyone module, connected to an empty database, which is dropped at the end."""
    if "FIFTYONE_DATABASE_URI" not in os.environ and "fiftyone" not in sys.modules:
        os.environ["FIFTYONE_DATABASE_URI"] = _start_mongod()
    import fiftyone

    yield fiftyone
    fiftyone.core.odm.drop_database()


def _start_mongod() -> str:
    """The address of a server of our own.

    FiftyOne would share any server that it has started for this user, whatever its folder. Ours
    ends with this process, however that ends: the shell waits for the pipe to close.
    """
    from promerge_fo.dataset.mongod import MongodError, find_mongod

    try:
        mongod = find_mongod()
    except MongodError as error:
        missing(str(error))
    if mongod is None:
        missing("FiftyOne has no mongod: promerge doctor --install-mongod")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (_ROOT / "db").mkdir()
    options = f"--dbpath {_ROOT}/db --logpath {_ROOT}/mongod.log --port {port} --nounixsocket"
    shell = ["sh", "-c", '"$@" >/dev/null & read end; kill $!; wait', "mongod", str(mongod)]
    server = subprocess.Popen([*shell, *options.split()], stdin=subprocess.PIPE)
    # registered before FiftyOne registers what needs the server, and so run after it
    atexit.register(server.wait)
    atexit.register(server.stdin.close)
    return f"mongodb://127.0.0.1:{port}"


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
