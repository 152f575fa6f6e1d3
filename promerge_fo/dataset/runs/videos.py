"""Segment the frames of videos, as FiftyOne applies models of images to them."""

from __future__ import annotations

import logging
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import fiftyone.core.utils as fou

from promerge_fo.dataset.database import (
    FRAMES,
    frames_of,
    is_generated,
    root_dataset,
    update_frames,
)
from promerge_fo.dataset.decided import DecisionsLostError
from promerge_fo.dataset.labels import declare_field
from promerge_fo.dataset.provenance import find_records
from promerge_fo.dataset.runs.calibrating import calibrate_once
from promerge_fo.dataset.runs.frames import frame_counts, frame_totals, record_frame_failures
from promerge_fo.dataset.runs.model import ProMergeModel
from promerge_fo.dataset.runs.passes import Report, mask_folder_of, one_pass, update_record
from promerge_fo.dataset.runs.resume import require_one_choice
from promerge_fo.dataset.runs.status import Heartbeat
from promerge_fo.dataset.samples import videos_of
from promerge_fo.diagnosis import diagnose
from promerge_fo.progress import ShowProgress, progress_bar

__all__ = ["segment_videos"]

logger = logging.getLogger("fiftyone.promerge")


def segment_videos(
    samples: Any,
    model: ProMergeModel,
    label_field: str,
    output_dir: str | None,
    *,
    batch_size: int,
    limit: int | None,
    overwrite: bool,
    retry_failed: bool,
    calibrate: bool,
    drop_decisions: bool,
    progress: ShowProgress,
) -> Report:
    """Give the frames of videos instance masks, in the field ``frames.<label_field>``.

    Arguments and errors are those of :func:`~promerge_fo.dataset.segment_dataset`.
    """
    label_field = label_field.removeprefix(FRAMES)
    _require_possible(samples, model)
    require_one_choice(overwrite, retry_failed)
    if calibrate:
        calibrate_once(samples, model, progress=progress)
    else:
        model.is_left_uncalibrated = True
    run, root = model.hash, root_dataset(samples)
    mask_folder = mask_folder_of(output_dir, run, label_field)
    ids = (samples if limit is None else samples.limit(limit)).values("id")
    videos = videos_of(root).select(ids)  # whatever the view filters, and as it is now
    _require_decisions_kept(videos, ids, label_field, run, overwrite, drop_decisions)
    declare_field(videos, label_field, model.config.has_proposals)
    if overwrite or retry_failed:
        again: dict[str, Any] = {f"{label_field}.run": run}
        if retry_failed:
            again[f"{label_field}.status"] = "failed"
            frames = frames_of(videos, ids, again)
            ids = sorted({str(frame["_sample_id"]) for frame in frames})
            videos = videos.select(ids)
        update_frames(videos, ids, again, {"$set": {f"{label_field}.run": None}})
    totals = frame_totals(videos)
    done = frame_counts(videos, label_field, run)
    total = sum(max(n, done[each].total()) for each, n in totals.items())
    before = _together(done)
    left = total - before.total()
    if left == 0:
        return Report(skipped=total, diagnosis=diagnose(before), unit="frames")
    counts, instances, passes, interrupted = Counter[str](), 0, 0, False
    started = time.perf_counter()
    earlier = find_records(root, label_field, [run]).get(run)

    def count_frames() -> tuple[int, int]:
        so_far = counts + Counter(model.counts)
        return so_far.total(), before["failed"] + so_far["failed"]

    model.counts = {}
    heartbeat = Heartbeat(
        root, label_field, run, "local", total, total - left, count_frames, "frames"
    )
    with (
        fou.SetAttributes(model, fills=label_field, mask_folder=mask_folder),
        progress_bar(progress, left, "frames") as bar,
        heartbeat,
    ):
        while left and not interrupted:
            unfinished = [each for each, n in totals.items() if done[each].total() < n]
            view = videos.select(unfinished)
            ended = one_pass(view, model, label_field, batch_size, bar, heartbeat)
            interrupted, passes = ended.is_interrupted, passes + 1
            instances += model.instances
            model.counts, model.instances = {}, 0
            left_before = left
            done = frame_counts(videos, label_field, run)
            left = sum(max(0, n - done[each].total()) for each, n in totals.items())
            counts = _together(done) - before
            if not (ended.is_whole or interrupted):
                ended.require_no_problem()
            elif not interrupted and left == left_before:
                record_frame_failures(videos, label_field, run, totals, ended.reasons)
                counts = _together(frame_counts(videos, label_field, run)) - before
                break
    model.counts, model.instances = dict(counts), instances
    seconds = time.perf_counter() - started
    if passes > 1:
        update_record(root, label_field, run, model, seconds, interrupted, earlier)
    return Report(
        dict(counts), before.total(), instances, seconds, interrupted, model.diagnosis,
        unit="frames",
    )  # fmt: skip


def _together(counts: Mapping[str, Counter[str]]) -> Counter[str]:
    return sum(counts.values(), Counter[str]())


def _require_possible(samples: Any, model: ProMergeModel) -> None:
    """Refuse what cannot be done with videos."""
    if is_generated(samples):
        raise ValueError(
            "these samples are clips of videos; give the videos themselves: samples.dataset"
        )
    if model.pipeline.embed:
        raise ValueError(
            "masks of frames of videos have no embeddings; load the model without embed, or make "
            "a dataset of the frames: samples.to_frames(sample_frames=True).clone()"
        )
    if shutil.which("ffmpeg") is None:
        raise RuntimeError(
            "FiftyOne reads the frames of videos with ffmpeg, which is not installed; install it "
            "(apt-get install ffmpeg, brew install ffmpeg, winget install ffmpeg), and run the "
            "same again"
        )


def _require_decisions_kept(
    videos: Any, ids: list[str], label_field: str, run: str, overwrite: bool, drop: bool
) -> None:
    """Refuse to replace labels that people have worked on; warn of those of other runs.

    Raises:
        DecisionsLostError: there are some, and they may not be lost.
    """
    replaced: dict[str, Any] = {label_field: {"$ne": None}}
    if not overwrite:
        replaced[f"{label_field}.run"] = {"$ne": run}
    marks = [
        {"review": {"$ne": None}},
        {"named_by": {"$ne": None}},
        {"tags.0": {"$exists": True}},
    ]
    worked_on = {f"{label_field}.detections": {"$elemMatch": {"$or": marks}}}
    count = sum(1 for _ in frames_of(videos, ids, {**replaced, **worked_on}))
    if count and not drop:
        raise DecisionsLostError(
            f"people have worked on masks of '{label_field}' in {count:,} of these frames, which "
            "would be replaced; decisions, names and tags would be lost. Nothing was changed. Give "
            "another field, or drop_decisions=True (--drop-decisions; a box in the App's form): "
            "they are then gone"
        )
    others = {**replaced, f"{label_field}.run": {"$ne": run}}
    if count := sum(1 for _ in frames_of(videos, ids, others)):
        logger.warning(
            "the field %r holds labels of other settings (frames: %d); run %s replaces them. To "
            "keep both, give another field",
            f"{FRAMES}{label_field}", count, run,
        )  # fmt: skip
