"""What is done, what has failed and what is left of a run: asked of the labels themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from fiftyone import ViewField as F

__all__ = ["Failure", "failures", "finished", "images_of_other_runs", "outstanding", "start_anew"]


class Failure(NamedTuple):
    """An image that a run could not segment.

    Attributes:
        path: of its file.
        reason: what went wrong.
    """

    path: str
    reason: str


def outstanding(samples: Any, label_field: str, run: str) -> Any:
    """A view of the images that a run has not finished; those that failed are finished.

    Args:
        samples: a dataset or a view of images.
        label_field: the field with the masks.
        run: the run hash.
    """
    if not samples.has_field(f"{label_field}.run"):
        return samples.view()
    return samples.match(F(f"{label_field}.run") != run)


def finished(samples: Any, label_field: str, run: str) -> Counter[str]:
    """How many images a run has finished, by status.

    Args:
        samples: a dataset or a view of images.
        label_field: the field with the masks.
        run: the run hash.
    """
    if not samples.has_field(f"{label_field}.run"):
        return Counter()
    made = samples.match(F(f"{label_field}.run") == run)
    return Counter(made.count_values(f"{label_field}.status"))


def start_anew(
    samples: Any, label_field: str, run: str, *, overwrite: bool, retry_failed: bool
) -> Any:
    """Let a run do finished images again, from here on and after a stop, too.

    Their labels stay until there are others, but are the run's no more.

    Args:
        samples: a dataset or a view of images.
        label_field: the field with the masks.
        run: the run hash.
        overwrite: all of its images.
        retry_failed: those of its images that have failed, and no other ones at all.

    Returns:
        A view of the images that the run is to look at.

    Raises:
        ValueError: both are asked for.
    """
    if overwrite and retry_failed:
        raise ValueError("give either overwrite or retry_failed: the first one does all again")
    made = samples.has_field(f"{label_field}.run")
    if retry_failed:
        samples = samples.select(_failed(samples, label_field, run).values("id") if made else [])
    if made and (overwrite or retry_failed):
        again = samples.match(F(f"{label_field}.run") == run)
        again.set_values(f"{label_field}.run", [None] * len(again))
    return samples


def failures(samples: Any, label_field: str, run: str) -> Iterator[Failure]:
    """The images that a run could not segment, with the reasons.

    Args:
        samples: a dataset or a view of images.
        label_field: the field with the masks.
        run: the run hash.
    """
    if not samples.has_field(f"{label_field}.run"):
        return
    failed = _failed(samples, label_field, run)
    paths, reasons = failed.values(["filepath", f"{label_field}.error"])
    for path, reason in zip(paths, reasons, strict=True):
        yield Failure(path, reason or "unknown")


def images_of_other_runs(samples: Any, label_field: str, run: str) -> dict[str, int]:
    """How many images have labels of other settings, by their run hash; "" for those of no run.

    Args:
        samples: a dataset or a view of images.
        label_field: the field with the masks.
        run: the run hash that does not count.
    """
    if not samples.has_field(label_field):
        return {}
    filled = samples.exists(label_field)
    if not samples.has_field(f"{label_field}.run"):
        count = len(filled)
        return {"": count} if count else {}
    counts = filled.count_values(f"{label_field}.run")
    return {other or "": n for other, n in counts.items() if other != run}


def _failed(samples: Any, label_field: str, run: str) -> Any:
    failed = F(f"{label_field}.status") == "failed"
    return samples.match((F(f"{label_field}.run") == run) & failed)
