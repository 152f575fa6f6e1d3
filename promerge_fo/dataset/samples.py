"""Which samples are meant, and whether they can have masks: datasets found, opened and checked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.media as fom

from promerge_fo.dataset.database import is_patches, root_dataset

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

IMAGE_SUFFIXES = {
    ".bmp", ".gif", ".jpeg", ".jpg", ".jp2", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp",
}  # fmt: skip

VIDEO_REFUSED = (
    "ProMerge segments images, not videos; segment their frames: "
    "samples.to_frames(sample_frames=True).apply_model(model, ...)"
)


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
        raise ValueError(
            f"{source!r} is neither a folder nor a dataset; give a folder of images, or one of "
            f"the datasets: {known_datasets()}"
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


def find_dataset(source: str, view: str | None = None) -> Any:
    """The dataset of a name, or the one that :func:`open_source` has made of a folder.

    Args:
        source: the name of a dataset, or a folder.
        view: the name of one of its saved views, which is returned in its place.

    Raises:
        ValueError: there is no such dataset or view; it lists those that there are.
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
    """The names of the first datasets, for messages."""
    return ", ".join(fo.list_datasets()[:20]) or "none"


def require_images(samples: Any) -> None:
    """Refuse collections that have no images to segment, and say what to select instead.

    Args:
        samples: a dataset or a view.

    Raises:
        fiftyone.core.media.MediaTypeError: videos, groups, 3D scenes, or nothing at all.
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
        raise fom.MediaTypeError(f"{name} is empty here; add images, or take another view")
    raise fom.MediaTypeError(
        f"{name} holds {media_type} samples, and ProMerge segments images; select samples with "
        "images, such as the image slices of a grouped dataset, or render the scenes with "
        "fiftyone.utils.utils3d.compute_orthographic_projection_images"
    )


def require_whole_images(samples: Any) -> None:
    """Refuse what :func:`require_images` does, and patches: each is a part of an image.

    Raises:
        fiftyone.core.media.MediaTypeError: no images.
        ValueError: patches.
    """
    require_images(samples)
    if is_patches(samples):
        raise ValueError(
            "these samples are patches of images; give the images themselves, with a filter on "
            "their labels: dataset.filter_labels(field, ...)"
        )


def require_detections(samples: Any, label_field: str) -> None:
    """Refuse a field that is missing or holds something other than detections.

    Raises:
        ValueError: with the fields that do hold detections.
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
