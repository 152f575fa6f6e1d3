"""What the adapter counts on in FiftyOne, which `make oldest` asks of the oldest version, too."""

from __future__ import annotations

from pathlib import Path

import pytest
from bson import ObjectId
from pymongo import UpdateOne
from pymongo.errors import ConnectionFailure

from promerge_fo import dataset as pfo
from promerge_fo.dataset import database


@pytest.fixture
def labelled(fo, dataset, photographs):
    """Two images with two boxes and one in the field "found"."""
    for path, count in zip(photographs, (2, 1), strict=False):
        boxes = [[0.1 * k, 0.1, 0.5, 0.5] for k in range(count)]
        labels = [fo.Detection(label="fg", bounding_box=box) for box in boxes]
        detections = fo.Detections(detections=labels)
        dataset.add_sample(fo.Sample(filepath=path, tags=["kept"], found=detections))
    return dataset


@pytest.fixture
def frames(fo, tmp_path):
    """A view of the three frames of a video, each with a box in the field "found"."""
    import numpy as np
    from PIL import Image

    videos = fo.Dataset()
    sample = fo.Sample(filepath=str(tmp_path / "video.mp4"))
    for number in (1, 2, 3):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
        box = fo.Detection(label="fg", bounding_box=[0, 0, 1, 1])
        frame = fo.Frame(filepath=str(path), found=fo.Detections(detections=[box]))
        sample.frames[number] = frame
    videos.add_sample(sample)
    yield videos.to_frames(sample_frames="dynamic")
    videos.delete()


def test_what_collections_are(labelled, frames):
    view, patches = labelled.limit(1), labelled.to_patches("found")
    for samples in (labelled, view, patches):
        assert database.root_dataset(samples) is labelled
        assert database.storage_of(samples) is labelled
    assert [database.is_patches(s) for s in (labelled, view, patches)] == [False, False, True]
    assert [database.is_generated(s) for s in (labelled, view, patches)] == [False, False, True]
    assert database.dataset_of(view) is labelled
    assert database.dataset_of(patches).name != labelled.name
    assert len(database.dataset_of(patches)) == 3
    assert database.label_fields(patches) == ["found"]
    assert database.source_id(patches) == "_sample_id"
    assert database.is_generated(frames)
    assert database.is_frames(frames)
    assert not database.is_patches(frames)
    cut = frames.to_patches("found")
    assert database.source_id(cut) == "_frame_id"
    assert database.storage_of(cut) == database.storage_of(frames) == frames
    assert database.root_dataset(cut).media_type == "video"


def test_datasets_are_found_by_the_folders_of_their_images(fo, labelled, photographs):
    folder = str(Path(photographs[0]).parent)
    assert "filepath" in labelled.list_indexes()
    labelled.to_patches("found")  # a temporary dataset with the same paths
    assert database.datasets_with_images(folder) == [labelled.name]
    assert database.datasets_with_images("/nowhere", f"{folder}/") == [labelled.name]
    assert database.datasets_with_images(folder[:-1]) == []
    other = fo.Dataset()
    other.add_sample(fo.Sample(filepath=f"{folder}/below/x.png"))
    assert database.datasets_with_images(folder) == sorted([labelled.name, other.name])
    other.delete()


def test_ids_and_samples_lead_back(labelled):
    assert ObjectId.is_valid(database.dataset_id(labelled))
    assert database.collection_of(labelled.first()) is labelled
    view = labelled.limit(1)
    assert database.collection_of(view.first()) == view


def test_a_view_is_described_and_built_again(labelled):
    view = labelled.match_tags("kept").limit(1)
    stages = database.stages_of(view)
    assert stages == database.stages_of(labelled.match_tags("kept").limit(1))
    assert database.view_of(labelled, stages).values("id") == view.values("id")
    assert database.stages_of(labelled) == []


def test_documents_are_read_behind_the_view_and_behind_the_dataset(labelled):
    count = [{"$project": {"n": {"$size": "$found.detections"}}}]
    assert [row["n"] for row in database.aggregate(labelled.limit(1), count)] == [2]
    assert [row["n"] for row in database.aggregate_stored(labelled.limit(1), count)] == [2, 1]
    assert len(list(database.aggregate(labelled))) == 2
    first = labelled.first()
    (document,) = database.documents(labelled, {"_id": ObjectId(first.id)}, "filepath")
    assert document == {"_id": ObjectId(first.id), "filepath": first.filepath}


@pytest.mark.parametrize("durable", [False, True])
def test_documents_are_written_and_objects_follow(fo, labelled, durable):
    labelled.add_sample_field("note", fo.StringField)
    first, last = labelled.first(), labelled.last()
    updates = [UpdateOne({"_id": ObjectId(first.id)}, {"$set": {"note": "first"}})]
    database.bulk_update(labelled, updates, durable=durable)
    assert first.note is None
    database.reload_samples(labelled, [last.id])
    assert first.note is None
    database.reload_samples(labelled, [first.id])
    assert (first.note, last.note) == ("first", None)
    database.update_all(labelled, {"note": None}, {"$set": {"note": "other"}})
    database.reload_samples(labelled)
    assert last.note == "other"
    database.bulk_update(labelled, [])


def test_a_view_updates_its_documents_in_the_database(fo, labelled):
    labelled.add_sample_field("boxes", fo.IntField)
    rows = [{"$project": {"n": {"$size": "$found.detections"}}}]
    database.merge_updates(labelled.limit(1), rows, [{"$set": {"boxes": "$$new.n"}}])
    assert labelled.values("boxes") == [2, None]


def test_a_field_of_a_view_is_set_as_a_whole(labelled):
    sample = labelled.first()
    database.set_all(labelled.limit(1), "tags", ["$new"])
    assert labelled.values("tags") == [["$new"], ["kept"]]
    assert sample.tags == ["$new"]


def test_documents_are_read_by_their_ids_in_pieces(labelled, monkeypatch):
    monkeypatch.setattr(database, "CHUNK", 1)
    ids = [ObjectId(each) for each in labelled.values("id")]
    found = list(database.documents_of(labelled, [*ids, ObjectId()], "tags"))
    assert found == [{"_id": each, "tags": ["kept"]} for each in ids]


def test_chosen_labels_are_a_view_that_fiftyone_knows_what_to_do_with(fo, labelled):
    listed = fo.list_datasets()
    pairs = [(d["_id"], d["found"]["detections"][0]["_id"]) for d in database.aggregate(labelled)]
    view = database.chosen_labels(labelled, "found", pairs)
    assert fo.list_datasets() == listed  # what it stores is no dataset of the user's
    labels = view.values("found.detections.id", unwind=True)
    assert labels == [str(label) for _, label in pairs]
    assert view.first().tags == ["kept"]
    assert len(view.to_patches("found")) == 2
    assert database.view_of(labelled, database.stages_of(view)).values("id") == view.values("id")
    alone = database.chosen_labels(labelled.skip(1), "found", pairs)
    assert alone.values("id") == labelled.skip(1).values("id")
    assert len(database.chosen_labels(labelled, "found", [])) == 0
    labelled.persistent = True
    fo.core.dataset.delete_non_persistent_datasets()
    assert len(view) == 0  # as without a session


def test_fields_are_declared_where_documents_are(fo, labelled, frames):
    patches = labelled.to_patches("found")
    database.add_fields(patches, {"found.sure": fo.BooleanField})
    assert database.dataset_of(patches).get_field("found.sure") is not None
    assert labelled.get_field("found.detections.sure") is None
    database.add_fields(frames, {"found.detections.sure": fo.BooleanField})
    videos = database.root_dataset(frames)
    assert isinstance(videos.get_field("frames.found.detections.sure"), fo.BooleanField)
    with pytest.raises(ValueError, match="sure"):
        database.add_fields(patches, {"found.sure": fo.StringField})


def test_what_is_written_to_frames_reaches_their_videos(fo, frames):
    database.add_fields(frames, {"found.detections.sure": fo.BooleanField})
    database.update_all(frames, {}, [{"$set": {"found.detections.sure": True}}])
    database.propagate(frames, "found")
    videos = database.root_dataset(frames)
    assert videos.values("frames.found.detections.sure") == [[[True]] * 3]


def test_stored_frames_are_read_and_updated_and_objects_follow(frames):
    videos = database.root_dataset(frames)
    (video,) = videos.values("id")
    held = videos.first().frames[2]
    later = {"frame_number": {"$gt": 1}}
    found = list(database.frames_of(videos, [video], later, "frame_number"))
    assert [(str(f["_sample_id"]), f["frame_number"]) for f in found] == [(video, 2), (video, 3)]
    assert list(database.frames_of(videos, [], {})) == []
    assert database.update_frames(videos, [video], later, {"$set": {"found": None}}) == 2
    assert held.found is None
    assert [f is None for f in videos.values("frames.found", unwind=True)] == [False, True, True]


@pytest.mark.parametrize("forgotten", [False, True])
def test_labels_are_added_to_those_that_a_frame_was_loaded_with(fo, frames, forgotten):
    videos = database.root_dataset(frames)
    sample = videos.first()
    if forgotten:
        database.forget_loaded(sample.frames[1], "found")
    new = fo.Detection(label="new", bounding_box=[0, 0, 1, 1])
    sample.add_labels({1: fo.Detections(detections=[new])}, label_field="found")
    sample.save()
    labels = videos.values("frames.found.detections.label")[0][0]
    assert labels == (["new"] if forgotten else ["fg", "new"])


def test_fields_of_frames_are_declared(fo, frames):
    videos = database.root_dataset(frames)
    database.add_fields(videos, {"frames.kind": fo.StringField, "kind": fo.IntField})
    assert isinstance(videos.get_field("frames.kind"), fo.StringField)
    assert isinstance(videos.get_field("kind"), fo.IntField)


def test_a_store_of_a_dataset_and_one_of_all(labelled):
    database.store(labelled).set("a", 1)
    assert database.store(labelled).get("a") == 1
    assert database.store().get("a") is None
    database.store().set("b", {"c": [2]})
    assert database.store().get("b") == {"c": [2]}
    database.store().delete("b")


def test_names_that_no_field_can_have_are_refused():
    database.validate_field_name("fine")
    with pytest.raises(ValueError, match="_no"):
        database.validate_field_name("_no")


def test_the_server_has_a_clock():
    first = database.database_time()
    assert database.database_time() >= first


def test_results_are_read_by_fiftyones_own_reader(labelled):
    labelled.clone_sample_field("found", "ground_truth")
    pfo.evaluate_instances(labelled, "found", eval_key="eval")
    labelled.clear_cache()
    loaded = labelled.load_evaluation_results("eval", cache=False)
    assert type(loaded) is pfo.InstanceResults
    assert loaded.metrics()["bbox"]["AP"] == 100


def test_a_database_that_is_away_is_waited_for(fo, monkeypatch):
    calls = []

    def action():
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionFailure("away")
        return "done"

    assert database.retry_while_unreachable(action) == "done"
    assert len(calls) == 3
    monkeypatch.setattr(database, "WAIT_S", 0.0)
    with pytest.raises(ConnectionFailure, match="away"):
        database.retry_while_unreachable(lambda: (_ for _ in ()).throw(ConnectionFailure("away")))


@pytest.mark.parametrize(
    ("version", "tested"),
    [("1.18.0", True), ("1.22.1", True), ("1.22.9", True), ("1.23.0", False), ("2.0.0rc1", False)],
)
def test_versions_beyond_the_tested_ones_are_named(version, tested):
    said = database.untested(version)
    assert (said is None) == tested
    if not tested:
        assert version in said
        assert "1.22.1" in said
