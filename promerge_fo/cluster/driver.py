"""What leads a run on Ray: it deals out the images, and merges the shards into the dataset."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone.core.utils as fou

from promerge_fo.cluster.shards import read_shard, set_aside
from promerge_fo.cluster.worker import MakesPipeline, Segmenter
from promerge_fo.config import run_hash
from promerge_fo.cpus import available_cpus
from promerge_fo.dataset.database import patiently, reload_samples, root_dataset
from promerge_fo.dataset.labels import declare_field
from promerge_fo.dataset.provenance import register
from promerge_fo.dataset.runs.merge import merge_rows
from promerge_fo.dataset.runs.resume import finished, outstanding, start_anew
from promerge_fo.dataset.runs.segment import Report, warn_of_other_runs
from promerge_fo.dataset.runs.status import Heartbeat
from promerge_fo.dataset.samples import require_whole_images
from promerge_fo.progress import ShowProgress, progress_bar
from promerge_fo.run_record import RunClock

__all__ = ["segment_on_ray"]

logger = logging.getLogger("fiftyone.promerge")

_ROUNDS = 4  # the last one finds nothing to do, unless shards come out damaged
_STORE = 256 << 20  # bytes for what Ray's processes hand on: paths


def segment_on_ray(
    samples: Any,
    recipe: MakesPipeline,
    label_field: str = "promerge",
    *,
    shards: str | os.PathLike[str],
    address: str | None = None,
    workers: int | None = None,
    device: str | None = None,
    shard_size: int = 128,
    batch_size: int = 8,
    limit: int | None = None,
    overwrite: bool = False,
    retry_failed: bool = False,
    progress: ShowProgress = None,
) -> Report:
    """Give the images of a dataset or view instance masks, by workers on one or many machines.

    Each worker loads the encoder once. It writes its masks to Parquet shards, which are merged
    into the dataset as they come. What is in whole shards already is merged first, and only the
    images that are then left are computed; so a run that broke off anywhere goes on.

    Args:
        samples: a ``fiftyone.Dataset`` or view of images, whose files all machines see.
        recipe: of the pipeline; :class:`promerge_fo.cluster.Recipe` usually.
        label_field: the field for the masks.
        shards: a folder that all machines see; each run has its own below it, by its hash.
        address: of a Ray cluster, "auto" for the one that this machine belongs to; None starts
            Ray on this machine, for this run alone.
        workers: by default one for each GPU, or without GPUs one for each machine.
        device: "cuda" or "cpu"; by default CUDA where Ray knows of GPUs.
        shard_size: images of a shard: what a worker that dies has to do again at most.
        batch_size: images that a GPU encodes together.
        limit: only the first so many images.
        overwrite: redo images that are done.
        retry_failed: redo images that failed, and no others.
        progress: whether to show a bar (None: as FiftyOne's config says), or what makes one; see
            :data:`promerge_fo.progress.ShowProgress`.

    Returns:
        What the run did; after Ctrl-C too, when what was done is kept.

    Raises:
        fiftyone.core.media.MediaTypeError: no images.
        ValueError: patches, or options that contradict each other.
        OSError: shards cannot be written; what was written is kept.
        pymongo.errors.ConnectionFailure: the database was away for more than ten minutes.
    """
    require_whole_images(samples)
    run = run_hash(recipe.identity)
    declare_field(samples, label_field)
    view = samples if limit is None else samples.limit(limit)
    warn_of_other_runs(view, label_field, run)
    view = start_anew(view, label_field, run, overwrite=overwrite, retry_failed=retry_failed)
    folder = Path(shards).expanduser().absolute() / run
    if overwrite:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    total, before = len(view), finished(view, label_field, run)
    left = total - sum(before.values())
    if left == 0:
        return Report(skipped=total)
    merging = _Merging(root_dataset(samples), label_field, run, folder, before["failed"])
    beat = Heartbeat(merging.dataset, label_field, run, "ray", total, total - left, merging.so_far)
    # Images of a shard that is there already have failed in it, and are to be run again.
    salt = str(time.time_ns()) if retry_failed else ""
    clock, interrupted = RunClock(), False
    workers_used: _Workers | None = None
    try:
        with progress_bar(progress, left) as bar, beat, merging:
            for _ in range(_ROUNDS):
                todo = patiently(lambda: _paths(outstanding(view, label_field, run)))
                # Where an image failed in one shard and not in another, the latter counts.
                for failed_too in (False,) if retry_failed else (False, True):
                    for name in _shards_in(folder):
                        bar.update(merging.merge(name, todo, failed_too=failed_too))
                tasks = list(_tasks(todo, run, salt, shard_size))
                if not tasks:
                    _clean(folder)
                    break
                with _ray(address):
                    workers_used = _workers(workers, device)
                    for made in _results(tasks, workers_used, recipe, folder, batch_size):
                        if made["error"] is not None:
                            raise OSError(
                                f"the shard {folder / made['shard']} cannot be written "
                                f"({made['error']}). What was written is kept: make room, and run "
                                "the same command again to go on"
                            )
                        bar.update(merging.merge(made["shard"], todo))
            else:
                raise OSError(
                    f"shards in {folder} come out damaged again and again; look at that disk. "
                    "What is whole is kept, and the same command goes on"
                )
    except KeyboardInterrupt:
        interrupted = True
    reload_samples(merging.dataset)
    counts = patiently(lambda: finished(view, label_field, run)) - before
    record = clock.record(
        run,
        label_field=label_field,
        identity=recipe.identity,
        counts=dict(counts),
        instances=merging.instances,
        interrupted=interrupted,
        device=str(workers_used or "none: all masks were in shards already"),
        engine="ray",
        shards=str(folder),
        batch_size=batch_size,
    )
    patiently(lambda: register(merging.dataset, record))
    return Report(dict(counts), total - left, merging.instances, record.seconds, interrupted)


class _Merging:
    """Merges one shard after the other; a context manager, for its threads.

    Attributes:
        dataset: that is merged into.
        instances: masks that were merged.
    """

    def __init__(self, dataset: Any, label_field: str, run: str, folder: Path, failed: int) -> None:
        self.dataset = dataset
        self.instances = 0
        self._label_field = label_field
        self._run = run
        self._folder = folder
        self._done, self._failed = 0, failed
        self._pool = ThreadPoolExecutor(available_cpus(), "promerge-merge")

    def __enter__(self) -> _Merging:
        return self

    def __exit__(self, *reason: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def so_far(self) -> tuple[int, int]:
        """Images that were merged, and how many failed, before or since."""
        return self._done, self._failed

    def merge(self, name: str, todo: dict[str, None], *, failed_too: bool = True) -> int:
        """Merge what a shard has of some images; a damaged one is set aside.

        Args:
            name: of the shard.
            todo: paths of the images; those that are merged are taken out.
            failed_too: also images that failed.

        Returns:
            The number of samples that have labels now.
        """
        path = self._folder / name
        if not todo:
            return 0
        try:
            paths, _ = read_shard(path, self._run, ["filepath"])
            if not any(row["filepath"] in todo for row in paths):
                return 0
            rows, _ = read_shard(path, self._run)
            rows = [
                row
                for row in rows
                if row["filepath"] in todo and (failed_too or row["status"] != "failed")
            ]
            merged = merge_rows(self.dataset, self._label_field, self._run, rows, self._pool)
        except ValueError as error:  # truncated, damaged, or with masks that are none
            logger.warning("%s; it is now %s, and its images are redone", error, set_aside(path))
            return 0
        for row in rows:
            todo.pop(row["filepath"], None)
        self._done += merged
        self._failed += sum(row["status"] == "failed" for row in rows)
        self.instances += sum(len(row["counts"]) for row in rows)
        return merged


def _paths(view: Any) -> dict[str, None]:
    """The images of a view, each once, in order."""
    return dict.fromkeys(view.values("filepath"))


def _shards_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.parquet"))


def _tasks(todo: Iterable[str], run: str, salt: str, shard_size: int) -> Iterator[dict[str, Any]]:
    """Images for one shard each, whose name is that of the images: done twice, it is there once."""
    for paths in fou.iter_batches(todo, shard_size):
        digest = hashlib.sha256("\0".join([run, salt, *paths]).encode()).hexdigest()
        yield {"shard": f"{digest[:24]}.parquet", "paths": list(paths)}


def _clean(folder: Path) -> None:
    """Remove what workers that died have left."""
    shutil.rmtree(folder / "attempts", ignore_errors=True)
    for path in folder.glob("*.part"):
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Workers:
    """How many workers there are, and what each of them has."""

    count: int
    cpus: int
    device: str

    def __str__(self) -> str:
        return f"{self.count} workers with {self.device}, {self.cpus} CPUs each"


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    """Ray, for as long as it is needed; one that runs in this process already is left alone."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    ours = not ray.is_initialized()
    if ours:
        local = {"include_dashboard": False, "object_store_memory": _STORE} if not address else {}
        ray.init(
            address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **local
        )
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


def _workers(count: int | None, device: str | None) -> _Workers:
    """One worker for each GPU, or without GPUs one for each machine, if nothing else is said."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    with_gpu = [node for node in nodes if node.get("GPU")]
    if device is None:
        device = "cuda" if with_gpu else "cpu"
    if device == "cuda":
        cpus = [node.get("CPU", 1) // node["GPU"] for node in with_gpu]
        count = count or int(sum(node["GPU"] for node in with_gpu)) or 1
    else:
        cpus = [node["CPU"] for node in nodes if node.get("CPU")]
        count = count or len(cpus)
        cpus = [sum(cpus) // count, *cpus]
    return _Workers(count, max(1, int(min(cpus, default=1))), device)


def _results(
    tasks: list[dict[str, Any]],
    workers: _Workers,
    recipe: MakesPipeline,
    folder: Path,
    batch_size: int,
) -> Iterator[dict[str, Any]]:
    """What :class:`Segmenter` says of each task, as it comes.

    Ray starts workers that die anew, and gives their tasks to others.
    """
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    size = min(workers.count, len(tasks))
    made = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map(
        Segmenter,
        fn_constructor_args=(recipe, folder, workers.device, workers.cpus, batch_size),
        compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=2),
        num_cpus=workers.cpus,
        num_gpus=1 if workers.device == "cuda" else 0,
    )
    yield from made.iter_rows()
