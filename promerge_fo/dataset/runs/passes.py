"""A pass of FiftyOne's ``apply_model`` within a run, and what a run reports."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.media as fom
import fiftyone.core.utils as fou
from pymongo.errors import ConnectionFailure

from promerge_fo.dataset.database import (
    is_generated,
    is_too_large,
    reasons_of_fiftyone,
    retry_while_unreachable,
    root_dataset,
    wait_for_database,
)
from promerge_fo.dataset.provenance import find_records, register_part
from promerge_fo.dataset.runs.model import OutOfStepError, ProMergeModel
from promerge_fo.dataset.runs.status import Heartbeat
from promerge_fo.progress import Bar
from promerge_fo.run_record import RunRecord

__all__ = ["Pass", "Report", "mask_folder_of", "one_pass", "update_record"]

logger = logging.getLogger("fiftyone.promerge")


@dataclass(frozen=True)
class Report:
    """Summary of a run.

    Of videos, it counts frames.

    Attributes:
        counts: the number of images by status, without those skipped.
        skipped: the number of images that were done before with exactly the same settings.
        instances: the number of masks stored.
        seconds: the duration of the run.
        interrupted: whether the user stopped the run; what was done is kept.
        diagnosis: why most images have no masks, in words; None if most have some.
        unstored: the number of images that were to be done and have no labels, failed ones neither,
            as the database takes none; the log names them.
        unit: what is counted, "images" or "frames".
    """

    counts: dict[str, int] = field(default_factory=dict)
    skipped: int = 0
    instances: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    diagnosis: str | None = None
    unstored: int = 0
    unit: str = "images"

    def __str__(self) -> str:
        images = sum(self.counts.values())
        rate = images / self.seconds if self.seconds else 0.0
        statuses = ", ".join(f"{n} {status}" for status, n in self.counts.items()) or "none"
        text = (
            f"{images} {self.unit} in {self.seconds:.1f} s ({rate:.2f} {self.unit}/s): {statuses}; "
            f"{self.instances} masks"
        )
        if self.skipped:
            text += f"; {self.skipped} {self.unit} were done before"
        if self.unstored:
            text += f"; {self.unstored} {self.unit} have no labels, as the log says"
        return text if self.diagnosis is None else f"{text}. {self.diagnosis}"


def mask_folder_of(output_dir: str | None, run: str, label_field: str) -> Path | None:
    """The folder for the mask files of one run on one field, which is made; None for none."""
    if output_dir is None:
        return None
    folder = Path(output_dir).expanduser().absolute() / run / label_field
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True)
class Pass:
    """How FiftyOne's ``apply_model`` ended.

    Attributes:
        reasons: why it left batches out, by the ids of their first samples.
        is_whole: whether it came to its end, whatever it left out.
        is_interrupted: whether it was stopped.
        problem: what it raised, if that was neither of the connection nor of this package.
    """

    reasons: dict[str, Exception]
    is_whole: bool = False
    is_interrupted: bool = False
    problem: Exception | None = None

    def require_no_problem(self) -> None:
        """Raise the problem, if there is one."""
        if self.problem is not None:
            raise self.problem


def one_pass(
    view: Any,
    model: ProMergeModel,
    label_field: str,
    batch_size: int,
    bar: Bar,
    heartbeat: Heartbeat,
) -> Pass:
    """Apply a model to images or videos, and say how that ended."""
    with reasons_of_fiftyone() as reasons:
        try:
            _apply_model(view, model, label_field, batch_size, bar, heartbeat)
            return Pass(reasons, is_whole=True)
        except KeyboardInterrupt:
            return Pass(reasons, is_interrupted=True)
        except ConnectionFailure as error:
            wait_for_database(error)
        except OutOfStepError as error:
            logger.warning("%s", error)
        except Exception as error:
            return Pass(reasons, is_whole=is_too_large(error), problem=error)
    return Pass(reasons)


def _apply_model(
    view: Any,
    model: ProMergeModel,
    label_field: str,
    batch_size: int,
    bar: Bar,
    heartbeat: Heartbeat,
) -> None:
    is_video = view.media_type == fom.VIDEO
    if is_video:  # FiftyOne's progress counts frames that were done before, too
        update = _bar_updater(bar, heartbeat, lambda _: sum(model.counts.values()))
        reads: dict[str, Any] = {}
    else:
        update = _bar_updater(bar, heartbeat, lambda progress: progress.iteration)
        # The pipeline's threads read the images; but frames and patches need a worker process.
        reads = {"num_workers": int(is_generated(view))}
    with fou.SetAttributes(fo.config, show_progress_bars=False):  # only this bar, not FiftyOne's
        view.apply_model(
            model, label_field=label_field, batch_size=batch_size, progress=update, **reads
        )


def _bar_updater(
    bar: Bar, heartbeat: Heartbeat, done: Callable[[Any], int]
) -> Callable[[Any], None]:
    """A callback for FiftyOne's progress, which moves the bar to the same step.

    It raises KeyboardInterrupt where the run was asked to stop.
    """
    shown = 0

    def update(progress: Any) -> None:
        nonlocal shown
        now = done(progress)
        bar.update(now - shown)
        shown = now
        heartbeat.check()

    return update


def update_record(
    samples: Any,
    label_field: str,
    run: str,
    model: ProMergeModel,
    seconds: float,
    interrupted: bool,
    earlier: RunRecord | None,
) -> None:
    """Write the totals of all passes to the record, which knows the time of the last pass only."""
    record = retry_while_unreachable(lambda: find_records(samples, label_field, [run])).get(run)
    if record is None:  # the run stopped before there was a record
        return
    updated = replace(
        record,
        seconds=round(seconds, 3),
        interrupted=interrupted,
        error=None,
        counts=model.counts,
        instances=model.instances,
    )
    retry_while_unreachable(lambda: register_part(root_dataset(samples), updated, earlier))
