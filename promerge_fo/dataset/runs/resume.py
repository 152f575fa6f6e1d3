"""Which images a run has finished, failed on or left to do; the labels themselves say so."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import fiftyone.core.media as fom
from fiftyone import ViewField as F
from pymongo import UpdateOne

from promerge_fo.dataset.database import aggregate, bulk_update, is_generated, set_all
from promerge_fo.dataset.runs.frames import frame_counts, frame_failures
from promerge_fo.dataset.samples import all_images, settled, videos_of

__all__ = [
    "Failure",
    "RunStart",
    "failures",
    "finished",
    "images_of_run",
    "images_to_do",
    "redo_lost_masks",
    "require_one_choice",
    "start_run",
    "unfinished",
]

logger = logging.getLogger("fiftyone.promerge")


class Failure(NamedTuple):
    """An image that a run could not segment.

    Attributes:
        path: the path of the image file, or of the video file with the number of the frame.
        reason: what went wrong.
    """

    path: str
    reason: str

    def __str__(self) -> str:
        named = self.reason.startswith(self.path)
        return self.reason if named else f"{self.path}: {self.reason}"


class RunStart(NamedTuple):
    """The images of a run, counted before it starts.

    Attributes:
        parts: the images that the run covers, as :func:`~promerge_fo.dataset.samples.settled`
            returns them.
        total: the number of these images.
        finished: the number of them that were finished before, by status.
    """

    parts: list[Any]
    total: int
    finished: Counter[str]

    @property
    def left(self) -> int:
        """The number of images that are still to do."""
        return self.total - self.finished.total()


def start_run(
    parts: Sequence[Any], label_field: str, run: str, *, overwrite: bool, retry_failed: bool
) -> RunStart:
    """Choose the images of a run, and count those that are finished.

    A warning names the labels of other runs that are about to be replaced. With ``overwrite`` or
    ``retry_failed``, images that were finished count as unfinished from now on, also if the run is
    stopped and started again. They keep their labels until the run replaces them.

    Args:
        parts: images, as :func:`~promerge_fo.dataset.samples.settled` returns them.
        label_field: the field for the masks.
        run: the run hash.
        overwrite: redo all images that the run has finished.
        retry_failed: redo the images that failed in this run, and cover no other images.

    Raises:
        ValueError: both ``overwrite`` and ``retry_failed`` are given.
    """
    require_one_choice(overwrite, retry_failed)
    _warn_of_other_runs(parts, label_field, run)
    if retry_failed:
        failed = images_of_run(parts, label_field, run, failed_only=True)
        parts = [part for each in failed for part in settled(each)]
    if overwrite or retry_failed:
        for redo in images_of_run(parts, label_field, run):
            if is_generated(redo):  # set_values passes values on to their source
                redo.set_values(f"{label_field}.run", [None] * len(redo))
            else:
                set_all(redo, f"{label_field}.run", None)
    total = sum(map(len, parts))
    return RunStart(list(parts), total, finished(parts, label_field, run))


def require_one_choice(overwrite: bool, retry_failed: bool) -> None:
    """Refuse both together.

    Raises:
        ValueError: both are given.
    """
    if overwrite and retry_failed:
        raise ValueError(
            "both overwrite and retry_failed are given; give overwrite to redo all images, or "
            "retry_failed to redo only those that failed"
        )


def images_to_do(
    parts: Sequence[Any], label_field: str, run: str, *, overwrite: bool, retry_failed: bool
) -> list[Any]:
    """Views of the images that :func:`start_run` with these arguments leaves to do."""
    if retry_failed:
        return images_of_run(parts, label_field, run, failed_only=True)
    return list(parts) if overwrite else [unfinished(part, label_field, run) for part in parts]


def redo_lost_masks(parts: Sequence[Any], label_field: str, run: str) -> None:
    """Have images whose mask files are gone count as unfinished, as :func:`start_run` does it.

    Args:
        parts: images, as :func:`~promerge_fo.dataset.samples.settled` returns them.
        label_field: the field with the masks.
        run: the run hash.
    """
    paths = f"{label_field}.detections.mask_path"
    for images in images_of_run(parts, label_field, run):
        if is_generated(images):
            continue
        stages: list[dict[str, Any]] = [
            {"$match": {paths: {"$type": "string"}}},
            {"$project": {"paths": f"${paths}"}},
        ]
        lost: dict[Any, str] = {}
        for each in aggregate(images, stages):
            gone = (path for path in each["paths"] if path and not os.path.exists(path))  # noqa: PTH110
            path = next(gone, None)
            if path is not None:
                lost[each["_id"]] = path
        if lost:
            logger.warning(
                "promerge: mask files of %d images are gone, such as %s; these images are done "
                "again",
                len(lost), next(iter(lost.values())),
            )  # fmt: skip
            again = {"$set": {f"{label_field}.run": None}}
            bulk_update(images, [UpdateOne({"_id": each}, again) for each in lost])


def unfinished(samples: Any, label_field: str, run: str) -> Any:
    """A view of the images that a run has not finished; an image that failed is finished.

    Args:
        samples: a dataset or a view of images.
        label_field: the field with the masks.
        run: the run hash.
    """
    if not samples.has_field(f"{label_field}.run"):
        return samples.view()
    return samples.match(F(f"{label_field}.run") != run)


def finished(parts: Sequence[Any], label_field: str, run: str) -> Counter[str]:
    """The number of images, or frames of videos, that a run has finished, by status.

    Args:
        parts: datasets or views of images, or of videos.
        label_field: the field with the masks.
        run: the run hash.
    """
    counts = Counter[str]()
    for part in parts:
        if part.media_type == fom.VIDEO:
            for of_video in frame_counts(part, label_field, run).values():
                counts.update(of_video)
    for images in images_of_run(parts, label_field, run):
        counts.update(images.count_values(f"{label_field}.status"))
    return counts


def failures(samples: Any, label_field: str, run: str) -> Iterator[Failure]:
    """The images, or frames of videos, that a run could not segment, with the reasons.

    Args:
        samples: a dataset or a view of images, or of videos; or a dataset of groups of these.
        label_field: the field with the masks.
        run: the run hash.
    """
    if samples.media_type == fom.GROUP:
        for part in filter(None, (all_images(samples), videos_of(samples))):
            yield from failures(part, label_field, run)
        return
    if samples.media_type == fom.VIDEO:
        for path, reason in frame_failures(samples, label_field, run):
            yield Failure(path, reason)
        return
    for images in images_of_run([samples], label_field, run, failed_only=True):
        for path, reason in zip(*images.values(["filepath", f"{label_field}.error"]), strict=True):
            yield Failure(path, reason or "unknown")


def images_of_run(
    parts: Sequence[Any], label_field: str, run: str, *, failed_only: bool = False
) -> list[Any]:
    """Views of the images that have labels of a run; none if the field was never filled."""
    condition = F(f"{label_field}.run") == run
    if failed_only:
        condition &= F(f"{label_field}.status") == "failed"
    return [part.match(condition) for part in parts if part.has_field(f"{label_field}.run")]


def _warn_of_other_runs(parts: Sequence[Any], label_field: str, run: str) -> None:
    """Log a warning if the field holds labels of other runs, which this run will replace."""
    others = Counter[str]()
    for part in parts:
        others.update(_count_other_runs(part, label_field, run))
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


def _count_other_runs(samples: Any, label_field: str, run: str) -> dict[str, int]:
    """The number of images with labels of other runs, by run hash; "" if no run made them."""
    if not samples.has_field(label_field):
        return {}
    filled = samples.exists(label_field)
    if not samples.has_field(f"{label_field}.run"):
        count = len(filled)
        return {"": count} if count else {}
    counts = filled.count_values(f"{label_field}.run")
    return {other or "": n for other, n in counts.items() if other != run}
