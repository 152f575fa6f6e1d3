"""What a worker does, without Ray."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from tests.needs import need

need("ray.data", "pip install 'promerge-fo[cluster]'")
need("pyarrow", "pip install 'promerge-fo[cluster]'")

from promerge_fo import files
from promerge_fo.cluster import worker
from promerge_fo.cluster.shards import read_shard, row_of, write_shard
from promerge_fo.cluster.worker import Recipe, Segmenter

TASK = "a.parquet"


@pytest.fixture
def segmenter(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "_WAITS_S", (0.0, 0.0))
    return Segmenter(recipe, tmp_path, "cpu", 2, 8)


def test_a_shard_has_what_the_pipeline_makes(segmenter, photographs, run, tmp_path, recipe):
    paths = [*photographs, "/nowhere.jpg"]
    assert segmenter({"shard": TASK, "paths": paths}) == {"shard": TASK, "error": None}
    rows, provenance = read_shard(tmp_path / TASK, run)
    alone = recipe("cpu", 1)(paths)
    assert rows == [
        {"filepath": path, **row_of(instances)}
        for path, instances in zip(paths, alone, strict=True)
    ]
    assert rows[-1]["status"] == "failed"
    assert "/nowhere.jpg" in rows[-1]["error"]
    assert provenance["run_hash"] == run
    assert provenance["config"] == recipe.identity["config"]
    assert provenance["encoder"]["name"] == "texture"
    assert provenance["versions"]["torch"]
    assert provenance["counts"]["failed"] == 1
    assert not list((tmp_path / "attempts").iterdir())


def test_a_shard_that_is_there_is_not_made_again(segmenter, photographs, run, tmp_path):
    write_shard(tmp_path / TASK, [], {"run_hash": run})
    assert segmenter({"shard": TASK, "paths": photographs})["error"] is None
    assert read_shard(tmp_path / TASK, run)[0] == []
    (tmp_path / TASK).write_bytes(b"PAR1")  # but a damaged one is
    segmenter({"shard": TASK, "paths": photographs})
    assert len(read_shard(tmp_path / TASK, run)[0]) == 4


def test_other_settings_than_the_run_s_are_refused(recipe, tmp_path):
    class Other(Recipe):
        def __call__(self, device, threads):
            pipeline = super().__call__(device, threads)
            pipeline.config = pipeline.config.replace(tau_b=0.3)
            return pipeline

    with pytest.raises(ValueError, match="all machines want the same version, weights and"):
        Segmenter(Other(recipe.identity), tmp_path, "cpu", 1, 8)
    wrong = {**recipe.identity["encoder"], "image_size": 100}
    with pytest.raises(ValueError, match="the encoder is not the run's"):
        Segmenter(Recipe({**recipe.identity, "encoder": wrong}), tmp_path, "cpu", 1, 8)


def test_an_image_that_found_no_memory_is_tried_again_alone(
    segmenter, photographs, run, tmp_path, monkeypatch
):
    pipeline = segmenter._pipeline
    encode, failures = pipeline.encode, []

    def scarce(batch):
        if len(failures) < 1:
            failures.append(batch)
            raise MemoryError("for a while")
        return encode(batch)

    monkeypatch.setattr(pipeline, "encode", scarce)
    segmenter({"shard": TASK, "paths": photographs})
    assert len(failures) == 1
    assert [row["error"] for row in read_shard(tmp_path / TASK, run)[0]] == [None] * 4


def test_a_full_disk_is_waited_for_and_then_reported(
    segmenter, photographs, run, tmp_path, monkeypatch
):
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "fsync", full)
        said = segmenter({"shard": TASK, "paths": photographs})
    assert said == {"shard": TASK, "error": "OSError: [Errno 28] No space left on device"}
    assert len(calls) == 3
    assert not (tmp_path / TASK).exists()
    assert segmenter({"shard": TASK, "paths": photographs})["error"] is None


def test_an_image_that_kills_workers_fails_alone(recipe, photographs, run, tmp_path):
    """Each process dies at the photograph, as one that runs out of memory does."""
    script = f"""
import os
from pathlib import Path
from promerge_fo.cluster.worker import Recipe, Segmenter

def work():
    made = Segmenter(Recipe({recipe.identity!r}), Path({str(tmp_path)!r}), "cpu", 1, 8)
    prepare = made._pipeline.prepare
    def deadly(path):
        if path == {photographs[1]!r}:
            os._exit(9)
        return prepare(path)
    made._pipeline.prepare = deadly
    made({{"shard": {TASK!r}, "paths": {photographs!r}}})

deaths = 0
while True:
    process = os.fork()  # so that Python and PyTorch start once
    if process == 0:
        work()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if code != 9:
        print(code, deaths)
        break
    deaths += 1
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    code, deaths = map(int, done.stdout.split())
    assert code == 0, done.stderr
    assert deaths == 5  # two with all images under way, three with it alone
    rows, _ = read_shard(tmp_path / TASK, run)
    assert [row["status"] for row in rows].count("failed") == 1
    assert rows[1]["error"] == (
        f"{photographs[1]}: 3 workers died at this image alone; probably it needs more memory "
        "than there is"
    )


def test_workers_need_no_fiftyone():
    code = "import promerge_fo.cluster.worker, sys; sys.exit('fiftyone' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
