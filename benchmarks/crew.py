"""A run on Ray as a process of its own, a database of its own, and kills of both.

``python -m benchmarks.crew RUN.json`` is the run; :func:`disturbed` starts it again and again,
and kills workers, the run itself and the database at moments that a seed decides.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil  # type: ignore[import-untyped]

from benchmarks.database import mongod, samples_of
from benchmarks.memory import environment

ROOT = Path(__file__).parents[1]
VICTIMS = ("worker", "driver", "database")
FIELD = "promerge"
DATABASE, DATASET = "promerge_faults", "run"  #: that the run makes
_ACTOR = "ray::"  # what Ray calls the processes of actors, with their class behind it


class Kill(NamedTuple):
    """A kill that was made.

    Attributes:
        victim: "worker", "driver" or "database".
        after_s: seconds that the victim was left alone.
        shards: that were there at this moment.
    """

    victim: str
    after_s: float
    shards: int


class Database:
    """A mongod that can be killed and comes back with what its disk has."""

    def __init__(self, folder: Path) -> None:
        self._command, self.uri = mongod(folder)
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def restart_after(self, seconds: float) -> None:
        self.kill()
        time.sleep(seconds)
        self.start()


def actors_of(pid: int) -> list[psutil.Process]:
    """Processes of Ray Data's actors below a process, from the lowest id."""
    found = []
    with suppress(psutil.Error):  # of those that have ended meanwhile
        for process in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                name = " ".join(process.cmdline())
                if name.startswith(_ACTOR) and "MapWorker" in name:
                    found.append(process)
    return sorted(found, key=lambda process: int(process.pid))


class Crew:
    """The run's process, which is started at once.

    Args:
        folder: for all its files.
        database: address.
        images: paths.
        shard_size: images of a shard.
    """

    def __init__(self, folder: Path, database: str, images: Sequence[str], shard_size: int) -> None:
        self.shards = folder / "shards"
        self.log = folder / "run.log"
        self._settings = folder / "run.json"
        settings = {"images": list(images), "shards": str(self.shards), "shard_size": shard_size}
        self._settings.write_text(json.dumps(settings))
        self._environment = {
            **environment(),
            "FIFTYONE_DATABASE_URI": database,
            "FIFTYONE_DATABASE_NAME": DATABASE,
            "FIFTYONE_DATABASE_DIR": str(folder / "unused"),
        }
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.crew", str(self._settings)],
                cwd=ROOT, env=self._environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def workers(self) -> list[psutil.Process]:
        """Processes of Ray's actors that are descendants of the run."""
        return actors_of(self.process.pid)

    def count_shards(self) -> int:
        return len(list(self.shards.glob("*/*.parquet")))

    def end(self) -> None:
        """Kill it; what it has started ends by itself then."""
        self.process.kill()
        self.process.wait()


def disturbed(
    crew: Crew,
    database: Database,
    plan: Sequence[str],
    seed: int,
    *,
    up_to_s: float,
    early: float,
    limit_s: float,
) -> tuple[list[Kill], int]:
    """Run until it is finished, and kill on the way.

    Args:
        crew: the run.
        database: that it uses.
        plan: whom to kill, in this order.
        seed: for the moments.
        up_to_s: seconds that a victim is left alone at most, once there is a new shard.
        early: the share of the kills that come before, while workers load or are about to work.
        limit_s: seconds for all.

    Returns:
        The kills, and how often the run was started.

    Raises:
        AssertionError: it ended otherwise than by a kill, or takes too long.
    """
    rng = random.Random(seed)
    kills: list[Kill] = []
    starts, until = 1, time.monotonic() + limit_s
    for victim in (*plan, None):
        wait, is_early = rng.uniform(0, up_to_s), rng.random() < early
        calm_since, shards = None, crew.count_shards()
        while True:
            code = crew.process.poll()
            if code == 0:
                return kills, starts
            if code is not None:
                assert code == -signal.SIGKILL, crew.log.read_text()[-3000:]
                crew.start()
                starts += 1
                calm_since = None
            assert time.monotonic() < until, f"{kills}: {crew.log.read_text()[-3000:]}"
            workers = crew.workers()
            if victim is not None and workers and (is_early or crew.count_shards() > shards):
                calm_since = calm_since or time.monotonic()
                if time.monotonic() - calm_since >= wait:
                    break
            time.sleep(0.1)
        assert victim is not None
        kills.append(Kill(victim, round(wait, 2), crew.count_shards()))
        if victim == "worker":
            with suppress(psutil.NoSuchProcess):
                rng.choice(workers).kill()
        elif victim == "driver":
            crew.end()
        else:
            database.restart_after(rng.uniform(0, 3))
    raise AssertionError("unreachable")


def labels_of(uri: str, database: str, name: str) -> dict[str, Any]:
    """What each image of a dataset has, but for the ids of its labels.

    Args:
        uri: of the server.
        database: its database.
        name: of the dataset.

    Raises:
        AssertionError: an image is there twice, or a label's id.
    """
    from pymongo import MongoClient

    found: dict[str, Any] = {}
    ids = set()
    with MongoClient[Any](uri) as client:
        for document in samples_of(client[database], name).find({}):
            labels = document[FIELD]
            for label in labels["detections"]:
                assert label["_id"] not in ids
                ids.add(label.pop("_id"))
            assert document["filepath"] not in found
            found[document["filepath"]] = labels
    return found


def copies(photographs: Sequence[str], folder: Path, count: int) -> list[str]:
    """So many different images: photographs, shifted; one in ten is broken."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    paths = []
    stored = [np.asarray(Image.open(path).convert("RGB")) for path in photographs]
    for number in range(count):
        paths.append(str(folder / f"{number:05}.png"))
        if number % 10 == 9:
            Path(paths[-1]).write_bytes(b"no image")
        else:
            shifted = np.roll(stored[number % len(stored)], number, axis=(0, 1))
            Image.fromarray(shifted).save(paths[-1], compress_level=1)
    return paths


def pipeline() -> Any:
    """The texture encoder at a small size; it keeps every mask that it finds."""
    from promerge_fo.config import ProMergeConfig
    from promerge_fo.encoder import load_encoder
    from promerge_fo.pipeline import Pipeline

    config = ProMergeConfig(image_size=96, min_refined_iou=0)
    return Pipeline(load_encoder("texture", image_size=96), config)


def main() -> int:
    """The run."""
    settings = json.loads(Path(sys.argv[1]).read_text())
    import fiftyone as fo

    from promerge_fo.cluster import Recipe, segment_on_ray
    from promerge_fo.dataset.database import retry_while_unreachable

    def opened() -> Any:
        dataset = fo.load_dataset(DATASET, create_if_necessary=True)
        dataset.persistent = True
        present = set(dataset.values("filepath"))
        new = [path for path in settings["images"] if path not in present]
        dataset.add_samples([fo.Sample(filepath=path) for path in new], progress=False)
        return dataset

    dataset = retry_while_unreachable(opened)
    report = segment_on_ray(
        dataset, Recipe(pipeline().identity()), FIELD, shards=settings["shards"], workers=2,
        shard_size=settings["shard_size"],
    )  # fmt: skip
    print(report, Counter(dataset.values(f"{FIELD}.status")), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
