"""Fields that several runs declare at once, in threads and processes, are all there afterwards."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from promerge_fo import dataset as pfo
from promerge_fo.config import ProMergeConfig
from promerge_fo.dataset.database import add_fields, changed_schema
from promerge_fo.dataset.labels import declare_field

OTHER = """
import sys
import fiftyone as fo
from promerge_fo.dataset.labels import declare_field
dataset = fo.load_dataset(sys.argv[1])
print("loaded", flush=True)
sys.stdin.readline()
declare_field(dataset, "theirs")
print("declared", flush=True)
"""
ATTRIBUTES = ("status", "error", "run", "detections.area", "detections.touches_border")


def declared(fo, dataset):
    """The paths that the database has in the schema, as often as it has them."""

    def paths(fields, start=""):
        for field in fields:
            yield start + field["name"]
            yield from paths(field["fields"] or (), f"{start}{field['name']}.")

    stored = fo.core.odm.get_db_conn()["datasets"].find_one({"name": dataset.name})
    groups = (stored["app_config"] or {}).get("sidebar_groups") or ()
    return list(paths(stored["sample_fields"])), [p for group in groups for p in group["paths"]]


def assert_whole(fo, dataset, *fields):
    found, listed = declared(fo, dataset)
    for field in fields:
        for path in (field, *(f"{field}.{name}" for name in ATTRIBUTES)):
            assert found.count(path) == 1, path
        assert [p for p in listed if p.startswith(f"{field}.")] == [
            f"{field}.status",
            f"{field}.error",
        ]


@pytest.fixture
def before_saving(fo, monkeypatch):
    """Lets something happen in the moment before FiftyOne first writes a schema that it changed."""

    def set_up(happen):
        kind, real, called = fo.core.odm.DatasetDocument, fo.core.odm.DatasetDocument.save, []

        def save(self, *arguments, **options):
            if not called and threading.current_thread() is threading.main_thread():
                called.append(True)
                happen()
            return real(self, *arguments, **options)

        monkeypatch.setattr(kind, "save", save)
        return called

    return set_up


def test_a_thread_that_declares_a_field_loses_none_of_another(fo, dataset, before_saving):
    thread = threading.Thread(target=declare_field, args=(dataset, "theirs"))

    def happen():
        thread.start()
        thread.join(0.5)

    called = before_saving(happen)
    declare_field(dataset, "mine")
    thread.join()
    assert called
    assert_whole(fo, dataset, "mine", "theirs")


def test_a_process_that_declares_a_field_loses_none_of_another(fo, dataset, before_saving):
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, dataset.name],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout.readline() == "loaded\n"
        is_declared = threading.Event()

        def wait():
            assert other.stdout.readline() == "declared\n"
            is_declared.set()

        waiting = threading.Thread(target=wait)
        waiting.start()

        def happen():
            other.stdin.write("go\n")
            other.stdin.flush()
            is_declared.wait(2)

        called = before_saving(happen)
        declare_field(dataset, "mine")
        waiting.join()
    assert called
    assert_whole(fo, dataset, "mine", "theirs")
    assert not dataset.has_field("theirs")  # what was loaded before stays old, and is no harm
    declare_field(dataset, "theirs")
    assert_whole(fo, dataset, "mine", "theirs")


def test_a_field_is_kept_though_another_thread_loads_the_dataset(fo, dataset, monkeypatch):
    """As an App's page does; FiftyOne then saves a document that the field was not added to."""
    kind, real, loaded = fo.core.odm.DatasetDocument, fo.core.odm.DatasetDocument.reload, []

    def reload(self, *fields, **options):
        done = real(self, *fields, **options)
        if fields and len(loaded) < 2:  # as a schema is about to be changed
            loaded.append(fo.load_dataset(dataset.name, reload=True))
        return done

    monkeypatch.setattr(kind, "reload", reload)
    declare_field(dataset, "mine")
    assert len(loaded) == 2
    assert_whole(fo, dataset, "mine")


def test_fields_that_others_have_overwritten_come_back(fo, dataset):
    declare_field(dataset, "mine")
    everything = fo.core.odm.get_db_conn()["datasets"]
    lost = {"$pull": {"sample_fields": {"name": "mine"}}}
    assert everything.update_one({"name": dataset.name}, lost).modified_count == 1
    declare_field(dataset, "mine")
    assert_whole(fo, dataset, "mine")
    assert everything.update_one({"name": dataset.name}, lost).modified_count == 1
    add_fields(dataset, {"other": fo.IntField})
    declare_field(dataset, "mine")
    assert_whole(fo, dataset, "mine")


def test_a_process_that_was_killed_bars_nobody_for_long(fo, dataset, monkeypatch):
    from promerge_fo.dataset import database

    monkeypatch.setattr(database, "_LOCKED_S", 0.2)
    held = changed_schema(dataset)
    held.__enter__()
    declare_field(dataset, "mine")
    assert_whole(fo, dataset, "mine")
    held.__exit__(None, None, None)


def test_runs_on_three_new_fields_at_once(fo, dataset, photographs):
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs[:2]])
    fields, reports = ("a", "b", "c"), {}

    def run(field, tau_b):
        config = ProMergeConfig(image_size=96, tau_b=tau_b)
        model = pfo.load_model(encoder="texture", config=config)
        reports[field] = pfo.segment_dataset(dataset, model, field, batch_size=2, progress=False)

    threads = [
        threading.Thread(target=run, args=(field, 0.1 + 0.1 * k)) for k, field in enumerate(fields)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [sum(reports[field].counts.values()) for field in fields] == [2, 2, 2]
    assert_whole(fo, dataset, *fields)
    records = [pfo.load_run(dataset, key) for key in pfo.list_runs(dataset)]
    assert {record["label_field"]: record["images"] for record in records} == dict.fromkeys(
        fields, 2
    )
    dataset.reload()
    assert [dict(dataset.count_values(f"{f}.status")) for f in fields] == [
        reports[field].counts for field in fields
    ]
    assert [dataset.count(f"{field}.detections") for field in fields] == [
        reports[field].instances for field in fields
    ]


def test_neighbours_are_told_apart_by_colour_unless_somebody_chose_colours(fo, dataset):
    declare_field(dataset, "mine")
    dataset.reload()
    assert dataset.app_config.color_scheme.color_by == "instance"
    assert dataset.app_config.color_scheme.color_pool is None  # the App's own
    dataset.app_config.color_scheme = None  # what "reset" does in the App
    dataset.save()
    declare_field(dataset, "another")
    assert dataset.app_config.color_scheme is None


def test_colours_that_somebody_chose_stay(fo, dataset):
    dataset.app_config.color_scheme = fo.ColorScheme(color_by="value", color_pool=["#ff0000"])
    dataset.save()
    declare_field(dataset, "mine")
    dataset.reload()
    scheme = dataset.app_config.color_scheme
    assert (scheme.color_by, list(scheme.color_pool)) == ("value", ["#ff0000"])
