"""Find and open datasets, and check that their samples and fields fit what is asked of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.media as fom

from promerge_fo.dataset.database import is_patches, root_dataset
from promerge_fo.images import IMAGE_SUFFIXES, image_files

__all__ = [
    "VIDEO_REFUSED",
    "find_dataset",
    "known_datasets",
    "open_images",
    "open_source",
    "require_detections",
    "require_images",
    "require_whole_images",
]

VIDEO_REFUSED = (
    "ProMerge segments images, not videos; segment their frames: "
    "samples.to_frames(sample_frames=True).apply_model(model, ...)"
)


def open_source(source: str, name: str | None = None) -> fo.Dataset:
    """Open a dataset by its name, or the dataset of a folder of images.

    The first time a folder is opened, it becomes a persistent dataset. Later, images that are new
    in the folder are added to that dataset.

    Args:
        source: the name of a dataset, or the path of a folder. If it is both, it means the folder
            if the dataset has images from it, and otherwise the dataset.
        name: the name for the dataset of a folder; by default, the folder's name.

    Returns:
        A ``fiftyone.Dataset``.

    Raises:
        ValueError: there is neither such a dataset nor such a folder; the folder has no images; or
            the dataset for the folder has images from elsewhere only.
    """
    folder = Path(source).expanduser().resolve()
    by_name = name is None and fo.dataset_exists(source)
    if not folder.is_dir():
        if by_name:
            return fo.load_dataset(source)
        raise ValueError(
            f"{source!r} is neither a folder nor a dataset; give a folder of images, or one of "
            f"these datasets: {known_datasets()}"
        )
    name = source if by_name else name or folder.name
    present = _images_of(name)
    if present is not None and not any(Path(path).is_relative_to(folder) for path in present):
        if by_name:
            return fo.load_dataset(name)
        raise _other_images(name, folder)
    paths = image_files(folder.rglob("*"))
    if not paths:
        raise ValueError(
            f"{folder} holds no images (looked for {', '.join(sorted(IMAGE_SUFFIXES))}); give a "
            "folder that contains images"
        )
    return _with_images(name, paths, present)


def open_images(files: Sequence[str], name: str | None = None) -> fo.DatasetView:
    """Open image files as a view of a persistent dataset, to which they are added if needed.

    Args:
        files: the paths of the images.
        name: the name of the dataset; by default, that of the folder that contains all the files.

    Returns:
        A ``fiftyone.DatasetView`` of these images, in this order.

    Raises:
        ValueError: a path is not a file, or the dataset has images from elsewhere only.
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


def find_dataset(source: str, view: str | None = None) -> fo.Dataset | fo.DatasetView:
    """Find a dataset by its name, or by the folder from which :func:`open_source` made it.

    Args:
        source: the name of a dataset, or the path of a folder.
        view: the name of a saved view of the dataset, to return instead of the dataset.

    Raises:
        ValueError: there is no such dataset or view; the message lists those that exist.
    """
    names = (source, Path(source).expanduser().resolve().name)
    name = next((name for name in names if fo.dataset_exists(name)), None)
    if name is None:
        raise ValueError(f"there is no dataset {source!r}; the datasets are: {known_datasets()}")
    dataset = fo.load_dataset(name)
    if view is None:
        return dataset
    if not dataset.has_saved_view(view):
        known = ", ".join(dataset.list_saved_views()) or "none"
        raise ValueError(f"{dataset.name!r} has no saved view {view!r}; it has: {known}")
    return dataset.load_saved_view(view)


def known_datasets() -> str:
    """The names of up to 20 datasets, for messages."""
    return ", ".join(fo.list_datasets()[:20]) or "none"


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
        raise fom.MediaTypeError(VIDEO_REFUSED)
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


def require_whole_images(samples: Any) -> None:
    """Check that samples are whole images, and not patches of images.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images; see :func:`require_images`.
        ValueError: the samples are patches.
    """
    require_images(samples)
    if is_patches(samples):
        raise ValueError(
            "these samples are patches of images; give the images themselves, with a filter on "
            "their labels: dataset.filter_labels(field, ...)"
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
