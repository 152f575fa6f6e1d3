"""No request to the database grows with a dataset: they hold 16 MB, of ids some 850,000."""

from __future__ import annotations

import json
import tracemalloc

import bson
import numpy as np
import pytest
from fiftyone import ViewField as F
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError
from pymongo.monitoring import CommandListener

from promerge_fo import dataset as pfo
from promerge_fo.dataset.database import CHUNK, aggregate, bulk_update, update_all
from promerge_fo.dataset.evaluation import intervals
from promerge_fo.dataset.evaluation.evaluate import score_field
from promerge_fo.dataset.evaluation.label_table import LabelTable
from promerge_fo.dataset.labels import declare_field
from promerge_fo.dataset.runs.resume import start_run
from promerge_fo.dataset.samples import settled
from promerge_fo.dataset.stored_labels import ImageLabels

SAMPLES = 1500
LABELS = 2  # of a sample in each field
LIMIT = 24_000  # bytes, which the ids of all samples or labels exceed


class Requests(CommandListener):
    """The largest request, but for those of whole files, and of a bulk its largest part."""

    def __init__(self) -> None:
        self.largest, self.what = 0, ""

    def started(self, event) -> None:
        command = dict(event.command)
        if command.get("insert") == "fs.chunks":
            return
        parts = [part for key in ("updates", "documents") for part in command.pop(key, [])]
        for part in (command, *parts):
            size = len(bson.encode(part))
            if size > self.largest:
                self.largest, self.what = size, f"{event.command_name}: {part!s:.300}"

    def succeeded(self, event) -> None:
        pass

    failed = succeeded


@pytest.fixture
def requests(fo, monkeypatch):
    listeners = fo.core.odm.get_db_conn().client._event_listeners
    found = Requests()
    monkeypatch.setattr(listeners, "_EventListeners__command_listeners", [found])
    monkeypatch.setattr(listeners, "_EventListeners__enabled_for_commands", True)
    yield found
    assert 0 < found.largest < LIMIT, found.what


@pytest.fixture(scope="module")
def many(fo):
    from benchmarks.dataset import million

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(million, "DIFFERENT", 20)
        million.fill(SAMPLES)
    dataset = fo.load_dataset(million.NAME)
    yield dataset
    dataset.delete()


def test_the_limit_is_one_that_all_ids_exceed(many, requests):
    assert len(many.select(many.values("id"))) == SAMPLES
    assert requests.largest > LIMIT
    requests.largest = 1


def test_evaluation_and_comparison(many, requests):
    bars = []

    class Bar:
        def __init__(self, total):
            self.total, self.done = total, 0
            bars.append(self)

        def update(self, n):
            self.done += n

        def close(self):
            pass

    for field in ("first", "second"):
        pfo.evaluate_instances(many, field, eval_key=f"eval_{field}", progress=False)
        assert many.sum(f"eval_{field}_tp") + many.sum(f"eval_{field}_fn") == LABELS * SAMPLES
        assert many.sum(f"eval_{field}_tp") + many.sum(f"eval_{field}_fp") == LABELS * SAMPLES
    bars.clear()
    again = pfo.evaluate_instances(many, "first", eval_key="eval_first", progress=Bar)
    comparison = pfo.compare_fields(many, ["first", "second"], resamples=3, progress=Bar)
    # read and written; read and drawn
    assert [(bar.total, bar.done) for bar in bars] == 4 * [(SAMPLES, SAMPLES)]
    assert comparison.metrics()["first"] == again.coco_metrics["segm"]
    only = (F("eval_first") == "tp") & (F("eval_second") == "fn")
    expected = many.filter_labels("ground_truth", only)
    found = comparison.found_only_by("first", "second")
    assert found.count("ground_truth.detections") == expected.count("ground_truth.detections") > 20
    ids = "ground_truth.detections.id"
    assert found.values(["id", ids]) == expected.values(["id", ids])
    assert found.count("first.detections") == LABELS * len(expected)
    patches = found.limit(3).to_patches("ground_truth")
    assert len(patches) == found.limit(3).count("ground_truth.detections")


def test_images_that_failed(many, requests):
    declare_field(many, "first")
    update_all(many, {}, {"$set": {"first.status": "failed", "first.run": "a run"}})
    start = start_run(settled(many), "first", "a run", overwrite=False, retry_failed=True)
    assert (start.total, start.left, start.finished.total()) == (SAMPLES, SAMPLES, 0)
    assert sum(map(len, start.parts)) == SAMPLES
    assert set(many.values("first.run")) == {None}


def test_what_people_did(many, requests, tmp_path):
    ids = many.values("second.detections.id", unwind=True)
    assert pfo.accept(many, "second", ids, reviewer="Ada") == LABELS * SAMPLES
    update_all(many, {}, [{"$set": {"last_modified_at": "$$NOW"}}])  # as an evaluation does
    assert pfo.review_progress(many, "second").accepted == LABELS * SAMPLES
    found = tmp_path / "found.json"
    found.write_text(json.dumps([{"image_id": 1, "bbox": [1, 1, 5, 5], "score": 0.5}]))
    pfo.import_predictions(many, found, "second", overwrite=True, drop_decisions=True)
    assert pfo.review_progress(many, "second").total == 1
    (lost,) = (key for key in pfo.list_runs(many) if key.endswith("norun"))
    assert pfo.restore_decisions(many, lost) == LABELS * SAMPLES
    assert pfo.review_progress(many, "second").accepted == LABELS * SAMPLES
    assert set(many.values("second.detections.id", unwind=True)) > set(ids)


def test_exchange_and_agreement(many, requests, tmp_path):
    exported = pfo.export_pseudo_labels(many, "first", tmp_path / "first.json", min_area=0)
    assert (exported["images"], exported["annotations"]) == (SAMPLES, LABELS * SAMPLES)
    report = pfo.import_predictions(many, tmp_path / "first.json", "again")
    assert report.labels == LABELS * SAMPLES
    attribute = pfo.measure_agreement(many, "again", "first", progress=False)
    assert many.bounds(f"again.detections.{attribute}") == (1, 1)


def test_errors_of_a_bulk_in_pieces_count_all_updates(fo, dataset):
    dataset.add_samples([fo.Sample(filepath=f"/nowhere/{i}.jpg") for i in range(2 * CHUNK + 10)])
    wrong = {3, CHUNK + 5, 2 * CHUNK + 1}
    updates = [
        UpdateOne(
            {"filepath": f"/nowhere/{i}.jpg"}, {"$inc": {"filepath" if i in wrong else "n": 1}}
        )
        for i in range(2 * CHUNK + 10)
    ]
    with pytest.raises(BulkWriteError) as caught:
        bulk_update(dataset, updates, durable=True)
    assert {each["index"] for each in caught.value.details["writeErrors"]} == wrong
    rows = aggregate(dataset, [{"$group": {"_id": None, "n": {"$sum": "$n"}}}])
    assert [row["n"] for row in rows] == [2 * CHUNK + 10 - len(wrong)]


def test_resamples_are_drawn_in_blocks_as_they_were_at_once(monkeypatch):
    monkeypatch.setattr(intervals, "_COUNTS", 100)
    blocks = list(intervals.draw_resamples(30, 10, seed=5))
    assert [len(block) for block in blocks] == [3, 3, 3, 1]
    at_once = np.random.default_rng(5).multinomial(30, np.full(30, 1 / 30), size=10)
    assert np.array_equal(np.concatenate(blocks), at_once)


def images(count):
    """Images that lie in memory one at a time, with as many objects and predictions."""
    rng = np.random.default_rng(0)
    for number in range(count):
        records = {
            field: [
                {"bbox": [float(x), 0.0, 9.0, 9.0], "area": 81.0, "iscrowd": 0, "score": x / 99}
                for x in rng.integers(0, 99, LABELS).tolist()
            ]
            for field in ("found", "truth")
        }
        ids = {field: [str(bson.ObjectId()) for _ in range(LABELS)] for field in records}
        places = {field: list(range(LABELS)) for field in records}
        names = {field: ["fg"] * LABELS for field in records}
        each = str(bson.ObjectId())
        yield ImageLabels(each, number, (9, 99), records, ids, names, places, all_ids=ids)


def test_some_bytes_are_kept_of_a_label(monkeypatch):
    def score(count):
        table = LabelTable(["found", "truth"])
        return table, score_field(table.noting(images(count)), "found", "truth")

    score(10)  # what is compiled and imported is not counted
    tracemalloc.start()
    table, scores = score(3000)
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    labels = sum(map(len, table.labels.values()))
    assert labels == 2 * LABELS * 3000
    assert kept / labels < 100
    assert most / labels < 300
    monkeypatch.setattr(intervals, "_COUNTS", 30_000)
    ranked = {"found": scores["bbox"].ranked}
    tracemalloc.start()
    drawn = intervals.resampled_metrics(ranked, 3000, 300, seed=0)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert drawn["found"]["AP"].shape == (300,)
    assert most < 300 * 3000 * 8 / 3  # of all draws at once
