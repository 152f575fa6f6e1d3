"""Find the sample that an image id in an imported file refers to."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cached_property
from itertools import takewhile
from pathlib import PurePath, PurePosixPath
from typing import Any

from promerge_fo.annotations.json_stream import read_elements
from promerge_fo.dataset.stored_labels import coco_id_field, image_ids
from promerge_fo.words import is_text

__all__ = ["ImageIndex"]


class ImageIndex:
    """Finds samples by COCO ids, or by file paths and names.

    An id that is a number is looked up in the ``images`` of the annotation file, if there is one,
    and their ``file_name`` finds the sample. Without an annotation file, the number is the sample's
    ``coco_id``; if the samples have no such field, it is the position of the sample, counted from
    1. :func:`~promerge_fo.dataset.export_pseudo_labels` numbers images in the same way.

    An id that is text is a path or a file name, with or without suffix.

    A path finds the sample whose path has the most parts in common with it, counted from the end;
    the file name at least must be the same. If several samples have equally many parts in common,
    the path finds none of them.

    Args:
        samples: a dataset or a view of images.
        paths: the paths of their files.
        annotations: a JSON file with ``images``, or None.

    Attributes:
        categories: category names by id, if the annotation file has ``categories``.
        is_by_file: whether there is an annotation file, which says what the ids mean.

    Raises:
        ValueError: the annotation file has no images, or two images with the same id; or some
            samples have no ``coco_id``, or the same one.
    """

    def __init__(
        self, samples: Any, paths: Sequence[str], annotations: str | os.PathLike[str] | None
    ) -> None:
        self.categories: dict[int, str] = {}
        self.is_by_file = annotations is not None
        self._paths = paths
        if annotations is not None:
            self._numbers = self._from_annotations(annotations)
        else:
            _require_ids(samples)
            self._numbers = {n: k for k, n in enumerate(image_ids(samples))}

    def find(self, image_id: int | str) -> int | None:
        """The position of the sample with an id; None if no sample, or more than one, has it."""
        if isinstance(image_id, int):
            return self._numbers.get(image_id)
        position, _ = self._by_path(image_id)
        if position is None:
            stems = self._stems.get(image_id, [])
            position = stems[0] if len(stems) == 1 else None
        return position

    @cached_property
    def _stems(self) -> dict[str, list[int]]:
        """The positions of the samples by their file names without suffix."""
        stems: dict[str, list[int]] = {}
        for position, path in enumerate(self._paths):
            stems.setdefault(PurePath(path).stem, []).append(position)
        return stems

    @cached_property
    def _reversed_paths(self) -> list[tuple[tuple[str, ...], int]]:
        """The parts of each path from the last to the first, with its position; sorted."""
        return sorted((PurePath(p).parts[::-1], position) for position, p in enumerate(self._paths))

    def _by_path(self, name: str) -> tuple[int | None, int]:
        """The position of the sample that a path finds, and how many parts they have in common."""
        parts = PurePosixPath(name.replace("\\", "/")).parts[::-1]
        at = bisect_left(self._reversed_paths, (parts, -1))
        # the paths with the most parts in common are the neighbours, on one side or on both
        neighbours = self._reversed_paths[max(at - 2, 0) : at + 2]
        common = [_common_start(parts, other) for other, _ in neighbours]
        most = max(common, default=0)
        if most == 0 or common.count(most) > 1:
            return None, 0
        return neighbours[common.index(most)][1], most

    def _from_annotations(self, path: str | os.PathLike[str]) -> dict[int, int]:
        """The positions of the samples by the image ids of an annotation file.

        If several images of the file find the same sample, the one whose path has the most parts in
        common with the sample's gets it.
        """
        claims: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)  # by sample
        seen: set[int] = set()
        for section, index, value in read_elements(path):
            if section == "images":
                number, name = _image_record(value, index, path)
                if number in seen:
                    raise ValueError(
                        f"{path} has two images of the id {number}; give a file with unique ids"
                    )
                seen.add(number)
                position, common = self._by_path(name)
                if position is not None:
                    claims[position].append((common, number))
            elif section == "categories" and isinstance(value, dict):
                self._add_category(value)
        if not seen:
            raise ValueError(
                f"{path} has no list of images with id and file_name; give the annotation file "
                "that defines the image ids"
            )
        numbers = {}
        for position, claimants in claims.items():
            most = max(common for common, _ in claimants)
            best = [number for common, number in claimants if common == most]
            if len(best) == 1:
                numbers[best[0]] = position
        return numbers

    def _add_category(self, value: dict[str, Any]) -> None:
        number, name = value.get("id"), value.get("name")
        if type(number) is int and is_text(name):
            self.categories[number] = name


def _image_record(value: object, index: int, path: str | os.PathLike[str]) -> tuple[int, str]:
    """The id and the file name of an image; LVIS gives a URL instead, which ends in the name."""
    record = value if isinstance(value, dict) else {}
    number, name = record.get("id"), record.get("file_name", record.get("coco_url"))
    if type(number) is not int or not isinstance(name, str):
        raise ValueError(
            f"{path}: image {index} has no whole number as id, or no file_name; it needs both"
        )
    return number, name


def _common_start(a: Sequence[str], b: Sequence[str]) -> int:
    """The number of elements that two sequences have in common before they differ."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def _require_ids(samples: Any) -> None:
    """Check that either all samples have a COCO id, each its own, or none has one."""
    field = coco_id_field(samples)
    if field is None:
        return
    ids = samples.values(field)
    known = [number for number in ids if number is not None]
    if not known:
        return
    twice = [number for number, n in Counter(known).items() if n > 1]
    if twice or len(known) < len(ids):
        problem = (
            f"{len(twice)} ids stand on several images, such as {twice[0]}"
            if twice
            else f"{len(ids) - len(known)} of {len(ids)} images have none"
        )
        raise ValueError(
            f"images cannot be identified by their {field} ({problem}); give the annotation file "
            "that defines the ids, as annotations=..., or a view of images that all have an id "
            "of their own"
        )
