"""Segment a folder or a dataset: what the command line, the demo and the App's operator call."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.utils as fou
from fiftyone import ViewField as F

from promerge_fo.dataset.labels import require_images
from promerge_fo.dataset.model import ProMergeModel
from promerge_fo.dataset.progress import steps_of

__all__ = ["Report", "open_source", "segment_dataset"]

IMAGE_SUFFIXES = {
    ".bmp", ".gif", ".jpeg", ".jpg", ".jp2", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp",
}  # fmt: skip


@dataclass(frozen=True)
class Report:
    """What a run did.

    Attributes:
        counts: images by status.
        skipped: images that had masks of the very same settings.
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
    dataset, present = None, set()
    if fo.dataset_exists(name):
        dataset = fo.load_dataset(name)
        present = set(dataset.values("filepath"))
        if not any(Path(path).is_relative_to(folder) for path in present):
            if by_name:
                return dataset
            raise ValueError(
                f"there is a dataset {name!r} already, of other images than those in {folder}; "
                f"choose another name with --name, or segment it by its name"
            )
    paths = sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ValueError(
            f"{folder} holds no images (looked for {', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    if dataset is None:
        dataset = fo.Dataset(name, persistent=True)
    paths = [path for path in paths if path not in present]
    dataset.add_samples([fo.Sample(filepath=path) for path in paths], progress=False)
    return dataset


def segment_dataset(
    samples: Any,
    model: ProMergeModel,
    label_field: str = "promerge",
    *,
    batch_size: int = 8,
    output_dir: str | None = None,
    limit: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int], Any] | None = None,
) -> Report:
    """Give the images of a dataset or view instance masks.

    Images whose field holds masks of the same run hash are skipped, except failed ones.

    Args:
        samples: a ``fiftyone.Dataset`` or view of images.
        model: what ``load_model`` gives.
        label_field: the field for the masks.
        batch_size: images that a GPU encodes together.
        output_dir: where masks are kept as PNGs; in the database by default.
        limit: only the first so many images.
        overwrite: redo images that are done.
        progress: given the number of images, makes a bar with ``update(n)`` and ``close()``.

    Returns:
        What the run did; after Ctrl-C too, when what was done is kept.

    Raises:
        ValueError: video, 3D or grouped samples, with what to select instead.
    """
    require_images(samples)
    view = samples if limit is None else samples.limit(limit)
    total = len(view)
    if not overwrite and samples.has_field(label_field):
        done = (F(f"{label_field}.run") == model.pipeline.hash) & (
            F(f"{label_field}.status") != "failed"
        )
        view = view.match(~done)
    left = len(view)
    if left == 0:
        return Report(skipped=total)
    bar = progress(left) if progress is not None else None
    interrupted = False
    started = time.perf_counter()
    try:
        # FiftyOne shows its own bar beside a callback, unless it is told not to show any
        shown = fo.config.show_progress_bars and bar is None
        with fou.SetAttributes(fo.config, show_progress_bars=shown):
            view.apply_model(
                model,
                label_field=label_field,
                batch_size=batch_size,
                # Threads of the pipeline read the images; but frames and patches want a worker.
                num_workers=int(view._is_generated),
                output_dir=output_dir,
                progress=None if bar is None else steps_of(lambda _: bar),
            )
    except KeyboardInterrupt:
        interrupted = True
    finally:
        if bar is not None:
            bar.close()
    counts = model.counts
    return Report(
        counts,
        total - left,
        model.instances,
        time.perf_counter() - started,
        interrupted,
    )
