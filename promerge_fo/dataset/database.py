"""The one adapter to FiftyOne's undocumented interface, and to the database behind it.

Whatever FiftyOne does not document may change with any version. So only this file uses FiftyOne's
attributes that start with an underscore, and its collections in MongoDB. Tests check each function
with the oldest and the newest supported version. A newer version causes a warning, but no error.

Below, ``samples`` is a dataset or a view. Some views are *generated*: patches, and the frames of
videos, have documents of their own in a temporary dataset. FiftyOne passes changes on to the
collection that they were made from.
"""

from __future__ import annotations

import logging
import os
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

import fiftyone as fo
import fiftyone.core.frame as fofr
import fiftyone.core.odm as foo
import fiftyone.core.sample as fos
import fiftyone.core.utils as fou
from bson import DBRef, ObjectId
from fiftyone.core.odm.runs import RunDocument
from fiftyone.core.runs import BaseRun
from fiftyone.core.video import FramesView
from pymongo import UpdateOne, WriteConcern
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    DocumentTooLarge,
    DuplicateKeyError,
    PyMongoError,
)

if TYPE_CHECKING:
    from fiftyone.operators.store import ExecutionStore
    from pymongo.collection import Collection

__all__ = [
    "CHUNK",
    "FRAMES",
    "TESTED_VERSIONS",
    "add_fields",
    "aggregate",
    "aggregate_stored",
    "bulk_update",
    "changed_schema",
    "chosen_labels",
    "collection_of",
    "companion",
    "complete_runs",
    "database_time",
    "dataset_id",
    "dataset_name",
    "dataset_of",
    "datasets_with_images",
    "documents",
    "documents_of",
    "drop_lost_companions",
    "forget_loaded",
    "frames_of",
    "generated_base",
    "is_frames",
    "is_generated",
    "is_patches",
    "is_too_large",
    "label_fields",
    "load_results",
    "merge_updates",
    "propagate",
    "reasons_of_fiftyone",
    "reload_samples",
    "replaced_run",
    "retry_while_unreachable",
    "room_left",
    "root_dataset",
    "set_all",
    "similarity_backend",
    "source_id",
    "stages_of",
    "storage_of",
    "store",
    "update_all",
    "update_frames",
    "validate_field_name",
    "view_of",
    "wait_for_database",
]

logger = logging.getLogger("fiftyone.promerge")

T = TypeVar("T")
Json = dict[str, Any]

TESTED_VERSIONS = ("1.18.0", "1.22.1")  #: the oldest and the newest tested version of FiftyOne

_COMPANION = "promerge"  # what the names of companions begin with

FRAMES = "frames."  #: what the paths of frames' fields begin with, in a dataset of videos

CHUNK = 500  #: ids in one query, or documents in one request: no request grows with a dataset
WAIT_S = 600.0  #: how long to wait for an unreachable database, in seconds
_PAUSE_S = 1.0
_LOCKS = "promerge_locks"  # a collection of our own
_LOCKED_S = 30.0  # after which the lock of a process that was killed opens
_LOCK_PAUSE_S = 0.02
_TRIES = 10
_LARGEST_DOCUMENT = 16 << 20  # bytes; MongoDB's limit
_TOO_LARGE = {10334, 17419, 17420}  # its codes for documents over it


def untested(version: str) -> str | None:
    """A warning about a version of FiftyOne that is newer than the tested ones; else None.

    Examples:
        >>> untested("1.22.0") is None
        True
        >>> untested("1.99.0")
        'FiftyOne 1.99.0 is newer than 1.22.1, the newest version that was tested; ...'
    """
    newest = TESTED_VERSIONS[1]
    if _numbers(version)[:2] <= _numbers(newest)[:2]:
        return None
    return (
        f"FiftyOne {version} is newer than {newest}, the newest version that was tested; if "
        f"something fails, install that one: pip install fiftyone=={newest}"
    )


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


if (_warning := untested(fo.__version__)) is not None:
    warnings.warn(_warning, stacklevel=2)


# Datasets and views


def root_dataset(samples: Any) -> fo.Dataset:
    """The user's dataset behind any view, also behind patches and frames."""
    return samples._root_dataset


def is_patches(samples: Any) -> bool:
    """Whether the samples are patches: crops of images, one for each label."""
    return bool(samples._is_patches)


def is_frames(samples: Any) -> bool:
    """Whether the samples are frames of videos, or patches of such frames."""
    return bool(samples._is_frames)


def is_generated(samples: Any) -> bool:
    """Whether the samples are copies in a temporary dataset: patches, or frames of videos."""
    return bool(samples._is_generated)


def generated_base(samples: Any) -> Any:
    """All patches or frames that a generated view was made with, before its further stages."""
    return samples._base_view


def label_fields(patches: Any) -> list[str]:
    """The fields whose labels patches were made from."""
    return list(patches._label_fields)


def source_id(patches: Any) -> str:
    """The field of a patch's document that holds the id of its sample or frame."""
    return "_frame_id" if is_frames(patches) else "_sample_id"


def storage_of(samples: Any) -> Any:
    """The dataset, or the view of video frames, that stores the labels of the samples.

    Labels of patches are stored where the patches were cut from.
    """
    while is_patches(samples):
        samples = samples._source_collection
    return samples._base_view if isinstance(samples, FramesView) else samples._dataset


def dataset_id(dataset: fo.Dataset) -> str:
    """The id of a dataset in the database."""
    return str(dataset._doc.id)


def dataset_of(samples: Any) -> fo.Dataset:
    """The dataset that holds the samples' documents: a temporary one for generated views."""
    return samples._dataset


def dataset_name(samples: Any) -> str:
    """The name of the dataset that holds the samples' documents; see :func:`dataset_of`."""
    return str(dataset_of(samples).name)


def datasets_with_images(*folders: str) -> list[str]:
    """The names of the datasets that have images in one of some folders, or below it.

    Fast for any number of datasets and images: no dataset is loaded, and FiftyOne keeps an index of
    the images' paths.
    """
    starts = [re.escape(folder.rstrip(os.sep) + os.sep) for folder in folders]
    query = {"$or": [{"filepath": {"$regex": f"^{start}"}} for start in starts]}
    server = foo.get_db_conn()
    listed = server["datasets"].find({"name": {"$in": fo.list_datasets()}})
    return sorted(
        each["name"]
        for each in listed
        if server[each["sample_collection_name"]].find_one(query, {"_id": True})
    )


def collection_of(sample: Any) -> Any:
    """The view that a sample belongs to, or its dataset if it belongs to no view."""
    return getattr(sample, "_view", sample.dataset)


def stages_of(samples: Any) -> list[Json]:
    """The stages of a view as JSON, without ids that differ at each call; none for a dataset."""
    if not isinstance(samples, fo.DatasetView):
        return []
    return list(samples._serialize(include_uuids=False))


def view_of(dataset: fo.Dataset, stages: Sequence[Json]) -> fo.DatasetView:
    """The view that :func:`stages_of` describes."""
    return fo.DatasetView._build(dataset, stages)


# Reading and writing in the database


def aggregate(samples: Any, pipeline: Sequence[Json] = ()) -> Any:
    """Run a MongoDB aggregation on the samples' documents, after the stages of their view."""
    return samples._aggregate(list(pipeline) or None)


def aggregate_stored(samples: Any, pipeline: Sequence[Json]) -> Any:
    """Run a MongoDB aggregation on all documents of the samples' dataset."""
    return foo.aggregate(_stored(samples), list(pipeline))


def documents(samples: Any, query: Json, *fields: str) -> Iterator[Json]:
    """The documents of the samples' dataset that match a query: their ids and these fields."""
    return iter(_stored(samples).find(query, dict.fromkeys(fields, True)))


def documents_of(samples: Any, ids: Iterable[ObjectId], *fields: str) -> Iterator[Json]:
    """The documents with these ids, however many: see :func:`documents`; in any order."""
    for chunk in fou.iter_batches(ids, CHUNK):
        yield from documents(samples, {"_id": {"$in": list(chunk)}}, *fields)


def frames_of(videos: Any, ids: Iterable[str], query: Json, *fields: str) -> Iterator[Json]:
    """The stored frames of some videos that match a query: ``_sample_id`` and these fields.

    Args:
        videos: a dataset or a view of videos.
        ids: of the videos, however many.
        query: of MongoDB, on the frames' own fields.
        fields: as ``frame_number``, or a path within a label.
    """
    shown = dict.fromkeys(("_sample_id", *fields), True)
    for chunk in fou.iter_batches(ids, CHUNK):
        own = {"_sample_id": {"$in": [ObjectId(each) for each in chunk]}}
        yield from _stored_frames(videos).find({**own, **query}, shown)


def update_frames(videos: Any, ids: Iterable[str], query: Json, update: Json) -> int:
    """Update the stored frames of some videos that match a query; returns how many do.

    See :func:`frames_of`.
    """
    count = 0
    for chunk in fou.iter_batches(ids, CHUNK):
        own = {"_sample_id": {"$in": [ObjectId(each) for each in chunk]}}
        count += _stored_frames(videos).update_many({**own, **query}, update).matched_count
    fofr.Frame._reload_docs(dataset_of(videos)._frame_collection_name)
    return count


def forget_loaded(frame: Any, field: str) -> None:
    """Forget the value of a field that was loaded with a frame; what is stored stays."""
    frame._doc._data.pop(field, None)


def companion(samples: Any, label_field: str) -> Collection[Json]:
    """The collection for what is kept beside a field: too large to be loaded with every sample.

    FiftyOne knows nothing of it, and reads it for nothing. Its documents have the ids of samples.
    """
    name = f"{_COMPANION}.{dataset_id(dataset_of(samples))}.{label_field}"
    collection: Collection[Json] = foo.get_db_conn()[name]
    return collection


def drop_lost_companions() -> None:
    """Drop the collections of :func:`companion` whose dataset or field is there no more."""
    server = foo.get_db_conn()
    names = server.list_collection_names(filter={"name": {"$regex": rf"^{_COMPANION}\."}})
    fields = {  # after the names: a dataset that is made meanwhile is known
        str(each["_id"]): {field["name"] for field in each.get("sample_fields") or []}
        for each in server["datasets"].find({}, {"sample_fields.name": True})
    }
    for name in names:
        _, dataset, field = name.split(".", 2)
        if field not in fields.get(dataset, ()):
            server.drop_collection(name)


def bulk_update(samples: Any, updates: Iterable[UpdateOne], *, durable: bool = False) -> None:
    """Update many documents of the samples' dataset.

    Args:
        samples: a dataset or a view.
        updates: one for each document, in any order; they are read and sent in pieces.
        durable: wait until the changes are in the server's journal; a server that is killed may
            lose other changes.

    Raises:
        pymongo.errors.BulkWriteError: the server refused some; all others are made. An ``index``
            counts all updates.
    """
    stored = _stored(samples)
    if durable:
        stored = stored.with_options(write_concern=WriteConcern(w=1, j=True))
    errors: list[Json] = []
    for number, chunk in enumerate(fou.iter_batches(updates, CHUNK)):
        try:
            stored.bulk_write(list(chunk), ordered=False)
        except BulkWriteError as error:
            found = (error.details or {}).get("writeErrors", [])
            if not found:
                raise
            start = number * CHUNK  # and without the updates, which may be long
            errors += [{**each, "index": each["index"] + start, "op": None} for each in found]
    if errors:
        raise BulkWriteError({"writeErrors": errors})


def update_all(samples: Any, query: Json, update: Sequence[Json] | Json) -> int:
    """Update all documents of the samples' dataset that match a query; returns how many do."""
    return int(_stored(samples).update_many(query, update).matched_count)


def chosen_labels(
    samples: Any, label_field: str, chosen: Iterable[tuple[ObjectId, ObjectId]]
) -> fo.DatasetView:
    """A view of some labels, however many: the ids lie in a temporary collection.

    FiftyOne's ``select_labels`` takes the ids into the view's stage, which holds some 850,000.

    Args:
        samples: a dataset or a view.
        label_field: a field of detections.
        chosen: the ids of the labels' samples, each sample's together, and of the labels.

    Returns:
        The samples with these labels alone; other fields are as they were. FiftyOne deletes the
        collection with its other temporary data, when its last session ends.
    """
    stored = _stored(fo.Dataset(_patches=True))  # as FiftyOne makes those of patches
    rows = (
        {"_id": sample_id, "labels": [label_id for _, label_id in pairs]}
        for sample_id, pairs in groupby(chosen, itemgetter(0))
    )
    for batch in fou.iter_batches(rows, CHUNK):
        stored.insert_many(batch)
    path, ids = f"{label_field}.detections", {"$first": "$_chosen.labels"}
    is_chosen = {"$in": ["$$label._id", ids]}
    labels = {"$filter": {"input": f"${path}", "as": "label", "cond": is_chosen}}
    own = {"from": stored.name, "localField": "_id", "foreignField": "_id", "as": "_chosen"}
    return samples.mongo(
        [
            {"$lookup": own},
            {"$match": {"_chosen": {"$ne": []}}},
            {"$set": {path: labels}},
            {"$unset": "_chosen"},
        ]
    )


def room_left(samples: Any, ids: Sequence[str | ObjectId], field: str) -> dict[str, int]:
    """The bytes that a field may take in the documents of some samples, by their ids.

    MongoDB's documents hold 16 MB; what else is in them counts, and what the field has now does
    not.
    """
    others = {"$subtract": [{"$bsonSize": "$$ROOT"}, {"$ifNull": [{"$bsonSize": f"${field}"}, 0]}]}
    stages: list[Json] = [
        {"$match": {"_id": {"$in": [ObjectId(each) for each in ids]}}},
        {"$project": {"others": others}},
    ]
    return {
        str(each["_id"]): _LARGEST_DOCUMENT - each["others"]
        for each in _stored(samples).aggregate(stages)
    }


def is_too_large(error: BaseException) -> bool:
    """Whether the database refused documents because they would be too large, and nothing else."""
    refused = error if isinstance(error, BulkWriteError) else error.__cause__
    if isinstance(refused, BulkWriteError) and refused.details:
        return {each["code"] for each in refused.details["writeErrors"]} <= _TOO_LARGE
    return isinstance(error, DocumentTooLarge)


@contextmanager
def reasons_of_fiftyone() -> Iterator[dict[str, Exception]]:
    """Why ``apply_model`` stores no labels, by the first sample of each batch that it leaves out.

    Of videos, by each video that it does not read to its end.

    It tells its log alone. The dictionary is filled while the block runs. A connection that broke
    is no reason, as it says nothing of the sample.
    """
    reasons: dict[str, Exception] = {}

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said: Any = record.args
            reason = said[-1] if isinstance(said, tuple) and len(said) in (2, 3) else None
            if isinstance(reason, Exception) and not isinstance(reason, ConnectionFailure):
                reasons[str(said[0])] = reason

    log, listener = logging.getLogger("fiftyone.core.models"), Listener()
    log.addHandler(listener)
    try:
        yield reasons
    finally:
        log.removeHandler(listener)


def set_all(samples: Any, path: str, value: Any) -> None:
    """Set a field of all samples to one value, without loading anything.

    Args:
        samples: a dataset or a view, not of patches or frames.
        path: the path of the field.
        value: the value.
    """
    update = {"$set": {path: {"$literal": value}, "last_modified_at": "$$NOW"}}
    merge_updates(samples, [{"$project": {"_id": True}}], [update])
    reload_samples(samples)


def merge_updates(samples: Any, pipeline: Sequence[Json], update: Sequence[Json]) -> None:
    """Run an aggregation on the samples, and use each row to update the document with its ``_id``.

    Args:
        samples: a dataset or a view, not of patches.
        pipeline: the aggregation; the update refers to its row as ``$$new``.
        update: the ``whenMatched`` pipeline of MongoDB's ``$merge``.
    """
    merge = {
        "into": samples._dataset._sample_collection_name,
        "on": "_id",
        "whenMatched": list(update),
        "whenNotMatched": "discard",
    }
    list(aggregate(samples, [*pipeline, {"$merge": merge}]))


def reload_samples(samples: Any, ids: Sequence[str | ObjectId] | None = None) -> None:
    """Reload the sample objects in memory, or only those with these ids, from the database."""
    name = samples._dataset._sample_collection_name
    fos.Sample._reload_docs(name, sample_ids=None if ids is None else [str(i) for i in ids])


def add_fields(samples: Any, fields: Mapping[str, type[fo.Field]], **kwargs: Any) -> None:
    """Declare fields in the schema of the samples' dataset; for frames, also in that of the videos.

    Any number of threads and processes may do this at once.

    Args:
        samples: a dataset or a view.
        fields: the type of each field, by its path; those of videos' frames begin with "frames.".
        kwargs: arguments for ``add_sample_field``.

    Raises:
        ValueError: a field is already declared with another type.
    """
    of_frames = {
        path.removeprefix(FRAMES): kind for path, kind in fields.items() if path.startswith(FRAMES)
    }
    others = {path: kind for path, kind in fields.items() if not path.startswith(FRAMES)}
    declared = [
        (dataset_of(samples), "sample_fields", others),
        (dataset_of(samples), "frame_fields", of_frames),
    ]
    if isinstance(samples, FramesView):
        declared.append((root_dataset(samples), "frame_fields", others))
    for dataset, kind, own in declared:
        if own:
            _add_fields(dataset, kind, own, **kwargs)


def _add_fields(
    dataset: fo.Dataset, kind: str, fields: Mapping[str, type[fo.Field]], **kwargs: Any
) -> None:
    schema = dataset.get_field_schema if kind == "sample_fields" else dataset.get_frame_field_schema

    def declared() -> tuple[set[str], set[str]]:
        """Those of the fields that are declared in memory, and in the database."""
        stored = _stored_fields(dataset, kind)
        return fields.keys() & schema(flat=True).keys(), fields.keys() & stored

    if all(found == fields.keys() for found in declared()):
        declare_at_once(dataset, fields, kind, **kwargs)  # refuses another type
        return
    with changed_schema(dataset):
        loaded, stored = declared()
        if loaded != stored:
            dataset.reload()  # another process changed them since they were loaded
        declare_at_once(dataset, fields, kind, **kwargs)


def declare_at_once(
    dataset: fo.Dataset,
    fields: Mapping[str, type[fo.Field]],
    kind: str = "sample_fields",
    **kwargs: Any,
) -> None:
    """Declare fields while :func:`changed_schema` is held; those that are there cost nothing.

    FiftyOne's ``add_sample_field`` writes the list of all fields and reads it again for each.

    Args:
        dataset: whose fields they are.
        fields: the type of each, by its path; what a path lies in is declared before.
        kind: "sample_fields" or "frame_fields".
        kwargs: arguments for ``add_sample_field``.

    Raises:
        ValueError: a field is already declared with another type.
    """
    add = dataset._merge_sample_field_schema
    if kind == "frame_fields":
        add = dataset._merge_frame_field_schema
    for attempt in range(_TRIES):
        try:
            add({p: foo.create_field(p.split(".")[-1], t, **kwargs) for p, t in fields.items()})
            lost = fields.keys() - _stored_fields(dataset, kind)
            if not lost:
                return
            raise ValueError(
                f"the fields {sorted(lost)} are not in the database, though they were declared: "
                "another thread loads the dataset all the time; run the same again"
            )
        except ValueError:  # another thread, as of the App's server, loaded the dataset meanwhile
            if attempt == _TRIES - 1:
                raise
            dataset.reload()


def _stored_fields(dataset: fo.Dataset, kind: str) -> set[str]:
    """The paths of the fields that the database has in a dataset's schema."""

    def paths(declared: Sequence[Json], start: str = "") -> Iterator[str]:
        for field in declared:
            path = f"{start}{field['name']}"
            yield path
            yield from paths(field.get("fields") or [], f"{path}.")

    document = foo.get_db_conn()["datasets"].find_one({"_id": dataset._doc.id}, {kind: True})
    return set(paths((document or {}).get(kind) or []))


@contextmanager
def changed_schema(samples: Any) -> Iterator[None]:
    """Change the schema of the samples' dataset while no other thread or process of ours does.

    FiftyOne reads the list of all fields, changes it and writes it back as a whole, and so it does
    with the App's sidebar: of two changes at once, one is lost.
    """
    locks, dataset = foo.get_db_conn()[_LOCKS], dataset_of(samples)
    this, owner = dataset._doc.id, ObjectId()
    while True:
        now = database_time()
        lock = {"owner": owner, "until": now + timedelta(seconds=_LOCKED_S)}
        try:
            locks.update_one({"_id": this, "until": {"$lt": now}}, {"$set": lock}, upsert=True)
            break
        except DuplicateKeyError:
            time.sleep(_LOCK_PAUSE_S)
    try:
        dataset._doc.reload()
        yield
    finally:
        locks.delete_one({"_id": this, "owner": owner})


def complete_runs(samples: Any) -> None:
    """Read the runs of a dataset again, if another process replaced one while they were read."""
    if any(isinstance(run, DBRef) for run in root_dataset(samples)._doc.runs.values()):
        with changed_schema(samples):  # which reads them, while nobody writes
            pass


@contextmanager
def replaced_run(samples: Any, kind: BaseRun | type[BaseRun], key: str) -> Iterator[None]:
    """Register a run and save its results; one of the same key comes back if the body fails.

    Args:
        samples: a dataset or a view.
        kind: the kind of run, such as an evaluation.
        key: the key of the run; the body does nothing but register it and save its results.
    """
    dataset = root_dataset(samples)
    runs, results = kind._runs_field(), kind._results_cache_field()
    old, cached = dataset._doc[runs].get(key), getattr(dataset, results).pop(key, None)
    if old is not None:
        del dataset._doc[runs][key]  # else FiftyOne deletes it, before the new one is complete
    try:
        yield
    except BaseException:
        new = dataset._doc[runs].get(key)
        if old is not None:
            dataset._doc[runs][key] = old
            dataset.save()
            if new is not None and new.id != old.id:
                _delete_run(new)
        elif new is not None:
            kind.delete_run(dataset, key, cleanup=False)
        if cached is not None:
            getattr(dataset, results)[key] = cached
        raise
    if old is not None:
        _delete_run(old)


def _delete_run(document: RunDocument) -> None:
    if document.results:
        document.results.delete()
    document.delete()


def propagate(samples: Any, label_field: str) -> None:
    """Make labels that were written to documents visible in videos and in sample objects."""
    storage = storage_of(samples)
    if isinstance(storage, FramesView):
        storage._sync_source(fields=[label_field])
    for each in (storage, samples):
        reload_samples(each)


def validate_field_name(name: str) -> None:
    """Refuse a name that FiftyOne does not allow for a field.

    Raises:
        ValueError: the name is not allowed; the message says why.
    """
    foo.validate_field_name(name)


def database_time() -> datetime:
    """The time of the database server's clock, which is the same for all its clients."""
    time: datetime = foo.get_db_conn().command("hello")["localTime"]
    return time


def store(dataset: fo.Dataset | None = None) -> ExecutionStore:
    """This plugin's key-value store in FiftyOne: for one dataset, or for all if None."""
    from fiftyone.operators.store import ExecutionStore

    own = {} if dataset is None else {"dataset_id": dataset._doc.id}
    return ExecutionStore.create("@promerge/promerge", **own)


def similarity_backend() -> tuple[type[Any], type[Any], type[Any]]:
    """FiftyOne Brain's own backend for similarity: its config, method and index, to derive from."""
    from fiftyone.brain.internal.core import sklearn

    return (
        sklearn.SklearnSimilarityConfig,
        sklearn.SklearnSimilarity,
        sklearn.SklearnSimilarityIndex,
    )


def load_results(kind: type[T], *args: Any, **kwargs: Any) -> T:
    """Load evaluation results with FiftyOne's own loader, that of the parent class of ``kind``."""
    loaded: T = super(kind, kind)._from_dict(*args, **kwargs)  # type: ignore[misc]
    return loaded


def _stored(samples: Any) -> Collection[Json]:
    """The MongoDB collection with the samples' documents."""
    collection: Collection[Json] = samples._dataset._sample_collection
    return collection


def _stored_frames(videos: Any) -> Collection[Json]:
    """The MongoDB collection with the documents of the videos' frames."""
    collection: Collection[Json] = videos._dataset._frame_collection
    return collection


# Waiting for an unreachable database


def retry_while_unreachable(action: Callable[[], T]) -> T:
    """Call a function that uses the database, and call it again if the database was unreachable.

    Args:
        action: the function. Calling it twice must do no harm, as the server may have done its work
            before the connection broke.

    Raises:
        pymongo.errors.ConnectionFailure: no server answered for :data:`WAIT_S` seconds.
    """
    while True:
        try:
            return action()
        except ConnectionFailure as error:
            wait_for_database(error)


def wait_for_database(reason: Exception) -> None:
    """Return as soon as the database answers.

    Args:
        reason: the error that showed that the database is unreachable.

    Raises:
        Exception: ``reason``, if the database has not answered after :data:`WAIT_S` seconds.
    """
    logger.warning("the database cannot be reached (%s); waiting for it", str(reason)[:200])
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            foo.get_db_conn().command("ping")
            return
        except PyMongoError:
            time.sleep(_PAUSE_S)
    raise reason
