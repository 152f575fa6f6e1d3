"""Pseudo-labels: a field's masks as files that detectors train on."""

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

from promerge_fo.cpus import available_cpus
from promerge_fo.dataset.exchange.manifest import describe_source, is_export, write_manifest
from promerge_fo.dataset.exchange.selection import (
    LEFT_OUT,
    Review,
    Selection,
    Split,
    split_by_tags,
    split_randomly,
)
from promerge_fo.dataset.exchange.writers import (
    IMAGES,
    CocoFile,
    ExportedImage,
    Images,
    YoloFolder,
    place_image,
)
from promerge_fo.dataset.samples import require_detections, require_whole_images
from promerge_fo.dataset.stored_labels import image_size, read_documents, stored_labels
from promerge_fo.progress import ShowProgress

__all__ = ["export_pseudo_labels"]

_CHUNK = 100  # images whose masks are in memory at once


def export_pseudo_labels(
    samples: Any,
    label_field: str,
    path: str | os.PathLike[str],
    min_area: float = 0.05,
    tags: str | Collection[str] | None = None,
    *,
    min_score: float | None = None,
    review: Review | None = None,
    max_per_image: int | None = None,
    val_fraction: float | None = None,
    seed: int = 0,
    split_tags: Sequence[str] | None = None,
    images: Images = "refer",
    format: Literal["coco", "yolo"] = "coco",
    overwrite: bool = False,
    progress: ShowProgress = None,
) -> dict[str, Any]:
    """Write the masks of a field as annotations that detectors train on.

    In COCO's format, masks are compressed RLE at full resolution (``counts`` as text), with their
    own area and tight box, and the confidence as ``score``; the one category is 1, "fg".
    ``iscrowd`` is the label's own, 0 without. A label without a mask has its box alone, and no
    ``segmentation``. Annotations are numbered from 1; so are images, unless every sample has a
    number of its own in the field ``coco_id``. File names are relative to the folder that all
    images lie in. Images without masks are listed; images that cannot be read are not.

    A ``path`` that ends in ``.json`` is one annotation file. Any other is a folder::

        path/annotations/instances.json     or train.json and val.json, or one for each tag
        path/images/...                     if images are linked or copied, below their folder
        path/manifest.json

    In YOLO's format, which is a folder always, masks become polygons: tolerance 2 pixels, no
    holes, one polygon for each connected part. Nothing else here is lossy.

    A manifest says what was exported from what: ``manifest.json`` in the folder, or
    ``NAME.manifest.json`` beside ``NAME.json``. Everything is written as a stream, so memory does
    not grow with the masks, and appears whole or not at all.

    Args:
        samples: a dataset or a view.
        label_field: the field with the masks.
        path: the JSON file to write, which replaces one that exists; or the folder.
        min_area: the smallest mask to write, as a share of the image; 0 writes all.
        tags: write only labels that have one of these label tags.
        min_score: the lowest confidence, in [0, 1]; a label without one counts as 1.
        review: ``"accepted"`` writes only labels whose attribute ``review`` says so,
            ``"not_rejected"`` also those that nobody has decided on; None does not ask.
        max_per_image: at most so many of the masks that are left, by confidence.
        val_fraction: the share of the images for ``val.json``; the others go to ``train.json``.
            Drawn by the seed and the images' names: every export of the same images draws alike.
        seed: for that.
        split_tags: sample tags, such as ``["train", "val"]``, which name a file each; images that
            have none of them are left out.
        images: "refer" to them where they lie; "link" (symbolic) or "copy" them into the folder.
        format: "coco" or "yolo".
        overwrite: replace a folder that an earlier export made, and all that is in it.
        progress: whether to show a bar (None: as FiftyOne's config says), or what makes one; see
            :data:`promerge_fo.progress.ShowProgress`.

    Returns:
        ``path``, ``image_root`` (the folder that file names are relative to), ``files`` (paths by
        split, "instances" without one; YOLO's "dataset"), ``manifest`` (its path), ``images``,
        ``annotations``; masks left out: ``too_small``, ``untagged``, ``unreviewed``,
        ``low_score``, ``beyond_limit``; images left out: ``unreadable``, ``unsplit``.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples have no images.
        ValueError: no samples, patches, no such field of detections, options out of their range
            or that do not go together.
        FileExistsError: the folder is not empty, and no export to replace.
        FileNotFoundError: a mask's or an image's file is gone.
    """
    require_whole_images(samples)
    require_detections(samples, label_field)
    if len(samples) == 0:
        raise ValueError("there are no samples to export; take another view")
    wanted = None if tags is None else (tags,) if isinstance(tags, str) else tuple(tags)
    selection = Selection(min_area, wanted, min_score, review, max_per_image)
    target = Path(path).expanduser().absolute()
    is_file = target.suffix.lower() == ".json"
    splits = val_fraction is not None or split_tags is not None
    _check_layout(target, is_file, images, format, splits, overwrite)
    paths = samples.values("filepath")
    root = Path(os.path.commonpath([os.path.dirname(path) for path in paths]))  # noqa: PTH120
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
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    # beside the target, so that the last step is a rename
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".promerge-") as scratch:
        whole = Path(scratch, "whole")
        whole.mkdir()
        writers: dict[str, CocoFile | YoloFolder]
        if format == "yolo":
            writers = {name: YoloFolder(whole, name, root, images) for name in split.names}
            files = {"dataset": "dataset.yaml"}
        else:
            place = "{}" if is_file else "annotations/{}.json"
            names = [target.name] if is_file else split.names
            files = dict(zip(split.names, map(place.format, names), strict=True))
            writers = {name: CocoFile(whole / file) for name, file in files.items()}
        folder = whole / "images" if images != "refer" and format == "coco" else None
        export = _Export(label_field, selection, split, root, folder, images)
        export.run(samples, list(writers.values()), progress)
        described = {
            f"labels/{name}" if format == "yolo" else files[name]: writer.describe()
            for name, writer in writers.items()
        }
        image_root = root if images == "refer" else target / "images"
        content = {
            **describe_source(samples, label_field, export.runs),
            "settings": settings,
            "image_root": str(image_root),
            "counts": dict(export.counts),
            "files": described,
        }
        write_manifest(whole / "manifest.json", content)
        if is_file:
            manifest = target.with_suffix(".manifest.json")
            manifest.unlink(missing_ok=True)  # rather none than one of another file
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
        **export.counts,
    }


def _put_in_place(whole: Path, target: Path, old: Path) -> None:
    """Move a folder to where there is none, an empty one, or one to be replaced."""
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
    """Refuse what cannot be written, before anything is."""
    if images not in IMAGES:
        raise ValueError(f"images is {images!r}, but must be one of {', '.join(map(repr, IMAGES))}")
    if format not in ("coco", "yolo"):
        raise ValueError(f"format is {format!r}, but must be 'coco' or 'yolo'")
    if format == "yolo" and images == "refer":
        raise ValueError(
            "YOLO looks for labels beside the images; give images='link' or images='copy'"
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
            "overwrite=True replaces it, with all that is in it"
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
    """Where each image goes; all to "instances" where nothing else is said."""
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
    """Chooses labels, image after image, and hands them to the writers of their splits.

    Attributes:
        folder: for linked or copied images; None leaves them alone.
        counts: what was written and what was left out.
        runs: images by run hash.
    """

    label_field: str
    selection: Selection
    split: Split
    root: Path
    folder: Path | None
    images: Images

    def __post_init__(self) -> None:
        names = ("images", "annotations", *LEFT_OUT, "unreadable", "unsplit")
        self.counts = Counter(dict.fromkeys(names, 0))
        self.runs = Counter[str]()

    def run(
        self, samples: Any, writers: Sequence[CocoFile | YoloFolder], progress: ShowProgress
    ) -> None:
        """Go through the samples, once."""
        documents = enumerate(read_documents(samples, [self.label_field], progress))
        with ExitStack() as stack, ThreadPoolExecutor(available_cpus()) as pool:
            for writer in writers:
                stack.callback(writer.close)
            for chunk in fou.iter_batches(documents, _CHUNK):
                for k, image, counts, run in pool.map(self._prepare, chunk):
                    self.counts.update(counts)
                    if image is None:
                        continue
                    writers[k].add(image)
                    self.counts.update(images=1, annotations=len(image.labels))
                    if run is not None:
                        self.runs[run] += 1

    def _prepare(
        self, item: tuple[int, tuple[int, dict[str, Any]]]
    ) -> tuple[int, ExportedImage | None, Counter[str], str | None]:
        """One image's split, its chosen labels, what was left out, and the run of its labels."""
        position, (number, document) = item
        k = int(self.split.of[position])
        if k < 0:
            return k, None, Counter(unsplit=1), None
        size = image_size(document)
        if size is None:
            return k, None, Counter(unreadable=1), None
        path = document["filepath"]
        name = _name(path, self.root)
        if self.images != "refer" and not Path(path).is_file():
            raise FileNotFoundError(f"the image {path} is gone; take a view without it")
        if self.folder is not None:
            place_image(path, self.folder / name, self.images)
        labels, counts = self.selection.choose(stored_labels(document, self.label_field), size)
        image = ExportedImage(number, path, name, size, labels)
        return k, image, counts, (document.get(self.label_field) or {}).get("run")
