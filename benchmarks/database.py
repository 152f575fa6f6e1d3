"""FiftyOne for a benchmark or a test: a server, a database and folders of its own.

All this is to be called before FiftyOne is imported, which reads the environment then.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from promerge_fo.install.mongod import MongodError, find_mongod

CACHE_GB = "1.5"  #: of a server; its own default is half of the machine's memory


def why_not() -> str | None:
    """What FiftyOne lacks here, or None."""
    try:
        found = find_mongod()
    except MongodError as error:
        return str(error)
    return None if found else "FiftyOne has no mongod: promerge doctor --install-mongod"


def start() -> Any:
    """FiftyOne, with a server, a database and folders that go with the process."""
    root = isolate("promerge_benchmark")
    os.environ["FIFTYONE_DATABASE_URI"] = start_server(root)
    import fiftyone

    return fiftyone


def isolate(name: str) -> Path:
    """Point FiftyOne to a database of this name and to folders below the one returned.

    The folder goes with the process.
    """
    root = Path(tempfile.mkdtemp(prefix="promerge-fiftyone-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    os.environ.update(
        FIFTYONE_DATABASE_NAME=name,
        FIFTYONE_DATABASE_DIR=str(root / "db"),
        FIFTYONE_PLUGINS_DIR=str(root / "plugins"),
        FIFTYONE_MODEL_ZOO_DIR=str(root / "zoo"),
        FIFTYONE_DEFAULT_DATASET_DIR=str(root / "datasets"),
        FIFTYONE_DATABASE_VALIDATION="false",
        FIFTYONE_DO_NOT_TRACK="true",
        FIFTYONE_SHOW_PROGRESS_BARS="false",
    )
    return root


def start_server(root: Path) -> str:
    """The address of a server of our own, with its data below a folder.

    FiftyOne would share any server that it has started for this user, whatever its folder. Ours
    ends with this process, however that ends: the shell waits for the pipe to close.
    """
    command, address = mongod(root)
    shell = ["sh", "-c", '"$@" >/dev/null & read end; kill $!; wait', "mongod"]
    server = subprocess.Popen([*shell, *command], stdin=subprocess.PIPE)
    assert server.stdin is not None
    # registered before FiftyOne registers what needs the server, and so run after it
    atexit.register(server.wait)
    atexit.register(server.stdin.close)
    return address


def mongod(root: Path) -> tuple[list[str], str]:
    """The command that starts a server with its data below a folder, and its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (root / "db").mkdir(parents=True)
    command = [
        str(find_mongod()), "--dbpath", str(root / "db"), "--logpath", str(root / "mongod.log"),
        "--bind_ip", "127.0.0.1", "--port", str(port), "--nounixsocket",
        "--wiredTigerCacheSizeGB", CACHE_GB,
        "--setParameter", "diagnosticDataCollectionEnabled=false",
    ]  # fmt: skip
    return command, f"mongodb://127.0.0.1:{port}"


def samples_of(server: Any, dataset: str) -> Any:
    """The collection that holds a dataset's samples, in a database of FiftyOne's."""
    (stored,) = server["datasets"].find({"name": dataset})
    return server[stored["sample_collection_name"]]


def multiply(
    dataset: Any, count: int, field: str, labels: Callable[[list[dict[str, Any]]], Any]
) -> None:
    """Replace a dataset's samples by so many copies, straight in the database; no file exists.

    Args:
        dataset: whose samples are copied in turn.
        count: of the copies.
        field: with their detections.
        labels: makes a copy's detections, as they are stored, from those of its original.
    """
    import fiftyone as fo
    from bson import ObjectId

    collection = samples_of(fo.core.odm.get_db_conn(), dataset.name)
    originals = list(collection.find({}))
    collection.delete_many({})
    for first in range(0, count, 1000):
        documents = []
        for number in range(first, min(first + 1000, count)):
            copy = originals[number % len(originals)]
            made = [{**label, "_id": ObjectId()} for label in labels(copy[field]["detections"])]
            new = {"_id": ObjectId(), "filepath": f"/images/{number:08}.jpg"}
            documents.append({**copy, **new, field: {**copy[field], "detections": made}})
        collection.insert_many(documents)
