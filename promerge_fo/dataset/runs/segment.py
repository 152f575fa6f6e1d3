"""Segment a dataset: called by the command line, the demo and the App's operator."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import fiftyone.core.media as fom
import fiftyone.core.utils as fou

from promerge_fo.dataset.classes.embeddings import complete_embeddings, require_comparable
from promerge_fo.dataset.database import is_generated, root_dataset
from promerge_fo.dataset.decided import Kept
from promerge_fo.dataset.labels import declare_field, to_detections
from promerge_fo.dataset.provenance import find_records
from promerge_fo.dataset.runs.calibrating import calibrate_once
from promerge_fo.dataset.runs.model import ProMergeModel
from promerge_fo.dataset.runs.passes import Report, mask_folder_of, one_pass, update_record
from promerge_fo.dataset.runs.resume import (
    finished,
    images_of_run,
    images_to_do,
    redo_lost_masks,
    start_run,
    unfinished,
)
from promerge_fo.dataset.runs.status import Heartbeat
from promerge_fo.dataset.runs.unstored import record_failures
from promerge_fo.dataset.runs.videos import segment_videos
from promerge_fo.dataset.samples import images_of, settled
from promerge_fo.diagnosis import diagnose
from promerge_fo.pipeline import Pipeline
from promerge_fo.progress import Bar, ShowProgress, progress_bar

__all__ = ["segment_dataset"]


def segment_dataset(
    samples: Any,
    model: ProMergeModel,
    label_field: str = "promerge",
    *,
    group_slice: str | None = None,
    batch_size: int = 8,
    output_dir: str | None = None,
    limit: int | None = None,
    overwrite: bool = False,
    retry_failed: bool = False,
    calibrate: bool = True,
    drop_decisions: bool = False,
    progress: ShowProgress = None,
) -> Report:
    """Give the images of a dataset or view, or the frames of its videos, instance masks.

    Images whose field already holds masks of the same run hash are skipped, and so are images that
    failed with the same settings; but those whose mask files are gone are done again. Whatever
    goes wrong with an image, also while its labels are stored, is recorded with it and costs no
    other image anything. If the database becomes unreachable, the run waits for it, and redoes the
    images whose labels were lost.

    What people did to labels that the run replaces is kept: a new mask that nearly equals one that
    was accepted, rejected, named, tagged or painted (IoU over 0.9) takes its place. Images with
    such labels are segmented once before the run begins, to see whether anything would be lost.

    Of videos, the masks are in the field ``frames.<label_field>``, and frames are counted. Frames
    that this run has done are not segmented again; the videos that have others are read again. A
    frame that cannot be read is recorded as failed; of a video that cannot be read, that is its
    first. Labels that people worked on are not compared: the run is refused where it would replace
    some. ``retry_failed`` also does what else is not done of the same videos.

    A model that was loaded with ``embed`` also gives the masks embeddings, in the same pass; images
    that were done before without get theirs afterwards.

    Args:
        samples: a ``fiftyone.Dataset`` or view of images, or of videos.
        model: the model, from :func:`promerge_fo.load_model`.
        label_field: the field for the masks.
        group_slice: of groups, the name of the slice to segment; None takes the active one.
        batch_size: the number of images that a GPU encodes together.
        output_dir: a folder for the masks as PNG files: those of a run lie in
            ``<output_dir>/<run hash>/<field>``, so several runs may share it. Labels have their
            absolute paths. By default the masks are stored in the database.
        limit: use only this number of images, or videos, the first ones.
        overwrite: redo images that are done.
        retry_failed: redo images that failed, and no others.
        calibrate: first choose thresholds for the model's encoder, if the paper's were not made for
            it (:func:`promerge_fo.calibrate`). The model keeps them. They are measured once for a
            dataset and an encoder; later runs take the same.
        drop_decisions: go on where no new mask equals a label that people worked on. What they did
            is then kept with the record of the run that had made the label;
            :func:`~promerge_fo.dataset.restore_decisions` brings it back.
        progress: whether to show a progress bar (None: as FiftyOne's config says), or a function
            that makes one; see :data:`promerge_fo.progress.ShowProgress`.

    Returns:
        A summary of the run, also if Ctrl-C stopped it; what was done until then is kept.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are 3D scenes, or groups whose slice has
            neither images nor videos; the message says what to select instead.
        ValueError: both ``overwrite`` and ``retry_failed`` are given; or the model embeds, and
            images that this run has done have embeddings that do not compare, or the samples are
            frames of videos, or videos; or the groups have no such slice.
        RuntimeError: the samples are videos, and ffmpeg, which reads them, is not installed.
        promerge_fo.dataset.DecisionsLostError: what people did to labels would be lost. Nothing has
            been changed.
        OSError: the folder for the masks cannot be made.
        pymongo.errors.ConnectionFailure: the database was unreachable for more than ten minutes.
    """
    samples = images_of(samples, group_slice, or_videos=True)
    if samples.media_type == fom.VIDEO:
        return segment_videos(
            samples,
            model,
            label_field,
            output_dir,
            batch_size=batch_size,
            limit=limit,
            overwrite=overwrite,
            retry_failed=retry_failed,
            calibrate=calibrate,
            drop_decisions=drop_decisions,
            progress=progress,
        )
    if model.pipeline.embed and is_generated(samples):
        raise ValueError(
            "embeddings of frames or patches would be lost with their view; load the model without "
            "embed, or make a dataset of them: samples.clone()"
        )
    if calibrate:
        calibrate_once(samples, model, progress=progress)
    else:
        model.is_left_uncalibrated = True
    run = model.hash
    mask_folder = mask_folder_of(output_dir, run, label_field)
    which: dict[str, Any] = {"overwrite": overwrite, "retry_failed": retry_failed}
    parts = settled(samples, limit)
    if model.pipeline.embed and not overwrite:
        source = model.pipeline.encoder.embedding_identity()
        for done in images_of_run(parts, label_field, run):
            require_comparable(done, label_field, source)
    if not retry_failed:
        redo_lost_masks(parts, label_field, run)
    kept = Kept(images_to_do(parts, label_field, run, **which), label_field)
    if kept:
        with progress_bar(progress, len(kept.paths), "images with decisions") as bar:
            kept.check(made_of(model.pipeline, kept.paths, run, bar), drop_decisions)
    if not is_generated(samples):  # before the run: if it is killed, its labels have a run hash
        declare_field(samples, label_field, model.config.has_proposals)
    start = start_run(parts, label_field, run, **which)
    total, before, left = start.total, start.finished, start.left
    if left == 0:
        _embed_rest(start.parts, label_field, model.pipeline, batch_size, progress)
        return Report(skipped=total, diagnosis=diagnose(before))
    counts, instances, passes, interrupted = Counter[str](), 0, 0, False
    started = time.perf_counter()
    earlier = find_records(samples, label_field, [run]).get(run)

    def count_images() -> tuple[int, int]:
        so_far = counts + Counter(model.counts)
        return so_far.total(), before["failed"] + so_far["failed"]

    model.counts = {}
    fills = None if is_generated(samples) else label_field
    heartbeat = Heartbeat(
        root_dataset(samples), label_field, run, "local", total, total - left, count_images
    )
    with (
        fou.SetAttributes(model, kept=kept, fills=fills, mask_folder=mask_folder),
        progress_bar(progress, left) as bar,
        heartbeat,
    ):
        for part in start.parts:
            size, left = batch_size, len(unfinished(part, label_field, run))
            while left and not interrupted:
                view = unfinished(part, label_field, run)
                done = one_pass(view, model, label_field, size, bar, heartbeat)
                interrupted = done.is_interrupted
                passes += 1
                instances += model.instances
                counts.update(model.counts)
                model.counts, model.instances = {}, 0
                if is_generated(part):  # FiftyOne would generate these samples anew
                    done.require_no_problem()
                    break
                if size == 1:  # so a batch that FiftyOne left out is an image
                    record_failures(root_dataset(samples), label_field, run, done.reasons)
                left_before, left = left, len(unfinished(part, label_field, run))
                if not done.is_whole:
                    counts = finished(start.parts, label_field, run) - before
                    done.require_no_problem()
                if done.is_whole and size > 1:
                    size = 1  # what is left cannot be stored, and takes no other along any longer
                elif left == left_before:
                    if done.is_whole:
                        _give_up(part, label_field, run, done.problem)
                    break
            if interrupted:
                break
        if not is_generated(samples):
            # Counted in the database, which may have lost labels when the connection broke.
            counts = finished(start.parts, label_field, run) - before
    model.counts, model.instances = dict(counts), instances
    seconds = time.perf_counter() - started
    if passes > 1:
        update_record(samples, label_field, run, model, seconds, interrupted, earlier)
    if not interrupted:  # what the pass above did not reach
        _embed_rest(start.parts, label_field, model.pipeline, batch_size, False)
    unstored = (
        0 if interrupted or is_generated(samples) else total - before.total() - counts.total()
    )
    return Report(
        dict(counts), before.total(), instances, seconds, interrupted, model.diagnosis, unstored
    )


def _embed_rest(
    parts: Sequence[Any], label_field: str, pipeline: Pipeline, batch_size: int, show: ShowProgress
) -> None:
    """Give masks embeddings that have none, if the pipeline embeds."""
    for part in parts if pipeline.embed else ():
        complete_embeddings(part, label_field, pipeline, batch_size, progress=show)


def _give_up(part: Any, label_field: str, run: str, problem: Exception | None) -> None:
    """Record that the images that are left failed, as nothing stores their labels."""
    reason = problem or "FiftyOne did not store its labels; its log says why"
    left = unfinished(part, label_field, run).values("id")
    record_failures(root_dataset(part), label_field, run, dict.fromkeys(left, reason))


def made_of(
    pipeline: Pipeline, paths: Mapping[str, str], run: str, bar: Bar
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The ids of images, with the labels that a run will make of them, as the database has them.

    ``paths`` has the path of each image, by the id of its sample.
    """
    found = pipeline.run(paths.values(), then=partial(to_detections, run=run))
    for sample_id, detections in zip(paths, found, strict=True):
        yield sample_id, detections.to_dict()["detections"]
        bar.update(1)
