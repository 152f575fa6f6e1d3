"""Shards: bit by bit what went in, or not there at all."""

from __future__ import annotations

import errno
import json

import numpy as np
import pytest

from tests.needs import need

need("ray.data", "pip install 'promerge-fo[cluster]'")
need("pyarrow", "pip install 'promerge-fo[cluster]'")

from promerge_fo import files
from promerge_fo.cluster.shards import Attempts, ShardError, read_shard, row_of, write_shard
from promerge_fo.instances import Instances

RUN = "0123456789abcdef"


@pytest.fixture
def rows():
    rng = np.random.default_rng(3)
    made = []
    for number in range(20):
        masks = rng.random((number % 4, 30 + number, 40)) < 0.5
        instances = Instances(masks, rng.random(len(masks)).astype(np.float32))
        made.append({"filepath": f"/images/{number}.jpg", **row_of(instances)})
    failed = Instances.failed("no image", (3, 4))
    return [*made, {"filepath": "/images/broken.jpg", **row_of(failed)}]


def test_a_shard_holds_masks_scores_and_provenance(tmp_path):
    from pycocotools import mask as coco_mask

    masks = np.zeros((3, 5, 7), dtype=bool)
    masks[0, 1:3, 2:6] = masks[2, :, 0] = True  # the second is empty
    instances = Instances(masks, np.array([0.1, 0.2, 1 / 3], dtype=np.float32), "ok")
    row = {"filepath": "/a.jpg", **row_of(instances)}
    write_shard(tmp_path / "a.parquet", [row], {"run_hash": RUN, "config": {"tau_b": 0.2}})
    (found,), provenance = read_shard(tmp_path / "a.parquet", RUN)
    assert found == row
    assert provenance == {"run_hash": RUN, "config": {"tau_b": 0.2}}
    assert (found["height"], found["width"], found["status"], found["error"]) == (5, 7, "ok", None)
    assert np.array_equal(np.float32(found["scores"]), instances.scores[[0, 2]])
    rles = [{"size": [5, 7], "counts": counts} for counts in found["counts"]]
    assert np.array_equal(coco_mask.decode(rles).transpose(2, 0, 1), masks[[0, 2]])
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_a_shard_that_was_cut_or_changed_anywhere_is_known(tmp_path, rows):
    path = tmp_path / "a.parquet"
    write_shard(path, rows, {"run_hash": RUN})
    whole = path.read_bytes()
    for length in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ShardError, match="is damaged"):
            read_shard(path, RUN)
    rng = np.random.default_rng(0)
    noticed = 0
    for at in rng.integers(4, len(whole) - 4, 60):
        changed = bytearray(whole)
        changed[at] ^= 0x10
        path.write_bytes(changed)
        try:
            found, _ = read_shard(path, RUN)
        except ShardError:
            noticed += 1
        else:  # in what says nothing, such as the names of the program that wrote it
            assert found == rows
    assert noticed > 30


def test_a_shard_of_another_run_is_refused(tmp_path, rows):
    write_shard(tmp_path / "a.parquet", rows, {"run_hash": "f" * 16})
    with pytest.raises(ShardError, match=f"is of the run 'ffffffffffffffff', but must be of {RUN}"):
        read_shard(tmp_path / "a.parquet", RUN)
    with pytest.raises(FileNotFoundError):
        read_shard(tmp_path / "b.parquet", RUN)


def test_a_full_disk_leaves_nothing_of_a_shard_and_the_old_one_whole(tmp_path, rows, monkeypatch):
    path = tmp_path / "a.parquet"
    write_shard(path, rows[:3], {"run_hash": RUN})

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_shard(path, rows, {"run_hash": RUN})
    assert read_shard(path, RUN)[0] == rows[:3]
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_attempts_are_counted_over_the_deaths_of_workers(tmp_path):
    path = tmp_path / "attempts" / "a.json"
    first = Attempts(path)
    first.begin()
    assert (first.count, first.deaths) == (1, {})
    second = Attempts(path)
    second.begin()
    second.begin_image("/a.jpg")
    second.begin_image("/b.jpg")
    third = Attempts(path)
    third.begin()
    assert (third.count, third.deaths) == (3, {"/b.jpg": 1})
    third.end()
    assert not path.exists()
    path.write_text(json.dumps({"begun": 3})[:5])  # broken off
    last = Attempts(path)
    last.begin()
    assert last.count == 1
