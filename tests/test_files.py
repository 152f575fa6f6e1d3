"""Files that appear whole, or not at all."""

import json
import os
import threading
from pathlib import Path

import pytest

from promerge_fo import files
from promerge_fo.files import whole_file, write_json_list


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_once_it_is_whole(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with whole_file(path, "w") as file:
        file.write("ä")
        file.flush()
        assert not path.exists()
        (part,) = path.parent.iterdir()
        assert part.name.startswith("a.txt.") and part.suffix == ".part"
        assert part.read_bytes() == b"\xc3\xa4"
    assert names(path.parent) == ["a.txt"]
    with whole_file(path) as file:
        file.write(b"other")
        assert path.read_bytes() == b"\xc3\xa4"
    assert path.read_bytes() == b"other"
    assert names(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), whole_file(path, "w") as file:
        file.write("half of")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_durable_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    path, seen, real = tmp_path / "a", [], os.fsync

    def fsync(descriptor):
        seen.append((Path(f"/proc/self/fd/{descriptor}").is_dir(), path.exists()))
        real(descriptor)

    monkeypatch.setattr(files.os, "fsync", fsync)
    with whole_file(path) as file:
        file.write(b"a")
    assert seen == []
    path.unlink()
    with whole_file(path, durable=True) as file:
        file.write(b"a")
    assert seen == [(False, False), (True, True)]  # the file, and then its folder


def test_several_writers_of_one_file(tmp_path):
    path, barrier = tmp_path / "a.txt", threading.Barrier(8)

    def write(letter):
        with whole_file(path, "w") as file:
            file.write(letter)
            barrier.wait()
            file.write(letter * 9999)

    writers = [threading.Thread(target=write, args=(letter,)) for letter in "abcdefgh"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    text = path.read_text()
    assert text == text[0] * 10_000
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("elements", [[], [{"id": 1}], [1, "ä", [None]]])
def test_a_json_list_is_written_element_by_element(tmp_path, elements):
    with whole_file(tmp_path / "a.json", "w") as file:
        assert write_json_list(file, iter(elements)) == len(elements)
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == elements
    assert text.count("\n") == len(elements) + 1
