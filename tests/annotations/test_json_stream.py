"""JSON that is read element by element."""

from __future__ import annotations

import json

import numpy as np
import pytest

from promerge_fo.annotations import json_stream
from promerge_fo.annotations.json_stream import holds_object, read_elements


def read(tmp_path, text: str | bytes) -> list:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return [tuple(element) for element in read_elements(path)]


def random_value(rng: np.random.Generator, depth: int = 0):
    kind = rng.integers(0, 8 if depth < 4 else 5)
    if kind == 0:
        return float(rng.normal() * 10.0 ** rng.integers(-12, 12))
    if kind == 1:
        return int(rng.integers(-(10**9), 10**9))
    if kind == 2:
        return "".join(rng.choice(list('a,[]{}:"\\\n\té😀 '), int(rng.integers(0, 12))))
    if kind in (3, 4):
        return [None, True, False][int(rng.integers(0, 3))]
    if kind == 5:
        return {str(k): random_value(rng, depth + 1) for k in range(int(rng.integers(0, 4)))}
    return [random_value(rng, depth + 1) for _ in range(int(rng.integers(0, 4)))]


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 1 << 18])
def test_what_json_reads_wherever_the_window_ends(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    rng = np.random.default_rng(0)
    for case in range(40):
        values = [random_value(rng) for _ in range(int(rng.integers(0, 8)))]
        indent = [None, 1][case % 2]
        expected = [(None, k, value) for k, value in enumerate(values)]
        assert read(tmp_path, json.dumps(values, indent=indent)) == expected
        content = {"info": {"x": values}, "images": values, "count": 3, "annotations": values[:2]}
        assert read(tmp_path, json.dumps(content, ensure_ascii=False, indent=indent)) == [
            ("images", k, value) for k, value in enumerate(values)
        ] + [("annotations", k, value) for k, value in enumerate(values[:2])]


def test_odd_files_that_are_json(tmp_path):
    assert read(tmp_path, b"\xef\xbb\xbf [ ] \n") == []
    assert read(tmp_path, "{}") == []
    assert read(tmp_path, "[1e400, -0]") == [(None, 0, float("inf")), (None, 1, 0)]
    assert np.isnan(read(tmp_path, "[NaN]")[0][2])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "neither a list nor an object"),
        ("17", "neither a list nor an object"),
        ("[1, 2", "it ends too soon"),
        ("[1, 2}", "there is '}' where , or ] should be"),
        ("[1 2]", "there is '2' where , or ] should be"),
        ("[1,]", "element 1, .*is broken"),
        ("[1] x", "something follows its end"),
        ('[{"a": 1}, {"a": }]', "element 1, character 11, it ends too soon, or is broken"),
        ('{"a": [1, tru]}', "element 1 of 'a', character 10"),
        ('{"a" 1}', "there is '1' where : should be"),
        ('{"a": 1, 2: 3}', "a key is no text"),
        ('{"a": [1, 2], ', "it ends too soon"),
        ("[" * 100_000, "element 0, character 1, it is nested too deep"),
        ('[{"a":' * 50_000, "it is nested too deep"),
        ("[" + "9" * 5000 + "]", "digits"),
        (b'["\xff"]', "it is not UTF-8"),
        (b"\x1f\x8b\x08\x00 gzip", "it is not UTF-8"),
    ],
)
def test_what_is_no_json_is_refused_with_the_place(tmp_path, text, words):
    with pytest.raises(ValueError, match=words) as refused:
        read(tmp_path, text)
    assert str(refused.value).startswith(str(tmp_path / "a.json") + " is no JSON")


def test_elements_that_are_too_long_are_refused_early(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "LONGEST", 1000)
    monkeypatch.setattr(json_stream, "_CHUNK", 100)
    assert len(read(tmp_path, json.dumps(["x" * 900] * 50))) == 50
    for text in (json.dumps([1, "x" * 2000]), '[1, "' + "x" * 20_000, "[1, 2" + " " * 20_000):
        with pytest.raises(ValueError, match="element 1, character .*longer than 1,000 characters"):
            read(tmp_path, text)


def test_memory_does_not_grow_with_the_file(tmp_path):
    import tracemalloc

    path = tmp_path / "a.json"
    entry = json.dumps({"image_id": 1, "counts": "0" * 400})
    with path.open("w") as file:
        file.write("[" + ",\n".join([entry] * 100_000) + "]")
    assert path.stat().st_size > 40_000_000
    tracemalloc.start()
    count = sum(1 for _ in read_elements(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 100_000
    assert peak < 4_000_000


def test_lists_and_objects_are_told_apart(tmp_path):
    path = tmp_path / "a.json"
    for text, is_object in ((b"[]", False), (b"\xef\xbb\xbf \n{", True), (b"", False)):
        path.write_bytes(text)
        assert holds_object(path) == is_object
