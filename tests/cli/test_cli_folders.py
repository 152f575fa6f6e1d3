"""A dataset is found by its name, or by the folder that its images lie in, and no other is."""

from __future__ import annotations

import os
import shutil

import pytest

from promerge_fo.cli import main
from tests.cli.options import TEXTURE


@pytest.fixture
def twins(tmp_path, photographs):
    """Two folders of the same name, each with one photograph."""
    folders = [tmp_path / parent / "photos" for parent in ("a", "b")]
    for folder, photograph in zip(folders, photographs, strict=False):
        folder.mkdir(parents=True)
        shutil.copy(photograph, folder / "0.jpg")
    return folders


def test_the_status_of_a_folder_is_not_that_of_another_one_of_its_name(fo, twins, capsys):
    first, second = twins
    assert main(["segment", str(first), *TEXTURE]) == 0
    capsys.readouterr()
    assert main(["status", str(first)]) == 0
    assert capsys.readouterr().out.startswith("photos: field 'promerge', run ")
    assert main(["status", str(second)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert f"no dataset has images in {second}" in said.err
    assert "the datasets are: photos" in said.err


def test_a_folder_is_found_whatever_the_names_of_its_datasets(fo, twins, capsys):
    first, second = twins
    assert main(["segment", str(first), *TEXTURE]) == 0
    assert main(["segment", str(second), *TEXTURE]) == 2
    assert "there is already a dataset 'photos', of other images" in capsys.readouterr().err
    assert fo.load_dataset("photos").values("filepath") == [str(first / "0.jpg")]
    assert main(["segment", str(second), "--name", "more", *TEXTURE]) == 0
    assert main(["segment", str(second), "--name", "again", *TEXTURE]) == 0
    for name in ("more", "again"):
        assert fo.load_dataset(name).values("filepath") == [str(second / "0.jpg")]
    for source, names in (
        (first, ["photos"]),
        (second, ["again", "more"]),
        (first.parents[1], ["again", "more", "photos"]),
    ):
        capsys.readouterr()
        assert main(["status", str(source)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split(":")[0] for line in lines if line[0] != " "] == names


def test_names_that_only_begin_alike_are_other_folders(fo, tmp_path, capsys):
    for name, path in (("one", "p.1/x.jpg"), ("two", "p.12/x.jpg"), ("three", "p01/x.jpg")):
        fo.Dataset(name).add_sample(fo.Sample(filepath=str(tmp_path / path)))
    assert main(["status", str(tmp_path / "p.1")]) == 0  # no such folder, here
    assert capsys.readouterr().out == "one has no run of promerge segment\n"


def test_folders_are_found_through_links(fo, tmp_path, capsys):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name, folder in (("real", "real"), ("linked", "link")):
        fo.Dataset(name).add_sample(fo.Sample(filepath=str(tmp_path / folder / "x.jpg")))
    assert main(["status", str(tmp_path / "link")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said] == ["linked", "real"]


@pytest.mark.parametrize("command", ["segment", "status", "stop", "evaluate"])
def test_what_may_mean_a_dataset_or_a_folder_of_other_images_is_refused(
    fo, twins, monkeypatch, capsys, command
):
    first, second = twins
    dataset = fo.Dataset("photos", persistent=True)
    dataset.add_sample(fo.Sample(filepath=str(first / "0.jpg")))
    monkeypatch.chdir(second.parent)
    more = TEXTURE if command == "segment" else []
    assert main([command, "photos", *more]) == 2
    said = capsys.readouterr().err
    assert "'photos' is the name of a dataset, and of a folder here with other images" in said
    assert "write ./photos for the folder" in said
    dataset.reload()
    assert not dataset.has_field("promerge")
    monkeypatch.chdir(first.parent)
    assert main(["status", "photos"]) == 0
    monkeypatch.chdir(second)
    assert main(["status", "photos"]) == 0


def test_commands_that_take_one_dataset_take_its_folder(fo, twins, tmp_path, capsys):
    first, second = twins
    assert main(["segment", str(first), "--name", "one", *TEXTURE]) == 0
    out = tmp_path / "masks.json"
    assert main(["export", str(first), str(out), "--min-area", "0"]) == 0
    assert main(["import", str(first), str(out), "--label-field", "again"]) == 0
    one = fo.load_dataset("one")
    assert one.count("again.detections") == one.count("promerge.detections") > 0
    assert main(["export", str(second), str(out)]) == 2
    assert f"no dataset has images in {second}" in capsys.readouterr().err
    fo.Dataset("two").add_sample(fo.Sample(filepath=str(first / "0.jpg")))
    assert main(["export", str(first), str(out)]) == 2
    assert f"several datasets have images in {first}: 'one', 'two'" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["photos", "./photos", "photos/0.jpg"])
def test_a_dataset_that_an_interruption_left_empty_is_filled(
    fo, twins, monkeypatch, capsys, source
):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.chdir(twins[0].parent)
    with monkeypatch.context() as patched:
        patched.setattr(fo.Dataset, "add_samples", interrupted)
        assert main(["segment", source, *TEXTURE]) == 130
    assert len(fo.load_dataset("photos")) == 0
    assert main(["segment", source, *TEXTURE]) == 0
    dataset = fo.load_dataset("photos")
    dataset.reload()
    assert dataset.values("filepath") == [str(twins[0] / "0.jpg")]
    assert dataset.count_values("promerge.status") == {"ok": 1}
    assert "look at the masks" in capsys.readouterr().out


def test_an_empty_dataset_is_refused(fo, capsys):
    fo.Dataset("nothing").media_type = "image"
    assert main(["segment", "nothing", *TEXTURE]) == 2
    said = capsys.readouterr()
    assert "the dataset 'nothing' is empty; add images to it" in said.err
    assert said.out == ""


def test_images_whose_names_are_not_utf8_are_named_and_the_others_done(fo, twins, caplog, capsys):
    folder = twins[0]
    odd = folder / os.fsdecode(b"caf\xe9.jpg")
    try:
        shutil.copy(folder / "0.jpg", odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    for source in ([str(folder)], [str(odd), str(folder / "0.jpg")]):
        caplog.clear()
        assert main(["segment", *source, *TEXTURE]) == 0
        named = f"1 images have paths that are not UTF-8 ({folder}/caf\\xe9.jpg); rename them."
        assert named in caplog.text
        assert fo.load_dataset("photos").values("filepath") == [str(folder / "0.jpg")]
    (folder / "0.jpg").unlink()
    capsys.readouterr()
    for source in (folder, odd):
        assert main(["segment", str(source), "--name", "new", *TEXTURE]) == 2
        assert "caf\\xe9.jpg); rename them" in capsys.readouterr().err
    assert main(["status", str(odd)]) == 2
    assert not fo.dataset_exists("new")
