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
from pathlib import Path

from promerge_fo.install.mongod import MongodError, find_mongod


def why_not() -> str | None:
    """What FiftyOne lacks here, or None."""
    try:
        found = find_mongod()
    except MongodError as error:
        return str(error)
    return None if found else "FiftyOne has no mongod: promerge doctor --install-mongod"


def start() -> None:
    """A server, a database and folders that go with the process."""
    root = isolate("promerge_benchmark")
    os.environ["FIFTYONE_DATABASE_URI"] = start_server(root)


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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (root / "db").mkdir()
    options = f"--dbpath {root}/db --logpath {root}/mongod.log --port {port} --nounixsocket"
    shell = ["sh", "-c", '"$@" >/dev/null & read end; kill $!; wait', "mongod", str(find_mongod())]
    server = subprocess.Popen([*shell, *options.split()], stdin=subprocess.PIPE)
    assert server.stdin is not None
    # registered before FiftyOne registers what needs the server, and so run after it
    atexit.register(server.wait)
    atexit.register(server.stdin.close)
    return f"mongodb://127.0.0.1:{port}"
