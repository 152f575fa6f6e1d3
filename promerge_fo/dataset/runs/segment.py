"""Segment a folder or a dataset: what the command line, the demo and the App's operator call."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import fiftyone as fo
import fiftyone.core.utils as fou

from promerge_fo.dataset.database import (
    AWAY,
    is_generated,
    patiently,
    root_dataset,
    wait_for_database,
)
from promerge_fo.dataset.labels import declare_field
from promerge_fo.dataset.provenance import find_records, register
from promerge_fo.dataset.runs.model import OutOfStepError, ProMergeModel
from promerge_fo.dataset.runs.resume import finished, images_of_other_runs, outstanding, start_anew
from promerge_fo.dataset.runs.status import Heartbeat
from promerge_fo.dataset.samples import require_images
from promerge_fo.progress import Bar, ShowProgress, progress_bar

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
    progress: ShowProgress = None,
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
        progress: whether to show a bar (None: as FiftyOne's config says), or what makes one; see
            :data:`promerge_fo.progress.ShowProgress`.

    Returns:
        What the run did; after Ctrl-C too, when what was done is kept.

    Raises:
        ValueError: video, 3D or grouped samples, with what to select instead; ``overwrite`` and
            ``retry_failed`` together.
        pymongo.errors.ConnectionFailure: the database was away for more than ten minutes.
    """
    require_images(samples)
    if not is_generated(samples):  # or else a run that is killed would leave labels of no known run
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
    started = time.perf_counter()

    def so_far() -> tuple[int, int]:
        both = counts + Counter(model.counts)
        return sum(both.values()), before["failed"] + both["failed"]

    model.counts = {}
    beat = Heartbeat(root_dataset(samples), label_field, run, "local", total, total - left, so_far)
    with progress_bar(progress, left) as bar, beat:
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
            if is_generated(view):  # its samples are copies, of which FiftyOne makes new ones
                break
            after = finished(view, label_field, run)
            stuck = left == total - sum(after.values())
            left = total - sum(after.values())
            counts = after - before  # a database that broke off may have lost some
            if stuck:  # what stands in the way stays there: FiftyOne's log has it
                break
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
    bar: Bar,
) -> None:
    with fou.SetAttributes(fo.config, show_progress_bars=False):  # FiftyOne's own, beside this one
        work.apply_model(
            model,
            label_field=label_field,
            batch_size=batch_size,
            # Threads of the pipeline read the images; but frames and patches need a worker.
            num_workers=int(is_generated(work)),
            output_dir=output_dir,
            progress=_steps_of(bar),
        )


def _steps_of(bar: Bar) -> Callable[[Any], None]:
    """What FiftyOne calls at every step of its progress, to move a bar."""
    shown = 0

    def step(progress: Any) -> None:
        nonlocal shown
        bar.update(progress.iteration - shown)
        shown = progress.iteration

    return step


def _complete_record(
    samples: Any,
    label_field: str,
    run: str,
    model: ProMergeModel,
    seconds: float,
    interrupted: bool,
) -> None:
    """Let the record of a run that the database broke off speak of all of it."""
    record = patiently(lambda: find_records(samples, label_field, [run])).get(run)
    if record is None:  # stopped before there was one
        return
    whole = replace(
        record,
        seconds=round(seconds, 3),
        interrupted=interrupted,
        counts=model.counts,
        instances=model.instances,
    )
    patiently(lambda: register(root_dataset(samples), whole))
