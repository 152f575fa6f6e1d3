"""The masks of a field with their groups and names, read without the masks themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import numpy as np
from numpy.typing import NDArray

from promerge_fo.dataset.database import aggregate, is_patches, root_dataset, storage_of
from promerge_fo.dataset.labels import LABEL
from promerge_fo.dataset.review.updates import each_label, reviewed_path, select_attributes
from promerge_fo.dataset.samples import all_images, images_of

__all__ = [
    "GROUPED",
    "Masks",
    "attributes_by_id",
    "group_members",
    "group_names",
    "group_number",
    "patches_of",
    "read_masks",
    "source_of",
    "vectors_of",
    "whole_of",
]

GROUPED = {"group": fo.StringField, "typicality": fo.FloatField}
_READ = ("label", "named_by", *GROUPED)

Json = dict[str, Any]


@dataclass(frozen=True)
class Masks:
    """The labels of a field, in stored order, n in all.

    Attributes:
        ids: (n,) the labels' ids.
        sample_ids: (n,) the ids of their samples.
        names: (n,) their ``label``; None where the mask has no name.
        groups: (n,) their ``group``, or None.
        typicality: (n,) float64, in [0, 1]; NaN where there is no group.
    """

    ids: NDArray[np.str_]
    sample_ids: NDArray[np.str_]
    names: NDArray[np.object_]
    groups: NDArray[np.object_]
    typicality: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def is_named(self) -> NDArray[np.bool_]:
        """(n,) whether each mask has a name."""
        return np.array([name is not None for name in self.names], dtype=np.bool_)


def vectors_of(
    samples: Any, label_field: str, masks: Masks
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The embeddings of masks.

    Masks without a finite embedding are left out, which the log says, and so are those that were
    deleted since the masks were read.

    Args:
        samples: the samples that hold the masks.
        label_field: the field with the masks.
        masks: some of its masks.

    Returns:
        The places (m,) among ``masks`` of those that have an embedding, and their vectors (m, d),
        as :class:`~promerge_fo.dataset.Embeddings` has them.

    Raises:
        ValueError: as :func:`~promerge_fo.dataset.read_embeddings`; or none of these masks is left.
    """
    # imported here because it takes seconds, and the App lists groups without
    from promerge_fo.dataset.classes.embeddings import read_embeddings

    embeddings = read_embeddings(samples, label_field)
    order = np.argsort(embeddings.label_ids)
    found = np.searchsorted(embeddings.label_ids, masks.ids, sorter=order)
    rows = order[np.minimum(found, len(order) - 1)]
    is_finite = np.asarray(np.isfinite(embeddings.vectors).all(axis=1))
    places = np.flatnonzero((embeddings.label_ids[rows] == masks.ids) & is_finite[rows])
    if len(places) == 0:
        raise ValueError(
            f"none of the {len(masks):,} masks of {label_field!r} has an embedding; promerge embed "
            f"{root_dataset(samples).name} --label-field {label_field} gives them one"
        )
    return places, embeddings.vectors[rows[places]]


def source_of(samples: Any) -> Any:
    """The samples as images; for patches, all images of the dataset that they were cut from."""
    samples = images_of(samples)
    return storage_of(samples) if is_patches(samples) else samples


def whole_of(samples: Any) -> Any:
    """All images of the dataset that samples are of, or all frames of its videos."""
    storage = storage_of(samples)
    return all_images(storage) if isinstance(storage, fo.Dataset) else storage


def read_masks(samples: Any, label_field: str) -> Masks:
    """Read the labels of a field with their groups and names, but not their masks.

    Args:
        samples: a dataset or a view of images.
        label_field: a field with detections.

    Raises:
        ValueError: the field does not hold detections, or has none.
    """
    path = reviewed_path(samples, label_field)
    wanted = {name: f"$$label.{name}" for name in ("_id", *_READ)}
    pipeline = [
        select_attributes(path, *_READ),
        {"$project": {"labels": each_label(path, wanted)}},
    ]
    found = [(row["_id"], label) for row in aggregate(samples, pipeline) for label in row["labels"]]
    if not found:
        raise ValueError(
            f"the field {label_field!r} has no masks here; promerge segment makes them"
        )
    return Masks(
        ids=np.array([str(label["_id"]) for _, label in found]),
        sample_ids=np.array([str(sample) for sample, _ in found]),
        names=_objects([_name_of(label) for _, label in found]),
        groups=_objects([label.get("group") for _, label in found]),
        typicality=np.array([label.get("typicality") for _, label in found], dtype=np.float64),
    )


def attributes_by_id(ids: Sequence[Any], **values: Sequence[Any]) -> Json:
    """Attributes that differ from label to label, as expressions of ``$$label``.

    Args:
        ids: the labels' ids.
        values: for each attribute, its values for these labels.
    """
    place = {"$indexOfArray": [list(ids), "$$label._id"]}
    return {
        name: {"$arrayElemAt": [{"$literal": list(each)}, place]} for name, each in values.items()
    }


def patches_of(
    samples: Any, label_field: str, ids: Iterable[str], sample_ids: Iterable[str]
) -> fo.DatasetView:
    """A patches view of some labels, in this order.

    Args:
        samples: a dataset or a view of images.
        label_field: a field with detections.
        ids: the ids of the labels.
        sample_ids: those of their samples.
    """
    images = list(dict.fromkeys(map(str, sample_ids)))
    ids = [str(i) for i in ids]
    chosen = samples.select(images).select_labels(ids=ids, fields=label_field)
    return chosen.to_patches(label_field).select(ids, ordered=True)


def group_names(masks: Masks) -> list[str]:
    """The names of the groups, the largest group first."""
    sizes = Counter(str(each) for each in masks.groups if each is not None)
    return sorted(sizes, key=lambda name: (-sizes[name], group_number(name), name))


def group_number(name: str) -> int:
    """The number of a group; 0 for a name that somebody else gave."""
    return int(name) if name.isdecimal() else 0


def group_members(masks: Masks, label_field: str, group: str) -> NDArray[np.int64]:
    """The places of the masks of a group, the most typical first.

    Raises:
        ValueError: there is no such group.
    """
    members = np.flatnonzero(masks.groups == group)
    if len(members) == 0:
        known = ", ".join(group_names(masks)) or "none; promerge group (group_instances) finds them"
        raise ValueError(f"{label_field!r} has no group {group!r}; its groups are: {known}")
    rank = np.nan_to_num(-masks.typicality[members], nan=1.0)
    return members[np.argsort(rank, kind="stable")]


def _name_of(label: Json) -> str | None:
    """The name of a label; None where it has that of all masks, "fg"."""
    name: str | None = label.get("label")
    return None if name == LABEL else name


def _objects(values: Sequence[Any]) -> NDArray[np.object_]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
