"""Thousands of mutated prediction files: nothing crashes, and nothing is stored by halves."""

from __future__ import annotations

import copy
import json
import tempfile
import time
from collections import Counter

import numpy as np
import pytest

from promerge_fo import dataset as pfo
from promerge_fo.annotations.json_stream import holds_object
from promerge_fo.dataset.exchange.entries import Images, Intake

FILES = 6000
STORED = 30  # of so many files, one goes on to the database
SECONDS = 5.0  # that no small file may take

ODD = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, -(10**30), 0.5, -0.0, 1e308, float("nan"),
    float("inf"), -float("inf"), "", "0", "\x00", "\ud800", "é😀", "P" * 5000, "o" * 5000,
    "1" * 5000, [], {}, [[]], [{}], [[1]], {"size": [1, 1], "counts": "1"}, [0] * 5000,
    {"counts": [0], "size": [0, 0]}, [[0, 0, 1e9, 0, 1e9, 1e9]], [10**9, 10**9], [-5, -5, -5, -5],
]  # fmt: skip


def paths_in(value, path=()):
    """Every place in nested lists and objects, as a list of keys."""
    yield path
    if isinstance(value, dict):
        for key, part in value.items():
            yield from paths_in(part, (*path, key))
    elif isinstance(value, list):
        for k, part in enumerate(value[:30]):
            yield from paths_in(part, (*path, k))


def change_structure(rng: np.random.Generator, content):
    """A copy in which a few places hold something odd, are gone, doubled or swapped."""
    content = copy.deepcopy(content)
    for _ in range(int(rng.integers(1, 4))):
        places = [path for path in paths_in(content) if path]
        if not places:
            return content
        path = places[int(rng.integers(len(places)))]
        parent = content
        for key in path[:-1]:
            parent = parent[key]
        key, kind = path[-1], int(rng.integers(6))
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[int(rng.integers(len(parent)))]))
        elif kind == 2 and type(parent[key]) in (int, float):
            parent[key] = parent[key] * [-1, 0, 1 + 1e-9, 1e9, 10**20][int(rng.integers(5))]
        elif kind == 3 and isinstance(parent[key], str) and parent[key]:
            at = int(rng.integers(len(parent[key])))
            odd = chr(int(rng.integers(1, 128)))
            parent[key] = parent[key][:at] + odd + parent[key][at + int(rng.integers(2)) :]
        else:
            parent[key] = copy.deepcopy(ODD[int(rng.integers(len(ODD)))])
    return content


def change_bytes(rng: np.random.Generator, text: bytes) -> bytes:
    """The text with some bytes changed, cut out, doubled or added, or cut off."""
    data = bytearray(text)
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(len(data) + 1))
        length = int(rng.integers(1, 12))
        kind = int(rng.integers(6))
        if kind == 0 and at < len(data):
            data[at] = int(rng.integers(256))
        elif kind == 1:
            del data[at : at + length]
        elif kind == 2:
            data[at:at] = data[at : at + length * 5]
        elif kind == 3:
            data[at:at] = bytes(rng.integers(0, 256, length, dtype=np.uint8))
        elif kind == 4:
            odd = [
                b"[" * 3000,
                b'{"a":' * 2000,
                b"9" * 6000,
                b'"',
                b"NaN",
                b"1e999",
                b"\xef\xbb\xbf",
            ]
            data[at:at] = odd[int(rng.integers(len(odd)))]
        elif rng.random() < 0.2:
            del data[at:]
    return bytes(data)


@pytest.fixture
def subjects(scenes, tmp_path):
    """Contents to mutate: results with all kinds of masks, and a whole export."""
    pfo.export_pseudo_labels(scenes, "promerge", tmp_path / "export.json", min_area=0)
    export = json.loads((tmp_path / "export.json").read_text())
    results = []
    for entry in export["annotations"][:8]:
        height, width = entry["segmentation"]["size"]
        base = {k: entry[k] for k in ("image_id", "category_id", "bbox", "score")}
        x, y, w, h = entry["bbox"]
        before = x * height + y
        counts = [before, h, height * width - before - h]
        results += [
            {**base, "segmentation": entry["segmentation"]},
            {**base, "segmentation": {"size": [height, width], "counts": counts}},
            {**base, "segmentation": [[x, y, x + w, y, x + w, y + h]]},
            base,
        ]
    export["annotations"] = export["annotations"][:6]
    return [results[:4], results, export]


def take_in(path, images, samples):
    """All of an import before the database is touched; labels and entries left out."""
    if holds_object(path):
        images = Images(samples, path)
    with tempfile.TemporaryFile() as scratch:
        intake = Intake(images, None, None, None, scratch)
        intake.read(path)
        chosen = intake.choose()
        return intake.report(path, "found", "0" * 16, chosen), list(intake.labels(chosen))


def test_mutated_files(scenes, subjects, tmp_path):
    rng = np.random.default_rng(2024)
    path = tmp_path / "mutated.json"
    texts = [json.dumps(subject).encode() for subject in subjects]
    scenes.clone_sample_field("promerge", "found")
    images = Images(scenes, None)
    counts, slowest = Counter(), 0.0
    for number in range(FILES):
        k = number % len(subjects)
        if rng.random() < 0.5:
            path.write_bytes(change_bytes(rng, texts[k]))
        else:
            path.write_text(json.dumps(change_structure(rng, subjects[k])))
        started = time.perf_counter()
        try:
            report, labels = take_in(path, images, scenes)
        except ValueError:
            report = None
            counts["refused"] += 1
        except BaseException as error:
            raise AssertionError(f"mutated file {number}") from error
        else:
            counts["read"] += 1
            counts["left out"] += sum(report.skipped.values())
            lost = report.unmatched + sum(report.skipped.values())
            assert report.labels + lost == report.entries, number
            assert sum(map(len, labels)) == report.labels, number
        slowest = max(slowest, time.perf_counter() - started)
        if number % STORED == 0:
            check_database(scenes, path, report)
    # the mutations reach every depth: files that are refused, and entries that are left out
    assert counts["refused"] + counts["read"] == FILES
    assert all(counts[name] > FILES / 10 for name in ("refused", "read", "left out"))
    assert slowest < SECONDS
    # and what was stored last can be read, label by label
    for sample in scenes:
        size = sample.metadata.height, sample.metadata.width
        with_masks = [label for label in sample.found.detections if label.mask is not None]
        assert all(pfo.mask_of(label, size).any() for label in with_masks)


def check_database(samples, path, expected) -> None:
    """Import a file: all images change, to what was expected, or none does."""

    def found() -> list[dict]:
        return [d["found"] for d in samples._sample_collection.find({}, {"found": True})]

    before = found()
    try:
        report = pfo.import_predictions(samples, path, "found", overwrite=True)
    except ValueError:
        assert expected is None
        assert found() == before
        return
    after = found()
    assert report.labels == expected.labels == sum(len(d["detections"]) for d in after)
    assert {d["run"] for d in after} == {report.run}
