"""The one adapter to FiftyOne's inner workings, and to the database behind it.

What FiftyOne does not document may change with any of its versions. So nothing else in this project
touches an attribute of FiftyOne's whose name starts with an underscore, or its collections in
MongoDB: it is done here, and tests hold each function at both ends of the range of versions that is
supported. On a later version a warning says so; nothing is refused.

In what follows, ``samples`` is a dataset or a view. Some views are *generated*: patches, and the
frames of videos, have documents of their own, in a temporary dataset, and hand changes back to the
collection that they were made from.
"""

from __future__ import annotations

import logging
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import fiftyone as fo
import fiftyone.core.odm as foo
import fiftyone.core.sample as fos
from bson import ObjectId
from fiftyone.core.video import FramesView
from pymongo import UpdateOne, WriteConcern
from pymongo.errors import ConnectionFailure, PyMongoError

__all__ = [
    "AWAY",
    "TESTED",
    "add_fields",
    "aggregate",
    "aggregate_stored",
    "bulk_update",
    "collection_of",
    "database_time",
    "dataset_id",
    "dataset_name",
    "dataset_of",
    "documents",
    "is_frames",
    "is_generated",
    "is_patches",
    "label_fields",
    "load_results",
    "merge_updates",
    "patiently",
    "propagate",
    "reload_samples",
    "root_dataset",
    "source_id",
    "stages_of",
    "storage_of",
    "store",
    "update_all",
    "validate_field_name",
    "view_of",
    "wait_for_database",
]

logger = logging.getLogger("fiftyone.promerge")

T = TypeVar("T")
Json = dict[str, Any]

TESTED = ("1.18.0", "1.22.1")  #: the oldest and the newest version of FiftyOne that were tested

WAIT_S = 600.0  #: how long a database may be away
_PAUSE_S = 1.0

AWAY = (ConnectionFailure,)
"""What pymongo raises while no server answers, or one stops answering."""


def untested(version: str) -> str | None:
    """What to say of a version of FiftyOne that is newer than the tested ones, or None.

    Examples:
        >>> untested("1.22.0") is None
        True
        >>> untested("1.99.0")
        'FiftyOne 1.99.0 is newer than 1.22.1, the newest version that was tested; ...'
    """
    if _numbers(version)[:2] <= _numbers(TESTED[1])[:2]:
        return None
    return (
        f"FiftyOne {version} is newer than {TESTED[1]}, the newest version that was tested; if "
        f"something fails, install that one: pip install fiftyone=={TESTED[1]}"
    )


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


if (_warning := untested(fo.__version__)) is not None:
    warnings.warn(_warning, stacklevel=2)


# Which samples these are


def root_dataset(samples: Any) -> Any:
    """The dataset that a user knows, whatever view of it is given."""
    return samples._root_dataset


def is_patches(samples: Any) -> bool:
    """Whether the samples are patches: cut out of images, one label each."""
    return bool(samples._is_patches)


def is_frames(samples: Any) -> bool:
    """Whether the samples are frames of videos, or patches of them."""
    return bool(samples._is_frames)


def is_generated(samples: Any) -> bool:
    """Whether the samples are copies in a temporary dataset: patches, or frames of videos."""
    return bool(samples._is_generated)


def label_fields(patches: Any) -> list[str]:
    """The fields whose labels patches were made from."""
    return list(patches._label_fields)


def source_id(patches: Any) -> str:
    """The field of a patch's document with the id of the sample or frame that it was cut from."""
    return "_frame_id" if is_frames(patches) else "_sample_id"


def storage_of(samples: Any) -> Any:
    """Where the labels are stored that patches were cut from: a dataset, or frames of videos.

    For other samples, their own dataset, or their frames.
    """
    while is_patches(samples):
        samples = samples._source_collection
    return samples._base_view if isinstance(samples, FramesView) else samples._dataset


def dataset_id(dataset: Any) -> str:
    """The id of a dataset in the database."""
    return str(dataset._doc.id)


def dataset_of(samples: Any) -> Any:
    """The dataset that has the samples' documents: of generated views, a temporary one."""
    return samples._dataset


def dataset_name(samples: Any) -> str:
    """The name of the dataset that has the samples' documents: of patches, a temporary one's."""
    return str(dataset_of(samples).name)


def collection_of(sample: Any) -> Any:
    """The view that a sample comes from, or else its dataset."""
    return getattr(sample, "_view", sample.dataset)


def stages_of(samples: Any) -> list[Json]:
    """A view's stages as JSON, without what differs at each call; none of a dataset."""
    if not isinstance(samples, fo.DatasetView):
        return []
    return list(samples._serialize(include_uuids=False))


def view_of(dataset: Any, stages: Sequence[Json]) -> Any:
    """The view that :func:`stages_of` describes."""
    return fo.DatasetView._build(dataset, stages)


# Reading and writing in the database


def aggregate(samples: Any, pipeline: Sequence[Json] = ()) -> Any:
    """Run an aggregation of MongoDB on the samples' documents, after the stages of their view."""
    return samples._aggregate(list(pipeline) or None)


def aggregate_stored(samples: Any, pipeline: Sequence[Json]) -> Any:
    """Run an aggregation on all documents of the samples' dataset."""
    return foo.aggregate(_stored(samples), list(pipeline))


def documents(samples: Any, query: Json, *fields: str) -> Iterator[Json]:
    """Documents of the samples' dataset that a query matches, with the id and these fields."""
    return iter(_stored(samples).find(query, dict.fromkeys(fields, True)))


def bulk_update(samples: Any, updates: Sequence[UpdateOne], *, durable: bool = False) -> None:
    """Update many documents of the samples' dataset.

    Args:
        samples: a dataset or a view.
        updates: one for each document, in any order.
        durable: return only once the changes are in the server's journal: a server that is killed
            may lose what is not.
    """
    if not updates:
        return
    if durable:
        stored = _stored(samples).with_options(write_concern=WriteConcern(w=1, j=True))
        stored.bulk_write(list(updates), ordered=False)
    else:
        foo.bulk_write(list(updates), _stored(samples))


def update_all(samples: Any, query: Json, update: Sequence[Json] | Json) -> None:
    """Update all documents of the samples' dataset that a query matches."""
    _stored(samples).update_many(query, update)


def merge_updates(samples: Any, pipeline: Sequence[Json], update: Sequence[Json]) -> None:
    """Update the documents of which an aggregation on the samples gives the ``_id``.

    Args:
        samples: a dataset or a view, not of patches.
        pipeline: its rows are ``$$new`` in the update.
        update: a pipeline, as MongoDB's ``$merge`` takes it.
    """
    merge = {
        "into": samples._dataset._sample_collection_name,
        "on": "_id",
        "whenMatched": list(update),
        "whenNotMatched": "discard",
    }
    list(aggregate(samples, [*pipeline, {"$merge": merge}]))


def reload_samples(samples: Any, ids: Sequence[str | ObjectId] | None = None) -> None:
    """Let the sample objects in memory, or those with these ids, show what the database holds."""
    name = samples._dataset._sample_collection_name
    fos.Sample._reload_docs(name, sample_ids=None if ids is None else [str(i) for i in ids])


def add_fields(samples: Any, fields: Mapping[str, type[fo.Field]], **kwargs: Any) -> None:
    """Declare fields in the schema of the samples' dataset, and of the videos that frames are of.

    Args:
        samples: a dataset or a view.
        fields: the type of each path; one that is declared already must be of it.
        kwargs: of ``add_sample_field``.

    Raises:
        ValueError: a field of another type.
    """
    for path, kind in fields.items():
        dataset_of(samples).add_sample_field(path, kind, **kwargs)
        if isinstance(samples, FramesView):
            root_dataset(samples).add_frame_field(path, kind, **kwargs)


def propagate(samples: Any, label_field: str) -> None:
    """Pass on labels that were written here: frames to their videos, documents to objects."""
    storage = storage_of(samples)
    if isinstance(storage, FramesView):
        storage._sync_source(fields=[label_field])
    for each in (storage, samples):
        reload_samples(each)


def validate_field_name(name: str) -> None:
    """Refuse what FiftyOne takes for no name of a field.

    Raises:
        ValueError: with the reason.
    """
    foo.validate_field_name(name)


def database_time() -> datetime:
    """The time by the database server's clock: one clock for all who use it."""
    time: datetime = foo.get_db_conn().command("hello")["localTime"]
    return time


def store(dataset: Any = None) -> Any:
    """FiftyOne's key-value store of this plugin: of a dataset, or of all if None."""
    from fiftyone.operators.store import ExecutionStore

    own = {} if dataset is None else {"dataset_id": dataset._doc.id}
    return ExecutionStore.create("@promerge/promerge", **own)


def load_results(kind: type[T], *args: Any, **kwargs: Any) -> T:
    """Evaluation results as FiftyOne reads them for the class above ``kind``."""
    loaded: T = super(kind, kind)._from_dict(*args, **kwargs)  # type: ignore[misc]
    return loaded


def _stored(samples: Any) -> Any:
    """The collection of MongoDB with the samples' documents."""
    return samples._dataset._sample_collection


# A database that is away


def patiently(action: Callable[[], T]) -> T:
    """Do something with the database, again and again while it is away.

    Args:
        action: may be done twice: a server that breaks off may have done it already.

    Raises:
        pymongo.errors.ConnectionFailure: it was away for longer than :data:`WAIT_S` seconds.
    """
    while True:
        try:
            return action()
        except AWAY as error:
            wait_for_database(error)


def wait_for_database(reason: Exception) -> None:
    """Return as soon as the database answers.

    Args:
        reason: why it is waited for.

    Raises:
        Exception: the reason, after :data:`WAIT_S` seconds.
    """
    logger.warning("the database is away (%s); waiting for it", str(reason)[:200])
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        try:
            foo.get_db_conn().command("ping")
            return
        except PyMongoError:
            time.sleep(_PAUSE_S)
    raise reason
