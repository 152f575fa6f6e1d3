"""Names for masks: by hand, by group, and spread to the nearest masks without a name.

A name is the ``label`` of a mask; without one that is "fg", as after a run. The label also says how
it came to its name: ``named_by`` ("hand", "group" or "propagation"), ``named_at``, the
``name_distance`` over which it was propagated, and ``former_label``, what it was called before.
Earlier names stay in ``name_past``, so that naming can be undone. A run that makes nearly the same
mask again hands its name on: see :mod:`promerge_fo.dataset.decided`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import fiftyone as fo
import numpy as np
from bson import ObjectId

from promerge_fo.dataset.classes.clustering import near_quantile, nearest
from promerge_fo.dataset.classes.masks import (
    attributes_by_id,
    group_members,
    patches_of,
    read_masks,
    source_of,
    vectors_of,
)
from promerge_fo.dataset.database import database_time, is_patches
from promerge_fo.dataset.decided import NAMED, NAMED_PAST
from promerge_fo.dataset.labels import LABEL
from promerge_fo.dataset.review.updates import (
    decide_all,
    decide_listed,
    declare,
    label_path,
    reviewed_path,
    take_back,
)

__all__ = [
    "Nearest",
    "list_names",
    "name_groups",
    "name_instances",
    "nearest_unnamed",
    "propagate_names",
    "undo_names",
    "view_nearest",
]

_MAX_PAST = 20  # earlier names that a label keeps
_CHUNK = 50_000  # labels that are named by one query

Json = dict[str, Any]


@dataclass(frozen=True)
class Nearest:
    """Masks without a name, n in all, the one nearest to a named mask first.

    Attributes:
        ids: the ids of the masks.
        sample_ids: the ids of their samples.
        names: the names of the nearest named masks.
        distances: the distances to them: 1 - cosine of the embeddings, in [0, 2].
        max_distance: the distance at which the search stopped.
    """

    ids: list[str]
    sample_ids: list[str]
    names: list[str]
    distances: list[float]
    max_distance: float

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, ids: Collection[str]) -> Nearest:
        """Those of the masks whose ids are given: what somebody who looked at them agreed to."""
        wanted = set(ids)
        kept = [i for i, each in enumerate(self.ids) if each in wanted]
        return Nearest(
            ids=[self.ids[i] for i in kept],
            sample_ids=[self.sample_ids[i] for i in kept],
            names=[self.names[i] for i in kept],
            distances=[self.distances[i] for i in kept],
            max_distance=self.max_distance,
        )

    def without(self, ids: Collection[str]) -> Nearest:
        """The masks but those whose ids are given: what somebody who looked at them refused."""
        return self.only(set(self.ids) - set(ids))


def name_instances(
    samples: Any, label_field: str, name: str, ids: Collection[str] | None = None
) -> int:
    """Give masks a name by hand, as one action, which one :func:`undo_names` takes back.

    Args:
        samples: a dataset, a view or a patches view. In a patches view, the labels that the patches
            were made from are named, too.
        label_field: a field with detections.
        name: the name; spaces around it are dropped.
        ids: the ids of the labels, such as ``session.selected`` of patches; ids that ``samples``
            does not contain are ignored. None names every label of ``samples``: to name masks by a
            rule, give a filtered view.

    Returns:
        The number of labels that were named. Labels of that name count as well.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images.
        ValueError: the field does not hold detections; the name is empty, has more than one line or
            is "fg", which masks without a name are called; ``ids`` has something that is no id.

    Examples:
        >>> name_instances(session.view, "promerge", "cat", session.selected)
        3
    """
    path, change = _prepare(samples, label_field, name, "hand")
    if ids is None and not is_patches(samples):
        return decide_all(samples, path, change, "named_at")
    chosen = None if ids is None else list(ids)
    return _name_listed(samples, path, chosen, change)


def name_groups(samples: Any, label_field: str, name: str, groups: Sequence[str]) -> int:
    """Give all masks of one or more groups a name, as one action.

    Args:
        samples: a dataset, a view or a patches view, which stands for its whole dataset.
        label_field: a field with groups, from :func:`~promerge_fo.dataset.group_instances`.
        name: as for :func:`name_instances`.
        groups: the names of the groups.

    Returns:
        The number of labels that were named.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images.
        ValueError: as :func:`name_instances`; or there is no such group.
    """
    whole = source_of(samples)
    path, change = _prepare(whole, label_field, name, "group")
    masks = read_masks(whole, label_field)
    groups = [groups] if isinstance(groups, str) else list(groups)
    members = [group_members(masks, label_field, str(group)) for group in groups]
    ids = masks.ids[np.unique(np.concatenate([np.zeros(0, np.int64), *members]))]
    count = _name_listed(whole, path, ids.tolist(), change)
    if is_patches(samples):
        samples.reload()
    return count


def nearest_unnamed(
    samples: Any,
    label_field: str,
    name: str | None = None,
    limit: int | None = 50,
    max_distance: float | None = None,
) -> Nearest:
    """Find the masks without a name that are nearest to those with one.

    Nothing is written: look at them with :func:`view_nearest`, and name those that are right with
    :func:`propagate_names`.

    Args:
        samples: a dataset, a view or a patches view, which stands for its whole dataset.
        label_field: a field whose masks have embeddings, and some of them names.
        name: only masks whose nearest named mask has this name; None takes all names.
        limit: the largest number of masks; None takes all.
        max_distance: the distance at which names stop, in [0, 2]. By default, that under which
            10 % of all pairs of masks lie.

    Raises:
        ValueError: no mask has a name, or this name; no mask has an embedding; ``limit`` is under
            1, or ``max_distance`` is not in [0, 2].
    """
    if limit is not None and limit < 1:
        raise ValueError(f"the limit is {limit}, but must be at least 1")
    if max_distance is not None and not 0 <= max_distance <= 2:
        raise ValueError(f"max_distance is {max_distance}, but must be in [0, 2]")
    samples = source_of(samples)
    masks = read_masks(samples, label_field)
    places, vectors = vectors_of(samples, label_field, masks)
    names = masks.names[places]
    is_named = masks.is_named[places]
    known = sorted({str(each) for each in names[is_named]})
    if not known or (name is not None and name not in known):
        wanted = "a name" if name is None else f"the name {name!r}"
        raise ValueError(
            f"no mask of {label_field!r} that has an embedding has {wanted}; the names are: "
            f"{', '.join(known) or 'none'}. promerge name (name_instances, name_groups) gives them"
        )
    if max_distance is None:
        max_distance = near_quantile(vectors)
    found, distances = nearest(vectors[~is_named], vectors[is_named])
    given = names[is_named][found]
    order = np.argsort(distances, kind="stable")
    fits = distances <= max_distance
    if name is not None:
        fits &= given == name
    order = order[fits[order]][:limit]
    chosen = places[~is_named][order]
    return Nearest(
        masks.ids[chosen].tolist(),
        masks.sample_ids[chosen].tolist(),
        given[order].tolist(),
        [round(float(each), 4) for each in distances[order]],
        max_distance,
    )


def view_nearest(samples: Any, label_field: str, found: Nearest) -> fo.DatasetView:
    """The masks that :func:`nearest_unnamed` found, as patches, the nearest first."""
    return patches_of(source_of(samples), label_field, found.ids, found.sample_ids)


def propagate_names(samples: Any, label_field: str, found: Nearest) -> int:
    """Give masks the names of their nearest named masks, as one action.

    Args:
        samples: a dataset, a view or a patches view, which stands for its whole dataset.
        label_field: a field with detections.
        found: from :func:`nearest_unnamed`.

    Returns:
        The number of labels that were named; masks that were deleted meanwhile do not count.

    Examples:
        >>> found = nearest_unnamed(dataset, "promerge", "cat")
        >>> session.view = view_nearest(dataset, "promerge", found)
        >>> propagate_names(dataset, "promerge", found.without(session.selected))
    """
    whole = source_of(samples)
    path = _declared_path(whole, label_field)
    change = _naming("propagation")
    by_id = {i: (n, d) for i, n, d in zip(found.ids, found.names, found.distances, strict=True)}

    def each(ids: list[ObjectId]) -> Json:
        names, distances = zip(*(by_id[str(i)] for i in ids), strict=True)
        return {**change, **attributes_by_id(ids, label=names, name_distance=distances)}

    count = _name_listed(whole, path, found.ids, each)
    if is_patches(samples):
        samples.reload()
    return count


def undo_names(samples: Any, label_field: str) -> int:
    """Take back the last action that named masks; call it again for the one before.

    The labels get back the names, and all that says how they came to them, that they had before.
    Each label keeps its 20 latest names.

    Args:
        samples: a dataset or a view: only labels of the view change. A patches view stands for the
            whole dataset that its patches were made from.
        label_field: a field with detections.

    Returns:
        The number of labels that changed; 0 if there was nothing to take back.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images.
        ValueError: the field does not hold detections.
    """
    past = {"$ifNull": [f"$$label.{NAMED_PAST}", []]}
    rest = {"$slice": [past, 1, {"$max": [1, {"$size": past}]}]}
    is_last = {"$lte": [{"$size": past}, 1]}
    before = {
        "$mergeObjects": [
            {"label": "$$label.label"},  # what is left where the past was too long to be kept
            {"$arrayElemAt": [past, 0]},
            {NAMED_PAST: {"$cond": [is_last, "$$REMOVE", rest]}},
        ]
    }
    path = reviewed_path(samples, label_field)
    return take_back(samples, path, "named_at", before, ("label", *NAMED, NAMED_PAST))


def list_names(samples: Any, label_field: str) -> dict[str, int]:
    """How many masks have which name, the most frequent name first.

    Args:
        samples: a dataset, a view or a patches view, which stands for its whole dataset.
        label_field: a field with detections.

    Raises:
        ValueError: the field does not hold detections, or has none.
    """
    masks = read_masks(source_of(samples), label_field)
    counts = Counter(map(str, masks.names[masks.is_named]))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _prepare(samples: Any, label_field: str, name: str, by: str) -> tuple[str, Json]:
    """The path of the labels, and the change that naming makes in them."""
    name = _checked(name)
    return _declared_path(samples, label_field), {**_naming(by), "label": {"$literal": name}}


def _checked(name: str) -> str:
    name = name.strip()
    if not name or not name.isprintable():
        raise ValueError(f"the name is {name!r}, but must be one line of text that is not empty")
    if name == LABEL:
        raise ValueError(
            f"the name is {LABEL!r}, which masks without a name are called; give another, or take "
            "names back with promerge name --undo (undo_names)"
        )
    return name


def _declared_path(samples: Any, label_field: str) -> str:
    path = label_path(samples, label_field)
    declare(samples, label_field, NAMED)
    return path


def _naming(by: str) -> Json:
    """What naming sets besides the name, as expressions of ``$$label``."""
    present = {key: f"$$label.{key}" for key in ("label", *NAMED)}
    past = {"$concatArrays": [[present], {"$ifNull": [f"$$label.{NAMED_PAST}", []]}]}
    return {
        "former_label": {"$ifNull": ["$$label.label", None]},
        "named_by": by,
        "named_at": database_time(),
        "name_distance": None,
        "name_from_run": None,
        NAMED_PAST: {"$slice": [past, _MAX_PAST]},
    }


def _name_listed(samples: Any, path: str, ids: Sequence[str] | None, change: Any) -> int:
    name = partial(decide_listed, samples, path, change=change)
    if ids is None:
        return name(ids=None)
    return sum(name(ids=ids[start : start + _CHUNK]) for start in range(0, len(ids), _CHUNK))
