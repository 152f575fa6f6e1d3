"""Instances as FiftyOne labels, masks back from labels, and fields declared for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.media as fom
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from promerge_fo.dataset.database import (
    FRAMES,
    add_fields,
    changed_schema,
    dataset_of,
    is_frames,
    is_generated,
    is_patches,
    propagate,
    store,
)
from promerge_fo.dataset.faults import four_numbers
from promerge_fo.files import whole_file
from promerge_fo.instances import Instances

__all__ = [
    "LABEL",
    "colour_by_instance",
    "declare_field",
    "mask_of",
    "masks_of",
    "place_of",
    "to_detections",
]

LABEL = "fg"  #: the label of class-agnostic masks, as annotation files usually name it: foreground

_COLOURED = "coloured by instance"  # in the dataset's store

_ATTRIBUTES = {
    "status": fo.StringField,
    "error": fo.StringField,
    "run": fo.StringField,
    "detections.area": fo.FloatField,
    "detections.touches_border": fo.BooleanField,
}


_OF_LEVELS = {"detections.level": fo.IntField, "detections.parent": fo.StringField}


def to_detections(instances: Instances, run: str, mask_folder: Path | None = None) -> fo.Detections:
    """Convert the instances of one image to labels.

    Args:
        instances: masks at the image's own size.
        run: the run hash, which is stored with the labels.
        mask_folder: where the masks go, as PNG files with the ids of the labels as names; None
            leaves them in the labels, for the database.

    Returns:
        One detection per mask, in the order of the masks. Each has the label "fg", ``confidence``,
        ``bounding_box`` (relative XYWH of the tight box), ``mask`` (bool, the pixels of the box)
        and the attributes ``area`` (share of the image, in [0, 1]) and ``touches_border`` (bool);
        proposals also have ``level`` (1 is merged, higher ones are stricter) and ``parent`` (the id
        of the label of the smallest mask in which this one lies, or None).
        The Detections object has the attributes ``status``, ``error`` (the reason if the image
        failed, else None) and ``run``. Masks without a pixel are left out. If there are no masks,
        or the image failed, the Detections are empty; they still replace those of an earlier run.

    Raises:
        OSError: a mask cannot be written; none of the image's is left behind.
    """
    height, width = instances.masks.shape[1:]
    made: dict[int, fo.Detection] = {}
    found = zip(instances.masks, instances.boxes.tolist(), instances.scores, strict=True)
    for number, (mask, (x0, y0, x1, y1), score) in enumerate(found):
        if x1 == x0:
            continue
        crop = mask[y0:y1, x0:x1].copy()
        made[number] = fo.Detection(
            label=LABEL,
            confidence=float(score),
            mask=crop,
            area=int(np.count_nonzero(crop)) / (width * height),
            **place_of((x0, y0, x1, y1), (height, width)),
        )
    if instances.levels is not None and instances.parents is not None:
        for number, detection in made.items():
            parent = made.get(int(instances.parents[number]))
            detection["level"] = int(instances.levels[number])
            detection["parent"] = None if parent is None else parent.id
    labels = list(made.values())
    if mask_folder is not None:
        _write_masks(labels, mask_folder)
    return fo.Detections(detections=labels, status=instances.status, error=instances.error, run=run)


def _write_masks(labels: Sequence[fo.Detection], folder: Path) -> None:
    """Move masks from labels to files. OpenCV, which FiftyOne uses, is silent about a full disk."""
    written: list[Path] = []
    try:
        for label in labels:
            path = folder.absolute() / f"{label.id}.png"
            with whole_file(path) as file:
                Image.fromarray(label.mask.astype(np.uint8) * np.uint8(255)).save(file, "PNG")
            written.append(path)
            label.mask, label.mask_path = None, str(path)
    except BaseException:
        for path in written:
            with suppress(OSError):
                path.unlink()
        raise


def place_of(box: tuple[float, float, float, float], size: tuple[int, int]) -> dict[str, Any]:
    """The attributes of a label that say where in the image it is.

    Args:
        box: ``x0, y0, x1, y1`` in pixels.
        size: (height, width) of the image in pixels.

    Returns:
        A dictionary with ``bounding_box``, relative XYWH, and ``touches_border``.
    """
    (x0, y0, x1, y1), (height, width) = box, size
    return {
        "bounding_box": [x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height],
        "touches_border": x0 == 0 or y0 == 0 or x1 == width or y1 == height,
    }


def masks_of(detections: fo.Detections, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The masks of all labels of one image, at the image's size; see :func:`mask_of`.

    Args:
        detections: labels with masks; None stands for no labels.
        size: (height, width) of the image in pixels, as it is shown.

    Returns:
        (n, height, width) bool, in the order of the labels.
    """
    labels = [] if detections is None else detections.detections
    masks = np.zeros((len(labels), *size), dtype=np.bool_)
    for out, detection in zip(masks, labels, strict=True):
        _paint(out, detection)
    return masks


def mask_of(detection: fo.Detection, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask of one label at the image's size, from the database or from disk.

    If the stored array has the size of the label's box in pixels, as it does in all labels that
    this package makes, the mask is exactly the stored one. Otherwise, for example after editing
    with the App's brush, it is resized (nearest neighbour) to the box, whose edges are rounded to
    whole pixels.

    Args:
        detection: a label with a mask.
        size: (height, width) of the image in pixels, as it is shown.

    Returns:
        (height, width) bool.

    Raises:
        ValueError: the label has no mask, its mask is not a 2-D array, or its box is not four
            finite numbers.
        FileNotFoundError: the file of the mask is missing.
    """
    mask = np.zeros(size, dtype=np.bool_)
    _paint(mask, detection)
    return mask


def _paint(out: NDArray[np.bool_], detection: fo.Detection) -> None:
    crop, top, left = pixel_crop(detection, (out.shape[0], out.shape[1]))
    out[top : top + crop.shape[0], left : left + crop.shape[1]] = crop


def pixel_crop(
    detection: fo.Detection, size: tuple[int, int]
) -> tuple[NDArray[np.bool_], int, int]:
    """A label's mask, cut to the part of its box that lies in the image; see :func:`mask_of`.

    Returns:
        (h, w) bool, and its first row and first column in the image; h or w may be 0.
    """
    stored = _stored_mask(detection)
    height, width = size
    try:
        x, y, w, h = four_numbers(detection.bounding_box)
    except ValueError as error:
        raise ValueError(
            f"label {detection.id} ({detection.label!r}) is no mask: {error}"
        ) from error
    x0, x1 = _pixel_range(x, w, width)
    y0, y1 = _pixel_range(y, h, height)
    top, left = max(0, -y0), max(0, -x0)
    bottom, right = max(min(y1, height) - y0, top), max(min(x1, width) - x0, left)
    if (y1 - y0, x1 - x0) == stored.shape:
        inside = stored[top:bottom, left:right]
    else:
        # nearest neighbour: the pixel of the array with the centre of each pixel of the box
        rows = (2 * np.arange(top, bottom) + 1) * stored.shape[0] // (2 * (y1 - y0))
        columns = (2 * np.arange(left, right) + 1) * stored.shape[1] // (2 * (x1 - x0))
        inside = stored[rows][:, columns]
    return inside, y0 + top, x0 + left


def _pixel_range(start: float, extent: float, pixels: int) -> tuple[int, int]:
    """The first pixel of a relative extent, and the one after its last; at least one pixel."""
    first = round(start * pixels)
    return first, max(round((start + extent) * pixels), first + 1)


def _stored_mask(detection: fo.Detection) -> NDArray[np.bool_]:
    mask = detection.mask
    if mask is None and detection.mask_path is not None:
        if not Path(detection.mask_path).is_file():
            raise FileNotFoundError(
                f"the mask {detection.mask_path} of label {detection.id} is gone; restore it, or "
                "run the same again, which segments such images anew"
            )
        mask = detection.get_mask()
    if mask is None:
        raise ValueError(
            f"label {detection.id} ({detection.label!r}) has a box but no mask; use a field with "
            "instance masks"
        )
    if mask.ndim != 2 or mask.size == 0:
        raise ValueError(
            f"the mask of label {detection.id} has the shape {mask.shape}, but must be (h, w) and "
            "not empty; store another mask, or delete the label"
        )
    return np.asarray(mask != 0, dtype=np.bool_)


def declare_field(collection: Any, label_field: str, with_levels: bool = False) -> None:
    """Add a field for masks to a dataset, if it is missing, and declare the labels' attributes.

    They can then be filtered in the App. ``status`` and ``error`` are also added to the App's
    sidebar, below the field; by default, the sidebar only has the attributes of single labels.
    Labels get a colour each, unless the dataset has a colour scheme.

    In a dataset of videos, the field is one of their frames.

    Labels of video frames (``to_frames``) are copied to the dataset of the videos once more.
    FiftyOne copies them while it stores them, but misses some of them.

    Args:
        collection: the dataset or view that is or was segmented.
        label_field: a field of detections, or a new one.
        with_levels: whether the labels are proposals, with levels and parents.
    """
    if collection.media_type == fom.VIDEO:
        label_field = f"{FRAMES}{label_field.removeprefix(FRAMES)}"
    field = {label_field: fo.EmbeddedDocumentField}
    add_fields(dataset_of(collection), field, embedded_doc_type=fo.Detections)
    attributes = {**_ATTRIBUTES, **(_OF_LEVELS if with_levels else {})}
    fields = {f"{label_field}.{name}": kind for name, kind in attributes.items()}
    add_fields(dataset_of(collection), fields)
    if is_frames(collection) and not is_patches(collection):
        propagate(collection, label_field)
        add_fields(collection, fields)  # now also for the videos, which had no labels before
    else:
        dataset = dataset_of(collection)
        if _not_in_sidebar(dataset.app_config.sidebar_groups or (), label_field):
            with changed_schema(collection):
                _list_in_sidebar(dataset, label_field)
        if not is_generated(collection):
            colour_by_instance(dataset)


def _not_in_sidebar(groups: Iterable[Any], label_field: str) -> list[str]:
    """What of a field belongs into the sidebar and is in none of its groups."""
    listed = {path for group in groups for path in group.paths}
    wanted = (label_field, f"{label_field}.status", f"{label_field}.error")
    return [path for path in wanted if path not in listed]


def _list_in_sidebar(dataset: fo.Dataset, label_field: str) -> None:
    groups = dataset.app_config.sidebar_groups
    if groups is None:
        groups = fo.DatasetAppConfig.default_sidebar_groups(dataset)
    heading = "frame labels" if label_field.startswith(FRAMES) else "labels"
    new = _not_in_sidebar(groups, label_field)
    suitable = [group for group in groups if label_field in group.paths or group.name == heading]
    if not new or not suitable:
        return
    group = max(suitable, key=lambda group: label_field in group.paths)
    after = group.paths.index(label_field) + 1 if label_field in group.paths else len(group.paths)
    group.paths = [*group.paths[:after], *new, *group.paths[after:]]
    dataset.app_config.sidebar_groups = groups
    dataset.save()


def colour_by_instance(dataset: fo.Dataset) -> bool:
    """Let the App tell neighbours apart: once, and where nobody has chosen other colours.

    Returns:
        Whether the colours were chosen by this call. An App in which the dataset is open does not
        see it.
    """
    known = store(dataset)
    if known.get(_COLOURED):
        return False
    with changed_schema(dataset):
        known.set(_COLOURED, True)
        if dataset.app_config.color_scheme is not None:
            return False
        dataset.app_config.color_scheme = fo.ColorScheme(color_by="instance")
        dataset.save()
    return True
