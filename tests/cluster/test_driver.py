"""What the driver makes of what workers say, without Ray."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.needs import need

need("ray.data", "pip install 'promerge-fo[cluster]'")
need("pyarrow", "pip install 'promerge-fo[cluster]'")

from promerge_fo.cluster.shards import read_shard
from promerge_fo.cluster.worker import Recipe, Segmenter


@pytest.fixture
def driver(fo):
    """The module, which imports FiftyOne: not before there is a database."""
    from promerge_fo.cluster import driver

    return driver


@pytest.fixture
def images(fo, dataset, photographs):
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    return dataset


@pytest.fixture
def segment(driver, images, recipe, tmp_path, monkeypatch):
    """Segments with one worker in this process: ``segment(spoil)``; spoil sees what it says."""
    monkeypatch.setattr(driver, "_ray_session", lambda address: nullcontext())
    monkeypatch.setattr(
        driver, "_plan_workers", lambda count, device: driver._WorkerPlan(1, 1, "cpu")
    )

    def do(spoil=lambda path, said: said, **options):
        def results(tasks, workers, recipe, folder, batch_size):
            worker = Segmenter(recipe, folder, "cpu", 1, batch_size)
            for task in tasks:
                yield spoil(folder / task["shard"], worker(task))

        monkeypatch.setattr(driver, "_run_tasks", results)
        options = {"recipe": recipe, "shards": tmp_path / "shards", "shard_size": 1, **options}
        return driver.segment_on_ray(images, **options)

    return do


def test_a_disk_that_stays_full_ends_the_run_and_what_is_written_is_kept(segment, images):
    said_before = []

    def full(path: Path, said):
        said_before.append(said)
        if len(said_before) < 3:
            return said
        path.unlink()
        return {**said, "error": "OSError: [Errno 28] No space left on device"}

    with pytest.raises(OSError, match=r"No space left on device\). What was written is kept"):
        segment(full)
    images.reload()
    assert images.count("promerge.run") == 2
    report = segment()
    assert (report.skipped, sum(report.counts.values())) == (2, 2)


def test_a_shard_that_is_damaged_on_its_way_is_made_again(segment, images, tmp_path, run):
    spoilt = []

    def once(path: Path, said):
        if not spoilt:
            spoilt.append(path)
            path.write_bytes(path.read_bytes()[:-7])
        return said

    report = segment(once)
    assert sum(report.counts.values()) == 4
    assert spoilt[0].with_suffix(".damaged").is_file()
    assert len(read_shard(spoilt[0], run)[0]) == 1


def test_a_disk_that_damages_everything_ends_the_run(segment, images):
    def always(path: Path, said):
        path.write_bytes(b"PAR1")
        return said

    with pytest.raises(OSError, match="come out damaged again and again"):
        segment(always)
    assert images.count("promerge.run") == 0


def test_ctrl_c_keeps_what_is_done(segment, images):
    def stop(path: Path, said):
        if images.count("promerge.run") == 2:
            raise KeyboardInterrupt
        return said

    report = segment(stop)
    assert report.interrupted
    assert sum(report.counts.values()) == 2
    from promerge_fo.dataset.runs.status import run_statuses

    (status,) = run_statuses(images)
    assert (status.state, status.total, status.done) == ("stopped", 4, 2)
    assert not segment().interrupted
    assert images.count("promerge.run") == 4


def test_where_an_image_failed_in_one_shard_alone_the_other_one_counts(
    segment, images, tmp_path, run
):
    """As after --retry-failed and a loss of the database, whatever the shards' names."""
    from promerge_fo.cluster.shards import row_of, write_shard
    from promerge_fo.instances import Instances

    segment()
    failed = row_of(Instances.failed("no memory"))
    rows = [{"filepath": path, **failed} for path in images.values("filepath")]
    rows.append({"filepath": "/elsewhere.jpg", **failed})
    for name in ("0", "z"):
        write_shard(tmp_path / "shards" / run / f"{name}.parquet", rows, {"run_hash": run})
    images.delete_sample_field("promerge")
    report = segment()
    assert sum(report.counts.values()) == 4
    assert "failed" not in images.count_values("promerge.status")


def test_two_samples_of_one_file_both_get_its_masks(segment, images, fo, photographs):
    images.add_sample(fo.Sample(filepath=photographs[0]))
    report = segment()
    assert sum(report.counts.values()) == 5
    first, last = images.first().promerge, images.last().promerge
    assert len(first.detections) == len(last.detections) > 0
    assert {d.id for d in first.detections}.isdisjoint(d.id for d in last.detections)


def test_masks_that_no_document_holds_fail_their_image_alone(segment, images, monkeypatch):
    from promerge_fo.dataset.runs import merge

    monkeypatch.setattr(merge, "LARGEST", 300)
    report = segment()
    failed = images.match({"promerge.status": "failed"})
    assert 0 < len(failed) == report.counts["failed"] <= 4
    assert "more than the database holds of one image" in failed.first().promerge.error
    assert failed.count("promerge.detections") == 0


@pytest.mark.parametrize(("room", "full"), [(700, 0), (60, 1)])
def test_a_document_without_room_fails_its_image_alone(
    segment, images, fill_up, room, full, caplog
):
    first = images.first()
    fill_up(images, first, room)
    report = segment()
    assert report.unstored == full
    assert report.counts.get("failed", 0) == 1 - full
    assert sum(report.counts.values()) == 4 - full
    if full:
        assert f"{first.filepath} has no labels (" in caplog.text
    else:
        assert "has room for 0.00 MB of 16.8" in images[first.id].promerge.error


def test_workers_are_dealt_out_by_gpus_or_machines(driver, monkeypatch):
    import ray

    def nodes(*resources):
        alive = [{"Alive": True, "Resources": r} for r in resources]
        dead = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}
        monkeypatch.setattr(ray, "nodes", lambda: [*alive, dead])

    nodes({"CPU": 64.0, "GPU": 8.0}, {"CPU": 16.0, "GPU": 4.0}, {"CPU": 8.0})
    assert driver._plan_workers(None, None) == driver._WorkerPlan(12, 4, "cuda")
    assert driver._plan_workers(3, None) == driver._WorkerPlan(3, 4, "cuda")
    assert driver._plan_workers(None, "cpu") == driver._WorkerPlan(3, 8, "cpu")
    nodes({"CPU": 2.0})
    assert driver._plan_workers(None, None) == driver._WorkerPlan(1, 2, "cpu")
    assert driver._plan_workers(2, None) == driver._WorkerPlan(2, 1, "cpu")
    nodes({"CPU": 4.0})  # of a cluster that is to grow
    assert driver._plan_workers(16, "cuda") == driver._WorkerPlan(16, 1, "cuda")


def test_other_settings_have_other_shards(segment, images, recipe, tmp_path):
    segment()
    changed = {**recipe.identity, "config": {**recipe.identity["config"], "tau_b": 0.3}}
    report = segment(recipe=Recipe(changed))
    assert sum(report.counts.values()) == 4
    images.reload()
    assert len(images.count_values("promerge.run")) == 1
    assert len(list((tmp_path / "shards").iterdir())) == 2


def test_overwriting_makes_all_anew(segment, images, labels_of):
    segment()
    expected, ids = labels_of(images, "promerge"), images.values("promerge.detections.id")
    report = segment(overwrite=True)
    assert sum(report.counts.values()) == 4
    assert labels_of(images, "promerge") == expected
    assert images.values("promerge.detections.id") != ids


def test_what_people_did_is_carried_over_or_asked_for(segment, images, recipe, labels_of):
    from dataclasses import replace

    from promerge_fo import dataset as pfo

    segment()
    decided = images.values("promerge.detections.id", unwind=True)
    pfo.accept(images, "promerge", decided)
    segment(overwrite=True)
    assert pfo.review_progress(images, "promerge").accepted == len(decided)
    assert set(images.values("promerge.detections.id", unwind=True)) == set(decided)
    config = {**recipe.identity["config"], "tau_b": 0.6, "min_component_ratio": 1.0}
    other = replace(recipe, identity={**recipe.identity, "config": config})
    before = labels_of(images, "promerge")
    with pytest.raises(pfo.DecisionsLostError, match="Nothing was changed"):
        segment(recipe=other)
    assert labels_of(images, "promerge") == before
    segment(recipe=other, drop_decisions=True)
    kept = pfo.review_progress(images, "promerge").accepted
    restored = pfo.restore_decisions(images, pfo.list_runs(images)[0])
    assert restored == len(decided) - kept > 0


def test_proposals_have_the_levels_and_parents_of_a_local_run(segment, images):
    from promerge_fo.config import ProMergeConfig
    from promerge_fo.dataset.runs.model import load_model
    from promerge_fo.dataset.runs.segment import segment_dataset

    config = ProMergeConfig.preset("proposals").replace(image_size=240, min_refined_iou=0)
    model = load_model(encoder="texture", config=config)
    segment_dataset(images, model, "local")
    segment(recipe=Recipe(model.pipeline.identity()))
    images.reload()

    def nested(field):
        """The level of each mask, and the place of its parent among the masks of its image."""
        found = []
        for labels in images.values(f"{field}.detections"):
            places = {label.id: place for place, label in enumerate(labels)}
            found.append([(label.level, places.get(label.parent)) for label in labels])
        return found

    assert nested("promerge") == nested("local")
    both = [pair for image in nested("local") for pair in image]
    assert len({level for level, _ in both}) > 1
    assert any(parent is not None for _, parent in both)
    for field in ("local", "promerge"):
        assert images.get_field(f"{field}.detections.level") is not None
        assert images.count_values(f"{field}.detections.level")[2] > 0


def test_embeddings_travel_in_shards_and_are_those_of_a_local_pass(
    segment, images, recipe, monkeypatch, run, tmp_path
):
    from promerge_fo.dataset.classes import embeddings

    embedding = replace(recipe, embed=True)
    with monkeypatch.context() as patch:
        patch.setattr(embeddings, "embed_masks", None)  # not needed: the shards have them
        segment(recipe=embedding)
    found = embeddings.read_embeddings(images, "promerge")
    assert len(found) == images.count("promerge.detections") > 0
    assert found.source == embedding("cpu", 1).encoder.embedding_identity()
    embeddings.embed_instances(images, "promerge", overwrite=True)
    np.testing.assert_allclose(
        found.vectors, embeddings.read_embeddings(images, "promerge").vectors, atol=1e-5
    )
    rows = [read_shard(path, run)[0][0] for path in (tmp_path / "shards").rglob("*.parquet")]
    assert all(len(row["means"]) == 4 * found.vectors.shape[1] * len(row["scores"]) for row in rows)


def test_shards_without_embeddings_are_completed(segment, images, recipe):
    from promerge_fo.dataset.classes.embeddings import read_embeddings

    segment()
    with pytest.raises(ValueError, match="promerge embed"):
        read_embeddings(images, "promerge")
    report = segment(recipe=replace(recipe, embed=True))
    assert report.skipped == len(images)
    assert len(read_embeddings(images, "promerge")) == images.count("promerge.detections")
