"""Which sample an image id of a stranger's file means."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import PurePath, PurePosixPath
from typing import Any

from promerge_fo.annotations.json_stream import read_elements
from promerge_fo.dataset.stored_labels import coco_id_field, image_ids

__all__ = ["ImageIndex"]


class ImageIndex:
    """Finds samples by COCO ids, or by the paths and names of files.

    Numbers are looked up among the images of an annotation file, where there is one, whose
    ``file_name`` then finds the sample; else they are the samples' ``coco_id``, where they have
    such a field, and else their places, from 1: the numbers that
    :func:`~promerge_fo.dataset.export_pseudo_labels` gives.

    Text is a path or a name, with or without its suffix.

    A path finds the sample that shares the most of its end, file name at least; where several
    share as much, none of them.

    Args:
        samples: a dataset or a view of images.
        paths: of their files.
        annotations: a JSON file with ``images``, or None.

    Attributes:
        categories: names by id, where the annotation file has ``categories``.

    Raises:
        ValueError: the annotation file has no images, or ids twice; or the samples' ``coco_id`` are
            missing or not different.
    """

    def __init__(
        self, samples: Any, paths: Sequence[str], annotations: str | os.PathLike[str] | None
    ) -> None:
        self.categories: dict[int, str] = {}
        self._paths = paths
        if annotations is not None:
            self._numbers = self._from_annotations(annotations)
        else:
            _require_ids(samples)
            self._numbers = {n: k for k, n in enumerate(image_ids(samples))}

    def find(self, image_id: int | str) -> int | None:
        """The position of the sample that an id means; None where there is none, or several."""
        if isinstance(image_id, int):
            return self._numbers.get(image_id)
        position, _ = self._by_path(image_id)
        if position is None:
            stems = self._stems.get(image_id, [])
            position = stems[0] if len(stems) == 1 else None
        return position

    @cached_property
    def _stems(self) -> dict[str, list[int]]:
        """The positions of all samples by their names without suffix."""
        stems: dict[str, list[int]] = {}
        for position, path in enumerate(self._paths):
            stems.setdefault(PurePath(path).stem, []).append(position)
        return stems

    @cached_property
    def _from_the_end(self) -> list[tuple[tuple[str, ...], int]]:
        """The parts of all paths, last first, with the samples' positions, in order."""
        return sorted((PurePath(p).parts[::-1], position) for position, p in enumerate(self._paths))

    def _by_path(self, name: str) -> tuple[int | None, int]:
        """The position of the sample with this path, and how many of its parts agree."""
        parts = PurePosixPath(name.replace("\\", "/")).parts[::-1]
        at = bisect_left(self._from_the_end, (parts, -1))
        # those that share the most stand together, on one side of the place or on both
        around = self._from_the_end[max(at - 2, 0) : at + 2]
        shared = [_shared_start(parts, other) for other, _ in around]
        most = max(shared, default=0)
        if most == 0 or shared.count(most) > 1:
            return None, 0
        return around[shared.index(most)][1], most

    def _from_annotations(self, path: str | os.PathLike[str]) -> dict[int, int]:
        claims: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        seen: set[int] = set()
        for section, index, value in read_elements(path):
            if section == "images":
                number, name = _image_record(value, index, path)
                if number in seen:
                    raise ValueError(
                        f"{path} has two images of the id {number}; which is meant cannot be known"
                    )
                seen.add(number)
                position, shared = self._by_path(name)
                if position is not None:
                    claims[position].append((shared, number))
            elif section == "categories" and isinstance(value, dict):
                self._add_category(value)
        if not seen:
            raise ValueError(f"{path} has no list of images, with id and file_name")
        numbers = {}
        for position, claimants in claims.items():
            most = max(shared for shared, _ in claimants)
            best = [number for shared, number in claimants if shared == most]
            if len(best) == 1:
                numbers[best[0]] = position
        return numbers

    def _add_category(self, value: dict[str, Any]) -> None:
        number, name = value.get("id"), value.get("name")
        if type(number) is int and isinstance(name, str) and _is_text(name):
            self.categories[number] = name


def _image_record(value: Any, index: int, path: Any) -> tuple[int, str]:
    """Id and name; LVIS names its images by addresses, which end in folder and file."""
    record = value if isinstance(value, dict) else {}
    number, name = record.get("id"), record.get("file_name", record.get("coco_url"))
    if type(number) is not int or not isinstance(name, str):
        raise ValueError(f"{path}: image {index} has no whole number as id, or no file_name")
    return number, name


def _is_text(name: str) -> bool:
    """Whether a database can hold it: JSON can have halves of characters."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shared_start(a: Sequence[str], b: Sequence[str]) -> int:
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count


def _require_ids(samples: Any) -> None:
    """Refuse ids that are known of some images alone, or not different."""
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
            f"images cannot be told apart by their {field} ({problem}); give the annotation file "
            "that defines the ids, as annotations=..., or a view of images with different ids"
        )
