"""Groups of masks that look alike: found, listed, shown, split and merged.

A group is an attribute of labels: ``group``, a number as text ("1" is the largest when groups are
found; None for a mask of no group), and ``typicality``, how close the mask's embedding is to the
group's mean: their cosine, in [0, 1]. So Python and the App's sidebar can filter by both.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import fiftyone as fo
import numpy as np
from bson import ObjectId
from numpy.typing import NDArray
from pymongo import UpdateOne

from promerge_fo.dataset.classes.clustering import FITTED, find_groups, partition, typicality_of
from promerge_fo.dataset.classes.masks import (
    GROUPED,
    Masks,
    attributes_by_id,
    group_members,
    group_names,
    group_number,
    patches_of,
    read_masks,
    source_of,
    vectors_of,
    whole_of,
)
from promerge_fo.dataset.database import bulk_update, propagate, storage_of
from promerge_fo.dataset.review.updates import declare, update_labels
from promerge_fo.progress import ShowProgress, progress_bar

__all__ = [
    "Group",
    "TypicalFirst",
    "group_instances",
    "list_groups",
    "merge_groups",
    "split_group",
    "view_group",
]

logger = logging.getLogger("fiftyone.promerge")

TypicalFirst: TypeAlias = Literal["most typical", "least typical"]
_TYPICAL = 4  # masks that stand for a group
_CHUNK = 1000  # samples that are written at once


@dataclass(frozen=True)
class Group:
    """A group of masks.

    Attributes:
        name: what the attribute ``group`` of its masks is.
        size: the number of its masks.
        typical: the ids of its four most typical masks, the most typical one first.
        sample_ids: the ids of their samples.
        names: how many of its masks have which name; masks without a name are not counted.
    """

    name: str
    size: int
    typical: list[str]
    sample_ids: list[str]
    names: dict[str, int]

    def __str__(self) -> str:
        given = ", ".join(f"{count:,} {name}" for name, count in self.names.items())
        masks = "1 mask" if self.size == 1 else f"{self.size:,} masks"
        return f"group {self.name}: {masks}{given and f' ({given})'}"


def group_instances(
    samples: Any,
    label_field: str,
    groups: int | None = None,
    *,
    fit_on: int = FITTED,
    seed: int = 0,
    progress: ShowProgress = None,
) -> list[Group]:
    """Put masks that look alike into groups, by their embeddings.

    The attributes ``group`` and ``typicality`` of all labels of ``samples`` are replaced. Labels
    outside of a view keep their groups, and the new groups get other numbers. The same embeddings
    give the same groups.

    Args:
        samples: a dataset or a view of images.
        label_field: a field with masks that have embeddings, from
            :func:`~promerge_fo.dataset.embed_instances`.
        groups: how many groups to make; None finds their number.
        fit_on: where there are more masks, groups are found on so many of them, drawn by ``seed``,
            and every other mask joins the nearest group. At least 2.
        seed: of everything that is drawn.
        progress: whether to show a progress bar over the images (None: as FiftyOne's config says),
            or a function that makes one; see :data:`promerge_fo.progress.ShowProgress`.

    Returns:
        The groups, the largest first.

    Raises:
        ValueError: the field has no masks, or only one; no mask has an embedding without NaN, or
            all embeddings are equal; there are fewer masks than groups.

    Examples:
        >>> [str(group) for group in group_instances(dataset, "promerge")]
        ['group 1: 2 masks', ...]
        >>> session.view = view_group(dataset, "promerge", "1")
    """
    samples = source_of(samples)
    masks = read_masks(samples, label_field)
    places, vectors = _embedded(samples, label_field, masks)
    found = find_groups(vectors, groups, fit_on=fit_on, seed=seed)
    taken = _numbers_outside(samples, label_field, masks)
    names: NDArray[np.object_] = np.full(len(masks), None, dtype=object)
    names[places] = [None if g < 0 else str(g + 1 + taken) for g in found]
    typicality = np.full(len(masks), np.nan)
    typicality[places] = typicality_of(vectors, found)
    _write(samples, label_field, masks, names, typicality, progress)
    left = int(sum(name is None for name in names))
    if left:
        logger.info("promerge: %d of %d masks are in no group", left, len(masks))
    return list_groups(samples, label_field)


def list_groups(samples: Any, label_field: str) -> list[Group]:
    """The groups of a field, the largest first; none before :func:`group_instances`.

    Args:
        samples: a dataset, a view or a patches view, which stands for its whole dataset.
        label_field: a field with detections.

    Raises:
        ValueError: the field does not hold detections, or has none.
    """
    masks = read_masks(source_of(samples), label_field)
    found = []
    for name in group_names(masks):
        members = group_members(masks, label_field, name)
        first = members[:_TYPICAL]
        names = Counter(str(each) for each in masks.names[members] if each is not None)
        ids, sample_ids = masks.ids[first].tolist(), masks.sample_ids[first].tolist()
        found.append(Group(name, len(members), ids, sample_ids, dict(names.most_common())))
    return found


def view_group(
    samples: Any,
    label_field: str,
    group: str,
    first: TypicalFirst = "most typical",
    limit: int = 500,
) -> fo.DatasetView:
    """The masks of a group as patches, the most or the least typical ones first.

    Args:
        samples: a dataset, a view or a patches view, which stands for its whole dataset.
        label_field: a field with groups.
        group: the name of the group.
        first: "most typical" or "least typical".
        limit: the largest number of masks in the view, at least 1.

    Raises:
        ValueError: there is no such group, or no such order, or ``limit`` is under 1.
    """
    if first not in get_args(TypicalFirst):
        orders = " or ".join(map(repr, get_args(TypicalFirst)))
        raise ValueError(f"first is {first!r}, but must be {orders}")
    if limit < 1:
        raise ValueError(f"the limit is {limit}, but must be at least 1")
    samples = source_of(samples)
    masks = read_masks(samples, label_field)
    members = group_members(masks, label_field, group)
    shown = (members if first == "most typical" else members[::-1])[:limit]
    return patches_of(samples, label_field, masks.ids[shown], masks.sample_ids[shown])


def merge_groups(samples: Any, label_field: str, groups: Sequence[str]) -> Group:
    """Make one group of several; it gets the name of the first one.

    Args:
        samples: a dataset, a view or a patches view; the whole dataset is changed.
        label_field: a field with groups.
        groups: the names of two or more groups.

    Returns:
        The merged group.

    Raises:
        ValueError: there are fewer than two different groups, or there is no such group.
    """
    groups = [groups] if isinstance(groups, str) else [str(each) for each in groups]
    if len(set(groups)) < 2 or len(set(groups)) < len(groups):
        given = ", ".join(groups) or "none"
        raise ValueError(f"the groups to merge are {given}, but must be two or more different ones")
    whole = whole_of(samples)
    masks = read_masks(whole, label_field)
    members = np.sort(np.concatenate([group_members(masks, label_field, each) for each in groups]))
    _regroup(whole, label_field, masks, members, np.zeros(len(members), np.int64), groups[:1])
    return _group(whole, label_field, groups[0])


def split_group(
    samples: Any, label_field: str, group: str, into: int = 2, *, seed: int = 0
) -> list[Group]:
    """Split a group by what looks alike in it.

    The largest part keeps the group's name; the others get new numbers.

    Args:
        samples: a dataset, a view or a patches view; the whole dataset is changed.
        label_field: a field with groups.
        group: the name of the group.
        into: how many parts, at least 2.
        seed: of the split.

    Returns:
        The parts, the largest first.

    Raises:
        ValueError: there is no such group; ``into`` is under 2; the group has fewer masks with an
            embedding, or their embeddings are equal.
    """
    group = str(group)
    if into < 2:
        raise ValueError(f"into is {into}, but must be at least 2 parts")
    whole = whole_of(samples)
    masks = read_masks(whole, label_field)
    members = np.sort(group_members(masks, label_field, group))
    places, vectors = _embedded(whole, label_field, masks)
    inside = np.isin(places, members)
    members = places[inside]  # masks without an embedding stay where they are
    if len(members) < into:
        raise ValueError(
            f"group {group!r} has {len(members)} masks with an embedding, too few for {into} parts"
        )
    parts = partition(vectors[inside], into, seed=seed)
    if parts.max() + 1 < into:
        raise ValueError(
            f"group {group!r} cannot be split into {into} parts: too many of its embeddings are "
            "equal"
        )
    largest = max(map(group_number, group_names(masks)))
    names = [group, *(str(largest + 1 + part) for part in range(into - 1))]
    _regroup(whole, label_field, masks, members, parts, names)
    return [each for each in list_groups(whole, label_field) if each.name in names]


def _embedded(
    samples: Any, label_field: str, masks: Masks
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """As :func:`vectors_of`, of at least two masks."""
    if len(masks) == 1:
        raise ValueError(f"the field {label_field!r} has one mask here; groups want at least two")
    return vectors_of(samples, label_field, masks)


def _regroup(
    samples: Any,
    label_field: str,
    masks: Masks,
    members: NDArray[np.int64],
    parts: NDArray[np.int64],
    names: Sequence[str],
) -> None:
    """Give these masks new groups: for each its part, by the parts' names."""
    chosen = Masks(*(values[members] for values in vars(masks).values()))
    typicality = chosen.typicality.copy()
    places, vectors = vectors_of(samples, label_field, chosen)
    typicality[places] = typicality_of(vectors, parts[places])
    groups = np.array(names, dtype=object)[parts]
    _write(samples, label_field, chosen, groups, typicality)


def _write(
    samples: Any,
    label_field: str,
    masks: Masks,
    groups: NDArray[np.object_],
    typicality: NDArray[np.float64],
    progress: ShowProgress = False,
) -> None:
    """Store the groups of masks, by one update a sample."""
    declare(samples, label_field, GROUPED)
    path, storage = f"{label_field}.detections", storage_of(samples)
    values = [None if np.isnan(t) else round(float(t), 4) for t in typicality]
    order = np.argsort(masks.sample_ids, kind="stable")
    _, starts = np.unique(masks.sample_ids[order], return_index=True)
    rows = np.split(order, starts[1:])
    with progress_bar(progress, len(rows)) as bar:
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            updates = []
            for row in chunk:
                ids = [ObjectId(i) for i in masks.ids[row]]
                change = attributes_by_id(
                    ids, group=groups[row].tolist(), typicality=[values[i] for i in row]
                )
                update = update_labels(path, {"$in": ["$$label._id", ids]}, change)
                updates.append(UpdateOne({"_id": ObjectId(masks.sample_ids[row[0]])}, update))
            bulk_update(storage, updates)
            bar.update(len(chunk))
    propagate(samples, label_field)


def _group(samples: Any, label_field: str, name: str) -> Group:
    return next(each for each in list_groups(samples, label_field) if each.name == name)


def _numbers_outside(samples: Any, label_field: str, masks: Masks) -> int:
    """The largest number of a group of labels that are not among these."""
    whole = read_masks(whole_of(samples), label_field)
    outside = ~np.isin(whole.ids, masks.ids)
    return max((group_number(str(g)) for g in whole.groups[outside] if g is not None), default=0)
