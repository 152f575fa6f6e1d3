"""A run on Ray's workers makes what a run without it makes."""

from __future__ import annotations

import json

import pytest

from tests.needs import need

ray = need("ray", "pip install 'promerge-fo[cluster]'")
need("ray.data", "pip install 'promerge-fo[cluster]'")
need("pyarrow", "pip install 'promerge-fo[cluster]'")

from promerge_fo.cluster.shards import read_shard


@pytest.fixture(scope="module")
def cluster():
    """Ray on two cores, for all tests of this file."""
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
        object_store_memory=100 << 20,
    )  # fmt: skip
    yield
    ray.shutdown()


@pytest.fixture
def segment(cluster, dataset, recipe, tmp_path):
    """Segments the dataset: ``segment(field, **options)``."""
    from promerge_fo.cluster import segment_on_ray

    def do(field="ray", **options):
        options = {"shards": tmp_path / "shards", "workers": 1, "shard_size": 2, **options}
        return segment_on_ray(dataset, recipe, field, **options)

    return do


@pytest.fixture
def images(fo, dataset, photographs, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    paths = [photographs[0], str(broken), *photographs[1:]]
    dataset.add_samples([fo.Sample(filepath=path) for path in paths])
    return dataset


def test_labels_are_those_of_a_local_run_and_a_second_run_does_nothing(
    segment, images, recipe, run, labels_of, tmp_path
):
    from promerge_fo.dataset.provenance import list_runs, load_run
    from promerge_fo.dataset.runs.model import ProMergeModel
    from promerge_fo.dataset.runs.segment import segment_dataset
    from promerge_fo.dataset.runs.status import run_statuses

    local = segment_dataset(images, ProMergeModel(recipe("cpu", 2)), "local")
    steps = []

    class Bar:
        def __init__(self, total):
            steps.append(total)

        update = steps.append

        def close(self):
            steps.append("closed")

    report = segment(progress=Bar, workers=2)
    expected = labels_of(images, "local")
    assert labels_of(images, "ray") == expected
    assert sum(len(labels["detections"]) for labels in expected.values()) > 3
    assert (report.counts, report.instances) == (local.counts, local.instances)
    assert report.counts["failed"] == 1
    assert images.get_field_schema(flat=True).keys() >= {"ray.status", "ray.detections.area"}
    assert (steps[0], sum(steps[1:-1]), steps[-1]) == (5, 5, "closed")

    written = sorted((tmp_path / "shards" / run).glob("*"))
    assert len(written) == 3 and {path.suffix for path in written} == {".parquet"}
    assert sorted(len(read_shard(path, run)[0]) for path in written) == [1, 2, 2]
    record = load_run(images, list_runs(images)[-1])
    assert (record["engine"], record["images"], record["instances"]) == (
        "ray", 5, local.instances,
    )  # fmt: skip
    status = {s.label_field: s for s in run_statuses(images)}["ray"]
    assert (status.engine, status.total, status.done, status.failed) == ("ray", 5, 5, 1)
    assert status.state == "finished"

    ids = images.values("ray.detections.id")
    ages = [path.stat().st_mtime_ns for path in written]
    again = segment()
    assert (again.skipped, again.counts) == (5, {})
    images.reload()
    assert images.values("ray.detections.id") == ids
    assert [path.stat().st_mtime_ns for path in written] == ages


def test_what_is_in_shards_is_not_computed_again(segment, images, labels_of, run, tmp_path):
    """As after a loss of the database; a shard that is damaged is set aside and made anew."""
    segment()
    expected = labels_of(images, "ray")
    shards = sorted((tmp_path / "shards" / run).glob("*.parquet"))
    ages = [path.stat().st_mtime_ns for path in shards]
    whole = shards[1].read_bytes()
    shards[1].write_bytes(whole[: len(whole) // 2])
    images.delete_sample_field("ray")
    report = segment()
    assert sum(report.counts.values()) == 5
    assert labels_of(images, "ray") == expected
    assert shards[1].with_suffix(".damaged").read_bytes() == whole[: len(whole) // 2]
    for number in (0, 2):
        assert shards[number].stat().st_mtime_ns == ages[number]


def test_failed_images_are_run_again_alone(segment, images, run, labels_of, tmp_path):
    from PIL import Image

    segment(limit=3)
    before = labels_of(images, "ray")
    statuses = images.values("ray.status")
    assert (statuses[1], statuses[3:]) == ("failed", [None, None])
    Image.open(images.first().filepath).save(tmp_path / "broken.jpg")
    assert segment(limit=3).skipped == 3
    report = segment(retry_failed=True)
    assert sum(report.counts.values()) == 1
    after = labels_of(images, "ray")
    mended = str(tmp_path / "broken.jpg")
    assert len(after.pop(mended)["detections"]) > 0
    before.pop(mended)
    assert after == before
    images.delete_sample_field("ray")  # the old failure is in a shard still, and does not win
    segment()
    assert "failed" not in images.count_values("ray.status")


def test_the_command(cluster, fo, photographs, tmp_path, capsys):
    from promerge_fo.cli import main

    dataset = fo.Dataset("pictures")
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    options = ["--encoder", "texture", "--image-size", "96", "--engine", "ray"]
    options += ["--shards", str(tmp_path / "shards"), "--workers", "1"]
    output = tmp_path / "masks.json"
    assert main(["segment", "pictures", *options, "--output", str(output)]) == 0
    dataset.reload()
    written = json.loads(output.read_text())
    assert len(written["annotations"]) == dataset.count("promerge.detections")
    assert len(written["images"]) == 4
    assert main(["status", "pictures"]) == 0
    assert "(ray, process " in capsys.readouterr().out
    assert main(["segment", "pictures", "--encoder", "texture", "--workers", "1"]) == 2
    assert "--workers is for --engine ray" in capsys.readouterr().err
    dataset.delete()
