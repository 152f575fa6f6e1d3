"""Export the masks of a field as pseudo-labels: annotation files that detectors train on."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import fiftyone.core.utils as fou
import numpy as np

from promerge_fo.dataset.decided import mend
from promerge_fo.dataset.exchange.categories import Categories, Classes, categories_of
from promerge_fo.dataset.exchange.manifest import describe_source, is_export, write_manifest
from promerge_fo.dataset.exchange.selection import (
    LEFT_OUT,
    Chosen,
    Review,
    Selection,
    Split,
    split_by_tags,
    split_randomly,
)
from promerge_fo.dataset.exchange.writers import (
    IMAGE_MODES,
    CocoFile,
    ExportedImage,
    ImageMode,
    YoloFolder,
    place_image,
    write_yolo_index,
)
from promerge_fo.dataset.faults import Faults
from promerge_fo.dataset.samples import require_detections, whole_images_of
from promerge_fo.dataset.sizes import image_size
from promerge_fo.dataset.stored_labels import read_documents, stored_labels, warn_of_unreadable
from promerge_fo.images import ImageError
from promerge_fo.machine import available_cpus
from promerge_fo.progress import ShowProgress

__all__ = ["export_pseudo_labels"]

_CHUNK = 100  # images whose masks are in memory at once
_CHANGED = ("holes_filled", "parts_left_out")  # what YOLO's polygons cannot show


def export_pseudo_labels(
    samples: Any,
    label_field: str,
    path: str | os.PathLike[str],
    min_area: float = 0.05,
    tags: str | Collection[str] | None = None,
    *,
    min_score: float | None = None,
    review: Review = "not_rejected",
    max_per_image: int | None = None,
    val_fraction: float | None = None,
    seed: int = 0,
    split_tags: Sequence[str] | None = None,
    images: ImageMode = "refer",
    format: Literal["coco", "yolo"] = "coco",
    classes: Classes = None,
    other_class: str | None = None,
    overwrite: bool = False,
    progress: ShowProgress = None,
) -> dict[str, Any]:
    """Write the masks of a field as annotations that detectors train on.

    In COCO's format, a mask is compressed RLE at full resolution (``counts`` as text), with its
    area and tight box, and the confidence as ``score``. The only category is 1, "fg", unless
    ``classes`` are given. ``iscrowd`` is the label's attribute, or 0 if it has none. A label
    without a mask is written with its box and without ``segmentation``. Annotations are numbered
    from 1. So are images, unless every sample has a different number in the field ``coco_id``. File
    names are relative to the folder that contains all images. Images without masks are listed, but
    images that cannot be read are not.

    A label that cannot be used (its box or confidence is no finite number, its box lies outside of
    the image, its mask is broken or lost) is left out, and named in the log, in the manifest and in
    what is returned.

    If ``path`` ends in ``.json``, it is a single annotation file. Otherwise it is a folder::

        path/annotations/instances.json     or train.json and val.json, or one file for each tag
        path/images/...                     only if images are linked or copied
        path/manifest.json

    YOLO's format always needs a folder. A mask becomes one line, a polygon: its holes are filled,
    and its parts are joined by lines one pixel wide. What ultralytics reads has an IoU with the
    filled mask of at least 0.95 from 400 pixels on and 0.85 from 64 on; masks in parts that are too
    many or too far apart for that are left out ("scattered").

    The manifest says what was exported, and from what. It is ``manifest.json`` in the folder, or
    ``NAME.manifest.json`` beside ``NAME.json``. Everything is written as a stream, so memory does
    not grow with the number of masks. The files appear together at the end; if the export fails,
    none of them does.

    Args:
        samples: a dataset or a view.
        label_field: the field with the masks.
        path: the JSON file to write, which is replaced if it exists; or the folder.
        min_area: the smallest mask to write, as a share of the image; 0 writes all.
        tags: write only labels that have at least one of these label tags.
        min_score: the lowest confidence, in [0, 1]; a label without confidence counts as 1.
        review: ``"not_rejected"`` leaves out labels that a reviewer has rejected, ``"accepted"``
            also undecided ones; ``"all"`` ignores reviews.
        max_per_image: of the masks that are left, write at most this many per image, those with the
            highest confidence.
        val_fraction: the share of the images for ``val.json``; the others go to ``train.json``. The
            draw depends on the seed and the names of the images only, so every export of the same
            images is split in the same way.
        seed: the seed of this draw.
        split_tags: sample tags, such as ``["train", "val"]``; each names a split and its file.
            Images that have none of these tags are left out.
        images: "refer" to the images where they are, or "link" (symbolic links) or "copy" them into
            the folder.
        format: "coco" or "yolo".
        classes: names of labels, which become categories in this order; or a file with one name a
            line; or "labels", for all names of the field but "fg", sorted. Labels with other names
            are left out. None makes one category of all labels, whatever their names.
        other_class: the category for labels with other names, last if it is not among ``classes``.
        overwrite: replace a folder that an earlier export made, with everything in it.
        progress: whether to show a progress bar (None: as FiftyOne's config says), or a function
            that makes one; see :data:`promerge_fo.progress.ShowProgress`.

    Returns:
        A dictionary with ``path``; ``image_root``, the folder that file names are relative to;
        ``files``, the paths by split ("instances" if there are no splits, "dataset" for YOLO);
        ``manifest``, its path; ``problems``, a line for each of the first 100 labels that cannot be
        used; ``unlisted_names``, the numbers of labels of no category by name; and the numbers of
        exported ``images`` and ``annotations``, of masks left out as ``untagged``, ``unreviewed``,
        ``unlisted``, ``bad_box``, ``bad_confidence``, ``bad_mask``, ``lost_mask``, ``low_score``,
        ``too_small``, ``beyond_limit`` or ``scattered``, of images left out as ``unreadable`` or
        ``unsplit``, and, for YOLO, of ``holes_filled`` and of small parts of masks that are left
        out (``parts_left_out``).

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images.
        ValueError: the samples are patches, or there are none; the field does not hold detections;
            an option is out of its range; or two options exclude each other.
        FileExistsError: the folder is not empty, and is not an export that may be replaced.
        FileNotFoundError: the file of an image, or that of the classes, is missing.
    """
    samples = whole_images_of(samples)
    require_detections(samples, label_field)
    mend(samples, label_field)
    if len(samples) == 0:
        raise ValueError("there are no samples to export; take another view")
    wanted = None if tags is None else (tags,) if isinstance(tags, str) else tuple(tags)
    selection = Selection(min_area, wanted, min_score, review, max_per_image)
    target = Path(path).expanduser().absolute()
    is_file = target.suffix.lower() == ".json"
    splits = val_fraction is not None or split_tags is not None
    _check_layout(target, is_file, images, format, splits, overwrite)
    categories = categories_of(samples, label_field, classes, other_class)
    paths = samples.values("filepath")
    root = Path(os.path.commonpath({os.path.dirname(path) for path in paths}))  # noqa: PTH120
    split = _split(samples, paths, root, val_fraction, seed, split_tags)
    if format == "yolo" and not splits:
        split = replace(split, names=("train",))
    settings = {
        **selection.settings(),
        "format": format,
        "images": images,
        "val_fraction": val_fraction,
        "seed": None if val_fraction is None else seed,
        "split_tags": None if split_tags is None else list(split_tags),
        "classes": None if classes is None else list(categories.names),
        "other_class": other_class,
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    # beside the target, so that the last step is only a rename
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".promerge-") as scratch:
        whole = Path(scratch, "whole")
        whole.mkdir()
        writers: dict[str, CocoFile | YoloFolder]
        if format == "yolo":
            writers = {name: YoloFolder(whole, name, categories, images) for name in split.names}
            files = {"dataset": "dataset.yaml"}
            write_yolo_index(whole / "dataset.yaml", split.names, categories)
        else:
            place = "{}" if is_file else "annotations/{}.json"
            names = [target.name] if is_file else split.names
            files = dict(zip(split.names, map(place.format, names), strict=True))
            writers = {name: CocoFile(whole / file, categories) for name, file in files.items()}
        folder = whole / "images" if images != "refer" and format == "coco" else None
        export = _Export(
            label_field, selection, categories, split, root, folder, images, list(writers.values())
        )
        export.run(samples, progress)
        descriptions = {
            f"labels/{name}" if format == "yolo" else files[name]: writer.describe()
            for name, writer in writers.items()
        }
        image_root = root if images == "refer" else target / "images"
        content = {
            **describe_source(samples, label_field, export.runs),
            "settings": settings,
            "image_root": str(image_root),
            "counts": dict(export.counts),
            "unlisted_names": dict(export.unlisted.most_common()),
            "problems": export.faults.problems,
            "files": descriptions,
        }
        write_manifest(whole / "manifest.json", content)
        if is_file:
            manifest = target.with_suffix(".manifest.json")
            # removed first, so that an old manifest never stands beside the new file
            manifest.unlink(missing_ok=True)
            (whole / target.name).replace(target)
            (whole / "manifest.json").replace(manifest)
        else:
            manifest = target / "manifest.json"
            _put_in_place(whole, target, Path(scratch, "old"))
    return {
        "path": str(target),
        "image_root": str(image_root),
        "files": {name: str(target if is_file else target / file) for name, file in files.items()},
        "manifest": str(manifest),
        "problems": export.faults.problems,
        "unlisted_names": dict(export.unlisted.most_common()),
        **export.counts,
    }


def _put_in_place(whole: Path, target: Path, old: Path) -> None:
    """Move a folder to its target; what is there is moved away first, and back if that fails."""
    if not target.exists():
        whole.rename(target)
        return
    target.rename(old)
    try:
        whole.rename(target)
    except BaseException:
        old.rename(target)
        raise


def _check_layout(
    target: Path,
    is_file: bool,
    images: str,
    format: str,
    splits: bool,
    overwrite: bool,
) -> None:
    """Check the target and the options for it, before anything is written."""
    if images not in IMAGE_MODES:
        known = ", ".join(map(repr, IMAGE_MODES))
        raise ValueError(f"images is {images!r}, but must be one of {known}")
    if format not in ("coco", "yolo"):
        raise ValueError(f"format is {format!r}, but must be 'coco' or 'yolo'")
    if format == "yolo" and images == "refer":
        raise ValueError(
            "images is 'refer', but YOLO looks for labels beside the images; give images='link' "
            "or images='copy'"
        )
    if is_file and (splits or images != "refer" or format == "yolo"):
        raise ValueError(
            f"{target} is one file; for splits, images or YOLO's format, give a folder: a path "
            "that does not end in .json"
        )
    if is_file and target.is_dir():
        raise FileExistsError(f"{target} is a folder; give another path")
    if is_file or not target.exists():
        return
    if not target.is_dir():
        raise FileExistsError(f"{target} is a file; give a folder, or a path that ends in .json")
    if any(target.iterdir()) and not (overwrite and is_export(target)):
        advice = (
            "overwrite=True (--overwrite) replaces it, with everything in it"
            if is_export(target)
            else "give another, or an empty one"
        )
        raise FileExistsError(f"the folder {target} is not empty; {advice}")


def _split(
    samples: Any,
    paths: Sequence[str],
    root: Path,
    val_fraction: float | None,
    seed: int,
    tags: Sequence[str] | None,
) -> Split:
    """The split of each image; without a fraction or tags, all images are in "instances"."""
    if val_fraction is not None and tags is not None:
        raise ValueError("give either val_fraction or split_tags, not both")
    if val_fraction is not None:
        return split_randomly([_name(path, root) for path in paths], val_fraction, seed)
    if tags is not None:
        return split_by_tags(paths, samples.values("tags"), tags)
    return Split(("instances",), np.zeros(len(paths), dtype=np.int8))


def _name(path: str, root: Path) -> str:
    return Path(path).relative_to(root).as_posix()


@dataclass
class _Export:
    """Chooses the labels of each image, and hands them to the writer of the image's split.

    Attributes:
        label_field: the field with the masks.
        selection: the rules by which masks are chosen.
        categories: the names that are exported.
        split: the split of each image.
        root: the folder that contains all images.
        folder: the folder to link or copy images to; None if that is not done here.
        images: "refer", "link" or "copy".
        writers: the writer of each split.
        counts: the numbers of images and annotations written, and left out for each reason.
        unlisted: the numbers of labels whose names are no category, by their names.
        faults: the labels that cannot be used.
        runs: the number of images by run hash.
    """

    label_field: str
    selection: Selection
    categories: Categories
    split: Split
    root: Path
    folder: Path | None
    images: ImageMode
    writers: Sequence[CocoFile | YoloFolder]

    def __post_init__(self) -> None:
        names = ("images", "annotations", *LEFT_OUT, "unreadable", "unsplit", *_CHANGED)
        self.counts = Counter(dict.fromkeys(names, 0))
        self.unlisted = Counter[str]()
        self.faults = Faults()
        self.runs = Counter[str]()
        self._unreadable: list[str] = []

    def run(self, samples: Any, progress: ShowProgress) -> None:
        """Go through all samples.

        Args:
            samples: a dataset or a view.
            progress: see :data:`promerge_fo.progress.ShowProgress`.
        """
        documents = enumerate(read_documents(samples, [self.label_field], progress))
        with ExitStack() as stack, ThreadPoolExecutor(available_cpus()) as pool:
            for writer in self.writers:
                stack.callback(writer.close)
            for chunk in fou.iter_batches(documents, _CHUNK):
                for k, image, chosen, run in pool.map(self._prepare, chunk):
                    self.counts.update(chosen.counts)
                    self.unlisted.update(chosen.unlisted)
                    self.faults.add(chosen.faults)
                    if image is None:
                        continue
                    self.writers[k].add(image)
                    self.counts.update(images=1, annotations=len(image.entries))
                    if run is not None:
                        self.runs[run] += 1
        warn_of_unreadable(self._unreadable)
        self.faults.warn()

    def _prepare(
        self, item: tuple[int, tuple[int, dict[str, Any]]]
    ) -> tuple[int, ExportedImage | None, Chosen, str | None]:
        """Choose the labels of one image; called from several threads.

        Args:
            item: the position of the image, its COCO id, and its document.

        Returns:
            The index of its split; the image with its labels, or None if it is left out; what was
            left out; and the hash of the run that made its labels.
        """
        position, (number, document) = item
        k = int(self.split.of[position])
        if k < 0:
            return k, None, Chosen(counts=Counter(unsplit=1)), None
        path = document["filepath"]
        try:
            size = image_size(document)
        except ImageError as reason:
            self._unreadable.append(str(reason))
            return k, None, Chosen(counts=Counter(unreadable=1)), None
        name = _name(path, self.root)
        if self.images != "refer" and not Path(path).is_file():
            raise FileNotFoundError(
                f"the image {path} is gone; take a view without it, or restore the file"
            )
        if self.folder is not None:
            place_image(path, self.folder / name, self.images)
        labels = stored_labels(document, self.label_field)
        chosen = self.selection.choose(path, labels, size, self.categories)
        entries, counts = self.writers[k].encode(chosen.labels, size)
        chosen.counts.update(counts)
        image = ExportedImage(number, path, name, size, entries)
        return k, image, chosen, (document.get(self.label_field) or {}).get("run")
