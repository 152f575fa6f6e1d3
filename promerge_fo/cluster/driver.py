"""The driver of a run on Ray: it hands the images to workers, and merges their shards."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.utils as fou

from promerge_fo.cluster.shards import EMBEDDINGS, read_shard, set_aside
from promerge_fo.cluster.worker import PipelineFactory, Segmenter, ShardResult, ShardTask
from promerge_fo.config import METHODS, run_hash
from promerge_fo.dataset.classes.embeddings import complete_embeddings
from promerge_fo.dataset.database import reload_samples, retry_while_unreachable, root_dataset
from promerge_fo.dataset.decided import Kept
from promerge_fo.dataset.labels import declare_field
from promerge_fo.dataset.provenance import find_records, register_part
from promerge_fo.dataset.runs.merge import merge_rows
from promerge_fo.dataset.runs.passes import Report
from promerge_fo.dataset.runs.resume import (
    finished,
    images_to_do,
    redo_lost_masks,
    start_run,
    unfinished,
)
from promerge_fo.dataset.runs.segment import made_of
from promerge_fo.dataset.runs.status import Heartbeat
from promerge_fo.dataset.samples import settled, whole_images_of
from promerge_fo.diagnosis import diagnose
from promerge_fo.machine import available_cpus
from promerge_fo.progress import ShowProgress, progress_bar
from promerge_fo.run_record import RunClock

__all__ = ["segment_on_ray"]

logger = logging.getLogger("fiftyone.promerge")

_MAX_ROUNDS = 4  # one makes all shards, the next finds nothing to do, unless shards are damaged
_OBJECT_STORE_BYTES = 256 << 20  # Ray's processes only exchange paths


def segment_on_ray(
    samples: Any,
    recipe: PipelineFactory,
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
    drop_decisions: bool = False,
    progress: ShowProgress = None,
) -> Report:
    """Give the images of a dataset or view instance masks, with workers on one or many machines.

    Each worker loads the encoder once. It writes its masks to Parquet shards, which are merged
    into the dataset as they are finished. Shards that exist already are merged first, and only
    the images that are still missing are computed. So a run that was stopped, at any point,
    continues with the same call.

    Args:
        samples: a ``fiftyone.Dataset`` or view of images, whose files all machines can read.
        recipe: makes the pipeline on each worker; usually a :class:`promerge_fo.cluster.Recipe`.
        label_field: the field for the masks.
        shards: a folder that all machines can write to; each run has its own folder in it, named
            by the run hash.
        address: the address of a Ray cluster, or "auto" for the cluster of this machine; None
            starts Ray on this machine for this run only.
        workers: the number of workers; by default one for each GPU, or without GPUs one for each
            machine.
        device: "cuda" or "cpu"; by default CUDA if Ray finds GPUs.
        shard_size: the number of images in a shard, the most that are lost when a worker dies.
        batch_size: the number of images that a GPU encodes together.
        limit: use only this number of images, the first ones.
        overwrite: redo images that are done.
        retry_failed: redo images that failed, and no others.
        drop_decisions: see :func:`promerge_fo.dataset.segment_dataset`.
        progress: whether to show a progress bar (None: as FiftyOne's config says), or a function
            that makes one; see :data:`promerge_fo.progress.ShowProgress`.

    Returns:
        A summary of the run, also if Ctrl-C stopped it; what was done until then is kept.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images.
        ValueError: the samples are patches, or both ``overwrite`` and ``retry_failed`` are given.
        OSError: shards cannot be written; those that were written are kept.
        pymongo.errors.ConnectionFailure: the database was unreachable for more than ten minutes.
    """
    samples = whole_images_of(samples)
    run = run_hash(recipe.identity)
    config = METHODS[recipe.identity["method"]].from_dict(recipe.identity["config"])
    which: dict[str, Any] = {"overwrite": overwrite, "retry_failed": retry_failed}
    parts = settled(samples, limit)
    if not retry_failed:
        redo_lost_masks(parts, label_field, run)
    kept = Kept(images_to_do(parts, label_field, run, **which), label_field)
    if kept:  # few, as people do not look at millions: done by this process
        pipeline = recipe("cpu", available_cpus())
        with progress_bar(progress, len(kept.paths), "images with decisions") as bar:
            kept.check(made_of(pipeline, kept.paths, run, bar), drop_decisions)
    declare_field(samples, label_field, config.has_proposals)
    start = start_run(parts, label_field, run, **which)
    total, before, left = start.total, start.finished, start.left
    folder = Path(shards).expanduser().absolute() / run
    if overwrite:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    if left == 0:
        _embed_rest(start.parts, label_field, recipe, batch_size)
        return Report(skipped=total, diagnosis=diagnose(before))
    merger = _ShardMerger(root_dataset(samples), label_field, run, folder, before["failed"], kept)
    heartbeat = Heartbeat(
        merger.dataset, label_field, run, "ray", total, total - left, merger.count_images
    )
    # Images to retry failed in shards that exist: other names let workers write new shards.
    salt = str(time.time_ns()) if retry_failed else ""
    clock, interrupted = RunClock(), False
    earlier = find_records(merger.dataset, label_field, [run]).get(run)
    plan: _WorkerPlan | None = None
    try:
        with progress_bar(progress, left) as bar, heartbeat, merger:
            for _ in range(_MAX_ROUNDS):
                todo = retry_while_unreachable(lambda: _image_paths(start.parts, label_field, run))
                for path in merger.full:
                    todo.pop(path, None)
                # If an image failed in one shard, but not in another, the masks of the latter win.
                for include_failed in (False,) if retry_failed else (False, True):
                    for name in _shard_names(folder):
                        bar.update(merger.merge(name, todo, include_failed=include_failed))
                        heartbeat.check()
                tasks = list(_make_tasks(todo, run, salt, shard_size))
                if not tasks:
                    _remove_leftovers(folder)
                    break
                with _ray_session(address):
                    plan = _plan_workers(workers, device)
                    for result in _run_tasks(tasks, plan, recipe, folder, batch_size):
                        if result["error"] is not None:
                            raise OSError(
                                f"the shard {folder / result['shard']} cannot be written "
                                f"({result['error']}). What was written is kept: free some disk "
                                "space, and run the same command again to go on"
                            )
                        bar.update(merger.merge(result["shard"], todo))
                        heartbeat.check()
            else:
                raise OSError(
                    f"shards in {folder} come out damaged again and again; check that disk. "
                    "Undamaged shards are kept: run the same command again to go on"
                )
    except KeyboardInterrupt:
        interrupted = True
    reload_samples(merger.dataset)
    counts = retry_while_unreachable(lambda: finished(start.parts, label_field, run)) - before
    record = clock.record(
        run,
        label_field=label_field,
        identity=recipe.identity,
        counts=dict(counts),
        instances=merger.instances,
        interrupted=interrupted,
        device=str(plan or "none: all masks were in shards already"),
        engine="ray",
        shards=str(folder),
        batch_size=batch_size,
    )
    retry_while_unreachable(lambda: register_part(merger.dataset, record, earlier))
    if record.diagnosis is not None:
        logger.warning("promerge: %s", record.diagnosis)
    if not interrupted:
        _embed_rest(start.parts, label_field, recipe, batch_size)
    return Report(
        dict(counts), before.total(), merger.instances, record.seconds, interrupted,
        record.diagnosis, len(merger.full),
    )  # fmt: skip


def _embed_rest(
    parts: Sequence[Any], label_field: str, recipe: PipelineFactory, batch_size: int
) -> None:
    """Give masks embeddings that no shard had, such as those of images done without, here."""
    if recipe.embed:
        pipeline = recipe("cpu", available_cpus())
        for part in parts:
            complete_embeddings(part, label_field, pipeline, batch_size, progress=False)


class _ShardMerger:
    """Merges shards into a dataset; a context manager, which ends its threads.

    Attributes:
        dataset: the dataset.
        instances: the number of masks merged.
        full: the paths of images whose documents do not take their labels, nor that they failed.
    """

    def __init__(
        self,
        dataset: fo.Dataset,
        label_field: str,
        run: str,
        folder: Path,
        failed: int,
        kept: Kept | None = None,
    ) -> None:
        self.dataset = dataset
        self.instances = 0
        self.full: set[str] = set()
        self._label_field = label_field
        self._run = run
        self._folder = folder
        self._kept = kept
        self._done, self._failed = 0, failed
        self._pool = ThreadPoolExecutor(available_cpus(), "promerge-merge")

    def __enter__(self) -> _ShardMerger:
        return self

    def __exit__(self, *reason: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def count_images(self) -> tuple[int, int]:
        """The number of images merged, and of images that failed, in this run or before."""
        return self._done, self._failed

    def merge(self, name: str, todo: dict[str, None], *, include_failed: bool = True) -> int:
        """Merge the images of a shard that are still to do; a damaged shard is renamed.

        Args:
            name: the file name of the shard.
            todo: the paths of the images to do; those that are merged are removed.
            include_failed: whether to merge images that failed, too.

        Returns:
            The number of samples that got labels.
        """
        path = self._folder / name
        if not todo:
            return 0
        try:
            paths, _ = read_shard(path, self._run, ["filepath"])
            if not any(row["filepath"] in todo for row in paths):
                return 0
            rows, provenance = read_shard(path, self._run)
            rows = [
                row
                for row in rows
                if row["filepath"] in todo and (include_failed or row["status"] != "failed")
            ]
            merged = merge_rows(
                self.dataset, self._label_field, self._run, rows, self._pool, self._kept,
                provenance.get(EMBEDDINGS),
            )  # fmt: skip
        except ValueError as error:  # truncated, damaged, or with malformed masks
            logger.warning("%s; it is now %s, and its images are redone", error, set_aside(path))
            return 0
        for row in rows:
            todo.pop(row["filepath"], None)
        self.full |= merged.full
        self._done += merged.samples - len(merged.full)
        self._failed += merged.failed
        self.instances += merged.instances
        return merged.samples


def _image_paths(parts: Sequence[Any], label_field: str, run: str) -> dict[str, None]:
    """The image files that are left to do, in order, without duplicates: an ordered set."""
    views = (unfinished(part, label_field, run) for part in parts)
    return dict.fromkeys(path for view in views for path in view.values("filepath"))


def _shard_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.parquet"))


def _make_tasks(todo: Iterable[str], run: str, salt: str, shard_size: int) -> Iterator[ShardTask]:
    """One task for each shard. The images decide its name, so making it twice makes one file."""
    for paths in fou.iter_batches(todo, shard_size):
        digest = hashlib.sha256("\0".join([run, salt, *paths]).encode()).hexdigest()
        yield {"shard": f"{digest[:24]}.parquet", "paths": list(paths)}


def _remove_leftovers(folder: Path) -> None:
    """Remove the files that workers left behind when they died."""
    shutil.rmtree(folder / "attempts", ignore_errors=True)
    for path in folder.glob("*.part"):
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _WorkerPlan:
    """The number of workers, and the CPUs and the device of each."""

    count: int
    cpus: int
    device: str

    def __str__(self) -> str:
        return f"{self.count} workers with {self.device}, {self.cpus} CPUs each"


@contextmanager
def _ray_session(address: str | None) -> Iterator[None]:
    """Connect to Ray or start it, and end it afterwards, unless this process used it before."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    is_new = not ray.is_initialized()
    if is_new:
        local = (
            {}
            if address
            else {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
        )
        ray.init(
            address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **local
        )
    try:
        yield
    finally:
        if is_new:
            ray.shutdown()


def _plan_workers(count: int | None, device: str | None) -> _WorkerPlan:
    """By default one worker for each GPU, or without GPUs one for each machine."""
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
    return _WorkerPlan(count, max(1, int(min(cpus, default=1))), device)


def _run_tasks(
    tasks: list[ShardTask],
    workers: _WorkerPlan,
    recipe: PipelineFactory,
    folder: Path,
    batch_size: int,
) -> Iterator[ShardResult]:
    """Have workers do the tasks; yields the results of :class:`Segmenter` as they are finished.

    Ray replaces a worker that dies, and gives its tasks to others.
    """
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    size = min(workers.count, len(tasks))
    results = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map(
        Segmenter,
        fn_constructor_args=(recipe, folder, workers.device, workers.cpus, batch_size),
        compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=2),
        num_cpus=workers.cpus,
        num_gpus=1 if workers.device == "cuda" else 0,
    )
    yield from results.iter_rows()
