"""Segment a folder or a dataset: what the command line, the demo and the App's operator call."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.utils as fou

from promerge_fo.dataset.labels import declare_field, require_images
from promerge_fo.dataset.model import OutOfStepError, ProMergeModel
from promerge_fo.dataset.patience import AWAY, patiently, wait_for_database
from promerge_fo.dataset.progress import steps_of
from promerge_fo.dataset.resume import finished, images_of_other_runs, outstanding, start_anew
from promerge_fo.dataset.runs import find_records, register
from promerge_fo.dataset.status import Heartbeat

__all__ = [
    "Report",
    "find_dataset",
    "open_images",
    "open_source",
    "segment_dataset",
    "warn_of_other_runs",
]

logger = logging.getLogger("fiftyone.promerge")

IMAGE_SUFFIXES = {
    ".bmp", ".gif", ".jpeg", ".jpg", ".jp2", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp",
}  # fmt: skip


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


def open_source(source: str, name: str | None = None) -> Any:
    """The dataset that a name or a folder stands for.

    Args:
        source: the name of a dataset, or a folder, which becomes a persistent dataset; a folder
            whose dataset is there already adds its new images to it. What is both is the folder
            if the dataset has images of it, else the dataset.
        name: of the dataset made of a folder; the folder's name by default.

    Returns:
        A ``fiftyone.Dataset``.

    Raises:
        ValueError: neither a dataset nor a folder with images.
    """
    folder = Path(source).expanduser().resolve()
    by_name = name is None and fo.dataset_exists(source)
    if not folder.is_dir():
        if by_name:
            return fo.load_dataset(source)
        known = ", ".join(fo.list_datasets()[:20]) or "none"
        raise ValueError(
            f"{source!r} is neither a folder nor a dataset; give a folder of images, or one of "
            f"the datasets: {known}"
        )
    name = source if by_name else name or folder.name
    present = _images_of(name)
    if present is not None and not any(Path(path).is_relative_to(folder) for path in present):
        if by_name:
            return fo.load_dataset(name)
        raise _other_images(name, folder)
    paths = sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ValueError(
            f"{folder} holds no images (looked for {', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    return _with_images(name, paths, present)


def open_images(files: Sequence[str], name: str | None = None) -> Any:
    """A view of some image files, in a persistent dataset that has them or gets them.

    Args:
        files: paths.
        name: of the dataset; by default, that of the folder that all of them share.

    Returns:
        A ``fiftyone.DatasetView`` of these images, in this order.

    Raises:
        ValueError: a path is no file, or the dataset is of other images.
    """
    for file in files:
        if not Path(file).expanduser().is_file():
            raise ValueError(
                f"{file!r} is no file; give image files, or else one folder or one dataset"
            )
    paths = list(dict.fromkeys(str(Path(file).expanduser().resolve()) for file in files))
    folder = Path(os.path.commonpath([Path(path).parent for path in paths]))
    name = name or folder.name or "images"
    present = _images_of(name)
    if present is not None and not any(Path(path).is_relative_to(folder) for path in present):
        raise _other_images(name, folder)
    return _with_images(name, paths, present).select_by("filepath", paths, ordered=True)


def _images_of(name: str) -> set[str] | None:
    """The files of a dataset, or None where there is none of this name."""
    if not fo.dataset_exists(name):
        return None
    return set(fo.load_dataset(name).values("filepath"))


def _other_images(name: str, folder: Path) -> ValueError:
    return ValueError(
        f"there is a dataset {name!r} already, of other images than those in {folder}; "
        f"choose another name with --name, or segment it by its name"
    )


def _with_images(name: str, paths: Iterable[str], present: set[str] | None) -> Any:
    """The dataset with these images; None is present where it is to be made."""
    dataset = fo.Dataset(name, persistent=True) if present is None else fo.load_dataset(name)
    new = (fo.Sample(filepath=path) for path in paths if path not in (present or ()))
    dataset.add_samples(new, progress=False)
    return dataset


def find_dataset(source: str) -> Any:
    """The dataset that :func:`open_source` has made of a folder, or has opened by its name.

    Args:
        source: the name of a dataset, or a folder.

    Raises:
        ValueError: there is none.
    """
    for name in (source, Path(source).expanduser().resolve().name):
        if fo.dataset_exists(name):
            return fo.load_dataset(name)
    known = ", ".join(fo.list_datasets()[:20]) or "none"
    raise ValueError(f"there is no dataset {source!r}; the datasets are: {known}")


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
