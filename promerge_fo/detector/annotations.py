"""Pseudo-labels as training reads them: COCO's JSON, held in a few large arrays."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from promerge_fo.annotations.json_stream import Element, read_elements
from promerge_fo.annotations.rle import mask_record
from promerge_fo.annotations.untrusted_masks import EntryError, crop_of
from promerge_fo.files import require_inside
from promerge_fo.words import is_text

__all__ = ["CLASS_AGNOSTIC", "Annotations", "find_annotations", "read_annotations"]

CLASS_AGNOSTIC: Mapping[int, str] = {1: "fg"}
"""The categories of labels that are all of one class."""
_KINDS = {"images": "image", "annotations": "annotation", "categories": "category"}


@dataclass(frozen=True)
class Annotations:
    """Images with the masks to learn.

    Masks stay compressed, as they are in the file, and lie in one piece of memory that the workers
    of a data loader share: a million images take hardly more than the file's own size.

    Attributes:
        ids: (n,) int64, the images' ids in the file.
        sizes: (n, 2) int64, height and width as they are shown.
        categories: the names of the classes by category id, in the order of the classes.
        merged: the names of the file's categories that are learned as one class; none if they are
            learned apart, or if there are fewer than two.
        left_out: annotations that are not learned from, by reason: "crowd", "without mask",
            "empty mask", "of no image".
    """

    ids: NDArray[np.int64]
    sizes: NDArray[np.int64]
    categories: Mapping[int, str]
    merged: tuple[str, ...]
    left_out: Mapping[str, int]
    _paths: NDArray[np.bytes_]  # (n,) image files
    _first: NDArray[np.int64]  # (n + 1,) the first mask of each image
    _offsets: NDArray[np.int64]  # (m + 1,) where each mask's counts begin
    _counts: NDArray[np.uint8]  # all compressed counts, one after the other
    _classes: NDArray[np.int64]  # (m,) of each mask

    def __len__(self) -> int:
        return len(self.ids)

    def path(self, index: int) -> str:
        """An image's file."""
        return os.fsdecode(self._paths[index])

    def rles(self, index: int) -> list[dict[str, Any]]:
        """One image's masks, as pycocotools reads them."""
        size = self.sizes[index].tolist()
        first, last = self._first[index], self._first[index + 1]
        offsets = self._offsets[first : last + 1]
        return [{"size": size, "counts": self._counts[a:b].tobytes()} for a, b in pairwise(offsets)]

    def masks(self, index: int) -> NDArray[np.bool_]:
        """One image's masks: (n, H, W) bool."""
        rles = self.rles(index)
        if not rles:
            return np.zeros((0, *self.sizes[index]), dtype=np.bool_)
        return np.asarray(coco_mask.decode(rles), dtype=np.bool_).transpose(2, 0, 1)

    def classes(self, index: int) -> NDArray[np.int64]:
        """The classes of one image's masks: (n,) int64, places in ``categories``."""
        return self._classes[self._first[index] : self._first[index + 1]]

    def said(self) -> str:
        """Which categories become which classes, in words; nothing where there is but one."""
        names = self.merged or tuple(self.categories.values())
        listed = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        if self.merged:
            return f"one class of {len(names)} categories ({listed}); --classes learns them apart"
        return f"{len(names)} classes: {listed}" if len(names) > 1 else ""

    def with_masks(self) -> NDArray[np.int64]:
        """The indices of images with at least one mask."""
        return np.flatnonzero(np.diff(self._first))


def find_annotations(
    path: str | os.PathLike[str], image_root: str | os.PathLike[str] | None = None
) -> tuple[Path, Path]:
    """The annotation file and the folder of its images.

    Args:
        path: a COCO annotation file, or the folder of an export (its ``annotations/train.json`` or
            ``annotations/instances.json``).
        image_root: the folder that the file's names are relative to; None looks into the manifest
            that an export has beside it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: nothing says where the images lie.
    """
    given = Path(path).expanduser().absolute()
    candidates = [given]
    if given.is_dir():
        candidates = [given / "annotations" / name for name in ("train.json", "instances.json")]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None and given.is_dir():
        raise FileNotFoundError(
            f"{given} holds neither annotations/train.json nor annotations/instances.json; "
            "give the annotation file"
        )
    if file is None:
        raise FileNotFoundError(f"{given} does not exist; give a COCO annotation file (.json)")
    root = _root_of_export(file) if image_root is None else Path(image_root).expanduser().absolute()
    if not root.is_dir():
        raise ValueError(f"{root} is no folder; give the one that holds the images as image_root")
    return file, root


def _root_of_export(file: Path) -> Path:
    folder = file.parent.parent
    if file.parent.name == "annotations" and (folder / "images").is_dir():
        return folder / "images"  # it may have been moved since it was exported
    for manifest in (file.with_suffix(".manifest.json"), folder / "manifest.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            return Path(json.loads(manifest.read_text(encoding="utf-8"))["image_root"])
    raise ValueError(
        f"nothing beside {file} says where its images lie; give the folder that their names are "
        "relative to as image_root (--image-root)"
    )


def read_annotations(
    path: str | os.PathLike[str], image_root: str | os.PathLike[str], classes: bool = False
) -> Annotations:
    """Read a COCO annotation file.

    As detectron2 does, crowds are left out; boxes without a mask are too.

    Args:
        path: with ``images`` and ``annotations``, whose masks are RLE (compressed or not) or
            polygons; read as a stream.
        image_root: the folder that file names are relative to.
        classes: whether the file's categories are classes, in the order of their ids; else all
            masks are of one class.

    Raises:
        ValueError: not such a file, or an entry that cannot be right, which is named: an image
            without id, name or size, an id twice, a mask that does not fit its image; with
            ``classes``, a category without id or name, a mask of none, or no names at all.
    """
    content = _Content(Path(path), os.fspath(image_root), classes)
    waiting: list[Element] = []  # annotations that come before the images
    for element in read_elements(path):
        if element.section == "annotations" and not content.index:
            waiting.append(element)
        else:
            content.add(element)
    if not content.index:
        raise ValueError(f"{path} has no images; give a COCO annotation file, such as an export")
    for element in waiting:
        content.add(element)
    return content.sorted_by_image()


class _Content:
    """What has been read of a file.

    Attributes:
        index: the images' places by their ids.
    """

    def __init__(self, path: Path, root: str, classes: bool) -> None:
        self.index: dict[int, int] = {}
        self._classes = classes
        self._names: dict[int, str] = {}
        self._category_ids = array("q")
        self._path, self._root = path, root
        self._paths: list[bytes] = []
        self._sizes, self._owners, self._offsets = array("q"), array("q"), array("q", [0])
        self._counts = bytearray()
        self._left_out = dict.fromkeys(("crowd", "without mask", "empty mask", "of no image"), 0)

    def add(self, element: Element) -> None:
        """Take an image, an annotation or a category; other sections are passed over.

        Raises:
            ValueError: it cannot be right.
        """
        try:
            if element.section == "images":
                self._add_image(element.value)
            elif element.section == "annotations" and (reason := self._add_mask(element.value)):
                self._left_out[reason] += 1
            elif element.section == "categories":
                self._add_category(element.value)
        except (KeyError, TypeError, ValueError) as error:
            kind = _KINDS[str(element.section)]
            what = f"has no {error}" if isinstance(error, KeyError) else f"cannot be read: {error}"
            raise ValueError(f"{self._path}: {kind} {element.place} (from 0) {what}") from error

    def _add_image(self, entry: dict[str, Any]) -> None:
        if not isinstance(entry["id"], int):
            raise ValueError(f"its id {entry['id']!r} is no whole number")
        if entry["id"] in self.index:
            raise ValueError(f"its id {entry['id']} is that of another image")
        name = require_inside(entry["file_name"])
        path = os.path.join(self._root, name)  # noqa: PTH118 (fast)
        self._sizes.extend((int(entry["height"]), int(entry["width"])))
        self.index[entry["id"]] = len(self._paths)
        self._paths.append(os.fsencode(path))

    def _add_category(self, entry: Any) -> None:
        """Take a category; one that cannot be right matters only where classes are learned.

        Raises:
            ValueError: it cannot be right.
        """
        given = entry if isinstance(entry, dict) else {}
        number, name = given.get("id"), given.get("name")
        if _is_whole(number) and is_text(name) and name and number not in self._names:
            self._names[number] = name
        elif self._classes:
            raise ValueError(f"{entry!r:.80} has no id of its own, or no name")

    def _add_mask(self, entry: dict[str, Any]) -> str:
        """Take a mask; returns why it is left out, or nothing."""
        owner = self.index.get(entry["image_id"])
        if owner is None:
            return "of no image"
        if entry.get("iscrowd", 0) or entry.get("ignore", 0):
            return "crowd"
        if not entry.get("segmentation"):
            return "without mask"
        height, width = self._sizes[2 * owner : 2 * owner + 2]
        try:
            counts = _compressed(entry["segmentation"], (height, width))
        except EntryError as error:
            if error.what == "empty":
                return "empty mask"
            raise
        category = entry["category_id"] if self._classes else 1
        if not _is_whole(category):
            raise ValueError(f"its category_id {category!r:.40} is no whole number")
        self._category_ids.append(category)
        self._counts.extend(counts.encode("ascii"))
        self._owners.append(owner)
        self._offsets.append(len(self._counts))
        return ""

    def sorted_by_image(self) -> Annotations:
        """All of it, with each image's masks one after the other, in the file's order.

        Raises:
            ValueError: the classes are asked for, and have no names, or not all of them.
        """
        categories = self._categories()
        ids = np.asarray(self._category_ids, dtype=np.int64)
        owners = np.asarray(self._owners, dtype=np.int64)
        starts = np.asarray(self._offsets, dtype=np.int64)
        counts = np.frombuffer(self._counts, dtype=np.uint8)
        order = np.argsort(owners, kind="stable")
        if not np.array_equal(order, np.arange(len(order))):
            counts = np.concatenate([counts[starts[k] : starts[k + 1]] for k in order])
            starts = np.concatenate([[0], np.cumsum(np.diff(starts)[order])])
        return Annotations(
            np.fromiter(self.index, np.int64, len(self.index)),
            np.asarray(self._sizes, dtype=np.int64).reshape(-1, 2),
            categories,
            () if self._classes or len(self._names) < 2 else tuple(self._names.values()),
            self._left_out,
            np.array(self._paths),
            np.searchsorted(owners[order], np.arange(len(self.index) + 1)),
            starts,
            counts,
            np.searchsorted(list(categories), ids[order]),
        )

    def _categories(self) -> Mapping[int, str]:
        """The names of the classes by category id, in the order of the ids."""
        if not self._classes:
            return CLASS_AGNOSTIC
        if set(self._names.values()) <= set(CLASS_AGNOSTIC.values()):
            raise ValueError(
                f"{self._path} has no categories with names to learn apart; export with classes, "
                "or train without them"
            )
        unknown = sorted(set(self._category_ids) - set(self._names))
        if unknown:
            raise ValueError(
                f"{self._path} has masks of category {unknown[0]}, which is none of its "
                f"{len(self._names)} categories; give it a name there"
            )
        return dict(sorted(self._names.items()))


def _is_whole(value: Any) -> TypeGuard[int]:
    return type(value) is int and abs(value) < 1 << 63


def _compressed(segmentation: Any, size: tuple[int, int]) -> str:
    """The compressed counts of a mask, which is checked: RLE of either kind, or polygons.

    Raises:
        EntryError: it does not fit the image, or has no pixel.
    """
    crop = crop_of(segmentation, size)
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], str):
        return segmentation["counts"]
    record = mask_record(crop.mask, crop.top, crop.left, size)
    assert record is not None  # crop_of has found a pixel
    return str(record["segmentation"]["counts"])
