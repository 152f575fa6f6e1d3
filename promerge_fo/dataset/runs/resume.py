"""Which images a run has finished, failed on or left to do; the labels themselves say so."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from fiftyone import ViewField as F

__all__ = [
    "Failure",
    "RunStart",
    "failures",
    "finished",
    "images_to_do",
    "start_run",
    "unfinished",
]

logger = logging.getLogger("fiftyone.promerge")


class Failure(NamedTuple):
    """An image that a run could not segment.

    Attributes:
        path: the path of the image file.
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
        view: the images that the run covers.
        total: the number of these images.
        finished: the number of them that were finished before, by status.
    """

    view: Any
    total: int
    finished: Counter[str]

    @property
    def left(self) -> int:
        """The number of images that are still to do."""
        return self.total - self.finished.total()


def start_run(
    samples: Any,
    label_field: str,
    run: str,
    *,
    limit: int | None,
    overwrite: bool,
    retry_failed: bool,
) -> RunStart:
    """Choose the images of a run, and count those that are finished.

    A warning names the labels of other runs that are about to be replaced. With ``overwrite`` or
    ``retry_failed``, images that were finished count as unfinished from now on, also if the run is
    stopped and started again. They keep their labels until the run replaces them.

    Args:
        samples: a dataset or a view of images.
        label_field: the field for the masks.
        run: the run hash.
        limit: use only this number of images, the first ones; None uses all.
        overwrite: redo all images that the run has finished.
        retry_failed: redo the images that failed in this run, and cover no other images.

    Raises:
        ValueError: both ``overwrite`` and ``retry_failed`` are given.
    """
    if overwrite and retry_failed:
        raise ValueError(
            "both overwrite and retry_failed are given; give overwrite to redo all images, or "
            "retry_failed to redo only those that failed"
        )
    view = samples if limit is None else samples.limit(limit)
    _warn_of_other_runs(view, label_field, run)
    redo = _images_of_run(view, label_field, run, failed_only=retry_failed)
    if retry_failed:
        view = view.select([] if redo is None else redo.values("id"))
    if redo is not None and (overwrite or retry_failed):
        redo.set_values(f"{label_field}.run", [None] * len(redo))
    return RunStart(view, len(view), finished(view, label_field, run))


def images_to_do(
    samples: Any,
    label_field: str,
    run: str,
    *,
    limit: int | None,
    overwrite: bool,
    retry_failed: bool,
) -> Any:
    """A view of the images that :func:`start_run` with these arguments leaves to do."""
    view = samples if limit is None else samples.limit(limit)
    if retry_failed:
        failed = _images_of_run(view, label_field, run, failed_only=True)
        return view.select([]) if failed is None else failed
    return view.view() if overwrite else unfinished(view, label_field, run)


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


def finished(samples: Any, label_field: str, run: str) -> Counter[str]:
    """The number of images that a run has finished, by status.

    Args:
        samples: a dataset or a view of images.
        label_field: the field with the masks.
        run: the run hash.
    """
    images = _images_of_run(samples, label_field, run)
    return Counter() if images is None else Counter(images.count_values(f"{label_field}.status"))


def failures(samples: Any, label_field: str, run: str) -> Iterator[Failure]:
    """The images that a run could not segment, with the reasons.

    Args:
        samples: a dataset or a view of images.
        label_field: the field with the masks.
        run: the run hash.
    """
    images = _images_of_run(samples, label_field, run, failed_only=True)
    if images is not None:
        for path, reason in zip(*images.values(["filepath", f"{label_field}.error"]), strict=True):
            yield Failure(path, reason or "unknown")


def _images_of_run(
    samples: Any, label_field: str, run: str, *, failed_only: bool = False
) -> Any | None:
    """A view of the images that have labels of a run; None if the field was never filled."""
    if not samples.has_field(f"{label_field}.run"):
        return None
    condition = F(f"{label_field}.run") == run
    if failed_only:
        condition &= F(f"{label_field}.status") == "failed"
    return samples.match(condition)


def _warn_of_other_runs(samples: Any, label_field: str, run: str) -> None:
    """Log a warning if the field holds labels of other runs, which this run will replace."""
    others = _count_other_runs(samples, label_field, run)
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
