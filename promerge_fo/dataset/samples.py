"""Find and open datasets, and check that their samples and fields fit what is asked of them."""

from __future__ import annotations

import logging
import mimetypes
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.media as fom
import fiftyone.core.storage as fos
import fiftyone.core.utils as fou
from fiftyone import ViewField as F

from promerge_fo.dataset.database import (
    aggregate,
    datasets_with_images,
    generated_base,
    is_generated,
    is_patches,
    root_dataset,
)
from promerge_fo.files import KINDS, find_images
from promerge_fo.words import is_text

__all__ = [
    "all_images",
    "find_dataset",
    "find_datasets",
    "images_of",
    "known_datasets",
    "open_images",
    "open_source",
    "require_detections",
    "require_images",
    "require_objects",
    "settled",
    "videos_of",
    "whole_images_of",
]

logger = logging.getLogger("fiftyone.promerge")

_NAMED = 10  # paths that cannot be stored, in the log
_SETTLED = 1000  # ids in a view: a query that holds them is small, and sorting by them is quick

_VIDEO_REFUSED = (
    "this takes images, not videos; give it their frames as images: "
    "samples.to_frames(sample_frames=True)"
)

for _kind in KINDS:  # FiftyOne takes for images what Python knows as such, which differs by machine
    if not (mimetypes.guess_type(f"a{_kind}")[0] or "").startswith("image/"):
        mimetypes.add_type(f"image/{_kind[1:]}", _kind)


def open_source(
    source: str, name: str | None = None, tell: Callable[[str], None] = logger.warning
) -> fo.Dataset:
    """Open a dataset by its name, or the dataset of a folder of images.

    The first time a folder is opened, it becomes a persistent dataset. Later, images that are new
    in the folder are added to that dataset; so are all, if it was left empty. Images whose paths
    are not UTF-8, as the database wants, are left out, and the log names them.

    Args:
        source: the name of a dataset, or the path of a folder. What is both is refused, unless the
            dataset has images from the folder, or the folder holds no images.
        name: the name for the dataset of a folder; by default, the folder's name.
        tell: called with a line for each kind of files that were skipped in a folder, and why.

    Returns:
        A ``fiftyone.Dataset``.

    Raises:
        ValueError: there is neither such a dataset nor such a folder; the folder has no images; the
            dataset for the folder has images from elsewhere only; the source may mean either; or
            no path is UTF-8.
    """
    folder = Path(source).expanduser().resolve()
    by_name = name is None and _is_name(source)
    found = find_images(folder)
    paths = found.images
    if by_name and not paths:
        return fo.load_dataset(source)
    if not folder.is_dir():
        raise ValueError(
            f"{source!r} is neither a folder nor a dataset; give a folder of images, or one of "
            f"these datasets: {known_datasets()}"
        )
    if not paths:
        notes = "".join(f"; {note}" for note in found.notes())
        raise ValueError(
            f"{folder} holds no images (looked for {', '.join(sorted(KINDS))}); give a "
            f"folder that contains images{notes}"
        )
    paths = _storable(paths)
    for note in found.notes():
        tell(note)
    name = source if by_name else name or folder.name
    present = _images_of(name)
    if present and not any(Path(path).is_relative_to(folder) for path in present):
        if by_name:  # its images lie in the folder by a link
            return fo.load_dataset(source)
        raise _other_images(name, folder)
    return _with_images(name, paths, present)


def open_images(files: Sequence[str], name: str | None = None) -> fo.DatasetView:
    """Open image files as a view of a persistent dataset, to which they are added if needed.

    Args:
        files: the paths of the images.
        name: the name of the dataset; by default, that of the folder that contains all the files.

    Returns:
        A ``fiftyone.DatasetView`` of these images, in this order.

    Raises:
        ValueError: a path is not a file, none is UTF-8, or the dataset has images from elsewhere
            only.
    """
    for file in files:
        if not Path(file).expanduser().is_file():
            raise ValueError(
                f"{file!r} is no file; give image files, or else one folder or one dataset"
            )
    paths = _storable(dict.fromkeys(str(Path(file).expanduser().resolve()) for file in files))
    folder = Path(os.path.commonpath([Path(path).parent for path in paths]))
    name = name or folder.name or "images"
    present = _images_of(name)
    if present and not any(Path(path).is_relative_to(folder) for path in present):
        raise _other_images(name, folder)
    return _with_images(name, paths, present).select_by("filepath", paths, ordered=True)


def find_dataset(source: str, view: str | None = None) -> fo.Dataset | fo.DatasetView:
    """Find a dataset by its name, or by a folder that its images lie in.

    Args:
        source: see :func:`find_datasets`.
        view: the name of a saved view of the dataset, to return instead of the dataset.

    Raises:
        ValueError: there is no such dataset or view, and the message lists those that exist; or
            several datasets have images in the folder.
    """
    dataset, *others = find_datasets(source)
    if others:
        names = ", ".join(repr(each.name) for each in (dataset, *others))
        raise ValueError(
            f"several datasets have images in {source}: {names}; give the name of one of them"
        )
    if view is None:
        return dataset
    if not dataset.has_saved_view(view):
        known = ", ".join(dataset.list_saved_views()) or "none"
        raise ValueError(f"{dataset.name!r} has no saved view {view!r}; it has: {known}")
    return dataset.load_saved_view(view)


def find_datasets(source: str) -> list[fo.Dataset]:
    """Find the dataset of a name, or all datasets that have images in a folder, by their names.

    Args:
        source: the name of a dataset, or the path of a folder, which need not exist here. What is
            both is refused, as by :func:`open_source`.

    Raises:
        ValueError: there is no such dataset, and the message lists those that exist; or the source
            may mean either.
    """
    if _is_name(source):
        return [fo.load_dataset(source)]
    names = _datasets_in(source)
    if not names:
        folder = Path(source).expanduser().resolve()
        raise ValueError(
            (
                f"no dataset has images in {folder}; promerge segment makes one"
                if folder.is_dir()
                else f"there is no dataset {source!r}"
            )
            + f"; the datasets are: {known_datasets()}"
        )
    return [fo.load_dataset(name) for name in names]


def known_datasets() -> str:
    """The names of up to 20 datasets, for messages."""
    return ", ".join(fo.list_datasets()[:20]) or "none"


def images_of(samples: Any, group_slice: str | None = None, *, or_videos: bool = False) -> Any:
    """The samples as images: themselves, or of groups the active slice, which the log names.

    FiftyOne's ``apply_model`` and ``to_patches`` take no groups, and views of a grouped dataset
    miss its other slices; the view that is returned is as good as a dataset of images.

    Args:
        samples: a dataset or a view.
        group_slice: the name of a slice to take instead of the active one.
        or_videos: whether videos are welcome, too.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images, and nor is the slice; see
            :func:`require_images`.
        ValueError: there is no such slice.
    """
    kinds = (fom.IMAGE, fom.VIDEO) if or_videos else (fom.IMAGE,)
    name = root_dataset(samples).name
    slices = samples.group_media_types or {}
    if group_slice is not None and group_slice not in slices:
        known = ", ".join(map(repr, slices)) or "none, as it holds no groups"
        raise ValueError(f"{name!r} has no slice {group_slice!r}; its slices are: {known}")
    chosen = group_slice or samples.group_slice
    if chosen is not None and slices.get(chosen) in kinds:
        logger.info("promerge: %r holds groups; their slice %r is taken", name, chosen)
        return samples.select_group_slices(chosen)
    if group_slice is not None:
        raise fom.MediaTypeError(
            f"the slice {group_slice!r} of {name!r} has no images, but {slices[group_slice]}; give "
            "another one"
        )
    if or_videos and samples.media_type == fom.VIDEO:
        return samples
    require_images(samples)
    return samples


def whole_images_of(samples: Any) -> Any:
    """The same as :func:`images_of`, and no patches of images.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images; see :func:`images_of`.
        ValueError: the samples are patches.
    """
    samples = images_of(samples)
    if is_patches(samples):
        raise ValueError(
            "these samples are patches of images; give the images themselves, with a filter on "
            "their labels: dataset.filter_labels(field, ...)"
        )
    return samples


def all_images(dataset: fo.Dataset) -> Any:
    """All images of a dataset: the dataset itself, or of groups a view of all slices of images."""
    if dataset.media_type != fom.GROUP:
        return dataset
    return dataset.select_group_slices(media_type=fom.IMAGE)


def videos_of(dataset: fo.Dataset) -> Any:
    """All videos of a dataset: itself, or of groups a view of all slices of videos; else None."""
    if dataset.media_type == fom.VIDEO:
        return dataset
    if fom.VIDEO in (dataset.group_media_types or {}).values():
        return dataset.select_group_slices(media_type=fom.VIDEO)
    return None


def settled(samples: Any, limit: int | None = None) -> list[Any]:
    """The samples as views of their ids, in order, with a thousand samples each at most.

    A view says which samples it holds whenever it is read: as labels are written, it may hold
    others, or none. And it may show a part of their fields and labels alone. These views hold the
    same samples for ever, with everything that is stored. A dataset as a whole is left as it is.

    Args:
        samples: a dataset or a view of images.
        limit: take only this number of samples, the first ones; None takes all.
    """
    view = samples if limit is None else samples.limit(limit)
    if not isinstance(view, fo.DatasetView):
        return [view]
    images = generated_base(view) if is_generated(view) else all_images(root_dataset(view))
    if view == images:
        return [view]
    rows = aggregate(view.select_fields(), [{"$project": {"_id": True}}])
    ids = dict.fromkeys(row["_id"] for row in rows)
    return [
        images.select(batch, ordered=list(batch) != sorted(batch))
        for batch in fou.iter_batches(ids, _SETTLED)
    ]


def require_images(samples: Any) -> None:
    """Check that samples are images. The error says what to select instead.

    Args:
        samples: a dataset or a view.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are videos, groups or 3D scenes, or there
            are none.
    """
    media_type = samples.media_type
    if media_type == fom.IMAGE:
        return
    name = repr(root_dataset(samples).name)
    if media_type == fom.VIDEO:
        raise fom.MediaTypeError(_VIDEO_REFUSED)
    if media_type == fom.GROUP and samples.group_media_types is None:
        raise fom.MediaTypeError(
            f"this view of {name} holds groups of samples, and ProMerge segments images; flatten "
            "it: samples.flatten()"
        )
    if media_type == fom.GROUP:
        slices = [name for name, kind in samples.group_media_types.items() if kind == fom.IMAGE]
        given = f"{name} holds groups, and ProMerge segments images"
        if not slices:
            kinds = ", ".join(f"{k!r}: {v}" for k, v in samples.group_media_types.items())
            raise fom.MediaTypeError(f"{given}; none of its slices has images ({kinds})")
        choice = repr(slices[0]) if len(slices) == 1 else repr(slices)
        raise fom.MediaTypeError(f"{given}; select them: samples.select_group_slices({choice})")
    if len(samples) == 0:
        raise fom.MediaTypeError(f"{name} is empty here; add images, or choose another view")
    raise fom.MediaTypeError(
        f"{name} holds {media_type} samples, and ProMerge segments images; select samples with "
        "images, such as the image slices of a grouped dataset, or render the scenes with "
        "fiftyone.utils.utils3d.compute_orthographic_projection_images"
    )


def require_detections(samples: Any, label_field: str) -> None:
    """Check that a field holds detections.

    Raises:
        ValueError: the field is missing or holds something else; the message lists the fields that
            hold detections.
    """
    schema = samples.get_field_schema(
        ftype=fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections
    )
    if label_field not in schema:
        field = samples.get_field(label_field)
        found = "does not exist" if field is None else f"holds {field}"
        others = ", ".join(map(repr, schema)) or "none"
        raise ValueError(
            f"the field {label_field!r} {found}, but must hold detections; fields that do: {others}"
        )


def require_objects(samples: Any, gt_field: str) -> None:
    """Check that there are images, and that some have ground truth to measure by.

    Args:
        samples: a dataset or a view of images.
        gt_field: the field with the ground truth.

    Raises:
        ValueError: there is no image, or none has an object in the field; the message lists the
            fields that hold detections.
    """
    name = repr(root_dataset(samples).name)
    if not samples:
        raise ValueError(
            f"there is no image to measure on: {name} is empty here; add images, or choose another "
            "view"
        )
    try:
        require_detections(samples, gt_field)
    except ValueError as error:
        raise ValueError(f"no image of {name} has ground truth: {error}") from None
    if not samples.match(F(f"{gt_field}.detections").length() > 0):
        raise ValueError(
            f"no image of {name} has ground truth: the field {gt_field!r} has no object in any of "
            "them; label some, or give another field"
        )


def _is_name(source: str) -> bool:
    """Whether a text is the name of a dataset, and does not mean a folder of other images.

    Raises:
        ValueError: it may mean either.
    """
    if not is_text(source) or not fo.dataset_exists(source):
        return False
    images = find_images(Path(source).expanduser()).images
    if source not in _datasets_in(source) and images and _images_of(source):
        raise ValueError(
            f"{source!r} is the name of a dataset, and of a folder here with other images; write "
            f".{os.sep}{source} for the folder, or run this in another folder for the "
            "dataset"
        )
    return True


def _datasets_in(folder: str) -> list[str]:
    """The names of the datasets with images in a folder, whether or not links were followed."""
    path = fos.normalize_path(folder)
    if not is_text(path):
        return []
    return datasets_with_images(path, str(Path(path).resolve()))


def _storable(paths: Iterable[str]) -> list[str]:
    """Those of the paths that the database can hold; the log names the others.

    Raises:
        ValueError: it can hold none.
    """
    paths = list(paths)
    kept = [path for path in paths if is_text(path)]
    if len(kept) < len(paths):
        others = [os.fsencode(path) for path in paths if not is_text(path)]
        shown = ", ".join(path.decode(errors="backslashreplace") for path in others[:_NAMED])
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        text = f"{len(others)} images have paths that are not UTF-8 ({shown}{more}); rename them"
        if not kept:
            raise ValueError(text)
        logger.warning("promerge: %s. They are left out", text)
    return kept


def _images_of(name: str) -> set[str] | None:
    """The image files of a dataset, or None if there is no dataset of this name."""
    if not fo.dataset_exists(name):
        return None
    return set(fo.load_dataset(name).values("filepath"))


def _other_images(name: str, folder: Path) -> ValueError:
    return ValueError(
        f"there is already a dataset {name!r}, of other images than those in {folder}; "
        f"choose another name with --name, or give the dataset's name instead of the folder"
    )


def _with_images(name: str, paths: Iterable[str], present: set[str] | None) -> fo.Dataset:
    """The dataset with these images added, except those that are present; None: make a new one."""
    dataset = fo.Dataset(name, persistent=True) if present is None else fo.load_dataset(name)
    new = (fo.Sample(filepath=path) for path in paths if path not in (present or ()))
    dataset.add_samples(new, progress=False)
    return dataset
