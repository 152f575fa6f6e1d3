"""Segment a folder or a dataset: what the command line, the demo and the App's operator call."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import fiftyone as fo
import fiftyone.core.utils as fou

from promerge_fo.dataset.database import AWAY, patiently, wait_for_database
from promerge_fo.dataset.labels import declare_field
from promerge_fo.dataset.progress import steps_of
from promerge_fo.dataset.provenance import find_records, register
from promerge_fo.dataset.runs.model import OutOfStepError, ProMergeModel
from promerge_fo.dataset.runs.resume import finished, images_of_other_runs, outstanding, start_anew
from promerge_fo.dataset.runs.status import Heartbeat
from promerge_fo.dataset.samples import require_images

__all__ = [
    "Report",
    "segment_dataset",
    "warn_of_other_runs",
]

logger = logging.getLogger("fiftyone.promerge")


@dataclass(frozen=True)
class Report:
    """What a run did.

    Attributes:
        counts: images by status.
        skipped: images that were done before with the very same settings.
        instances: masks that were stored.
        seconds: time that the run took.
        interrupted: stopped by the user; what was done is kept.
    """

    counts: dict[str, int] = field(default_factory=dict)
    skipped: int = 0
    instances: int = 0
    seconds: float = 0.0
    interrupted: bool = False

    def __str__(self) -> str:
        images = sum(self.counts.values())
        rate = images / self.seconds if self.seconds else 0.0
        statuses = ", ".join(f"{n} {status}" for status, n in self.counts.items()) or "none"
        text = (
            f"{images} images in {self.seconds:.1f} s ({rate:.2f} images/s): {statuses}; "
            f"{self.instances} masks"
        )
        if self.skipped:
            text += f"; {self.skipped} images were done before"
        return text


def segment_dataset(
    samples: Any,
    model: ProMergeModel,
    label_field: str = "promerge",
    *,
    batch_size: int = 8,
    output_dir: str | None = None,
    limit: int | None = None,
    overwrite: bool = False,
    retry_failed: bool = False,
    progress: Callable[[int], Any] | None = None,
) -> Report:
    """Give the images of a dataset or view instance masks.

    Images whose field holds masks of the same run hash are skipped, and so are images that failed
    with these settings. A database that goes away is waited for; what it has lost is done again.

    Args:
        samples: a ``fiftyone.Dataset`` or view of images.
        model: what ``load_model`` gives.
        label_field: the field for the masks.
        batch_size: images that a GPU encodes together.
        output_dir: where masks are kept as PNGs; in the database by default.
        limit: only the first so many images.
        overwrite: redo images that are done.
        retry_failed: redo images that failed, and no others.
        progress: given the number of images, makes a bar with ``update(n)`` and ``close()``.

    Returns:
        What the run did; after Ctrl-C too, when what was done is kept.

    Raises:
        ValueError: video, 3D or grouped samples, with what to select instead; ``overwrite`` and
            ``retry_failed`` together.
        pymongo.errors.ConnectionFailure: the database was away for more than ten minutes.
    """
    require_images(samples)
    if not samples._is_generated:  # or else a run that is killed would leave labels of no known run
        declare_field(samples, label_field)
    view = samples if limit is None else samples.limit(limit)
    run = model.pipeline.hash
    warn_of_other_runs(view, label_field, run)
    view = start_anew(view, label_field, run, overwrite=overwrite, retry_failed=retry_failed)
    total, before = len(view), finished(view, label_field, run)
    left = total - sum(before.values())
    if left == 0:
        return Report(skipped=total)
    counts, instances, passes, interrupted = Counter[str](), 0, 0, False
    bar = progress(left) if progress is not None else None
    started = time.perf_counter()

    def so_far() -> tuple[int, int]:
        both = counts + Counter(model.counts)
        return sum(both.values()), before["failed"] + both["failed"]

    model.counts = {}
    beat = Heartbeat(samples._root_dataset, label_field, run, "local", total, total - left, so_far)
    try:
        with beat:
            while left and not interrupted:
                work = outstanding(view, label_field, run)
                try:
                    _apply(work, model, label_field, batch_size, output_dir, bar)
                except KeyboardInterrupt:
                    interrupted = True
                except AWAY as error:
                    wait_for_database(error)
                except OutOfStepError as error:
                    logger.warning("%s", error)
                passes += 1
                instances += model.instances
                counts.update(model.counts)
                model.counts, model.instances = {}, 0
                if view._is_generated:  # its samples are copies, of which FiftyOne makes new ones
                    break
                after = finished(view, label_field, run)
                stuck = left == total - sum(after.values())
                left = total - sum(after.values())
                counts = after - before  # a database that broke off may have lost some
                if stuck:  # what stands in the way stays there: FiftyOne's log has it
                    break
    finally:
        if bar is not None:
            bar.close()
    model.counts, model.instances = dict(counts), instances
    seconds = time.perf_counter() - started
    if passes > 1:
        _complete_record(samples, label_field, run, model, seconds, interrupted)
    skipped = sum(before.values())
    return Report(dict(counts), skipped, instances, seconds, interrupted)


def warn_of_other_runs(samples: Any, label_field: str, run: str) -> None:
    """Say in the log that labels of other settings are about to be replaced, if there are any."""
    others = images_of_other_runs(samples, label_field, run)
    if not others:
        return
    shown = ", ".join(
        f"{n} of run {other}" if other else f"{n} of no run" for other, n in others.items()
    )
    logger.warning(
        "the field %r holds labels of other settings (images: %s); run %s replaces them. To keep "
        "both, give another field",
        label_field, shown, run,
    )  # fmt: skip


def _apply(
    work: Any,
    model: ProMergeModel,
    label_field: str,
    batch_size: int,
    output_dir: str | None,
    bar: Any,
) -> None:
    # FiftyOne shows its own bar beside a callback, unless it is told not to show any
    shown = fo.config.show_progress_bars and bar is None
    with fou.SetAttributes(fo.config, show_progress_bars=shown):
        work.apply_model(
            model,
            label_field=label_field,
            batch_size=batch_size,
            # Threads of the pipeline read the images; but frames and patches want a worker.
            num_workers=int(work._is_generated),
            output_dir=output_dir,
            progress=None if bar is None else steps_of(lambda _: bar),
        )


def _complete_record(
    samples: Any,
    label_field: str,
    run: str,
    model: ProMergeModel,
    seconds: float,
    interrupted: bool,
) -> None:
    """Let the record of a run that the database broke off speak of all of it."""
    images = sum(model.counts.values())
    record = patiently(lambda: find_records(samples, label_field, [run])).get(run)
    if record is None:  # stopped before there was one
        return
    record |= {
        "seconds": round(seconds, 3),
        "images_per_second": round(images / seconds, 3),
        "interrupted": interrupted,
        "counts": model.counts,
        "images": images,
        "instances": model.instances,
    }
    patiently(lambda: register(samples._root_dataset, record))
