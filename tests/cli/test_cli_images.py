"""Which files of a folder are segmented, and what is said of the others."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from promerge_fo.cli import main
from promerge_fo.files import KINDS, find_images, not_shown
from tests.cli.options import TEXTURE


@pytest.fixture
def mixed(tmp_path, photographs):
    """A folder with images of many kinds, other files, and folders by links."""
    folder, elsewhere = tmp_path / "mixed", tmp_path / "elsewhere"
    for made in (folder / "inner", elsewhere / "deep"):
        made.mkdir(parents=True)
    image = Image.open(photographs[0]).resize((60, 40))
    for name in ("a.jpg", "b.JFIF", "c.jpe", "inner/d.png", "e.tif", "f.tiff", "g.ppm"):
        kind = "JPEG" if name[0] in "bc" else None
        image.save(folder / name, kind)
    image.save(elsewhere / "h.jpg")
    image.save(elsewhere / "deep" / "i.webp")
    if ".avif" in KINDS:
        image.save(folder / "j.avif")
    for name in ("k.heic", "l.HEIC", "m.cr2", "n.txt", "o.txt", "p.json", "inner/README"):
        (folder / name).write_bytes(b"-")
    (folder / "link").symlink_to(elsewhere)
    (folder / "again").symlink_to(folder / "inner")  # reached twice
    (elsewhere / "deep" / "up").symlink_to(folder)  # a loop
    (folder / "self").symlink_to(folder / "self")
    return folder


def test_every_file_of_a_folder_is_segmented_or_counted(fo, mixed, capsys):
    assert main(["segment", str(mixed), *TEXTURE]) == 0
    said = capsys.readouterr()
    dataset = fo.load_dataset("mixed")
    names = {os.path.relpath(path, mixed) for path in dataset.values("filepath")}
    wanted = {
        "a.jpg", "b.JFIF", "c.jpe", "inner/d.png", "e.tif", "f.tiff", "g.ppm", "link/h.jpg",
        "link/deep/i.webp",
    }  # fmt: skip
    assert names == wanted | ({"j.avif"} if ".avif" in KINDS else set())
    assert dataset.media_type == "image"
    assert set(dataset.values("promerge.status")) <= {"ok", "all_filtered", "all_rejected"}
    assert set(dataset.values("metadata.width")) == {60}
    lines = said.err.splitlines()
    assert "1 .cr2 file was skipped: convert them to JPEG or PNG" in lines
    others = "5 files were skipped, no images: 2 without an ending, 1 .json, 2 .txt"
    assert others in lines  # README, and the link to itself
    if ".heic" not in KINDS:
        heic = "2 .heic files were skipped: install a reader for them (pip install pillow-heif)"
        assert any(line.startswith(heic) for line in lines)
    for kind, count in (
        (".tif", "1 .tif file"),
        (".tiff", "1 .tiff file"),
        (".ppm", "1 .ppm file"),
    ):
        (line,) = (line for line in lines if f"'*{kind}'" in line)
        assert line.startswith(f"browsers do not show {count}, and nor does the App; to look at")
    assert said.out.splitlines()[-1].startswith("look at the masks: ")


def test_a_folder_of_other_files_alone_says_so(fo, tmp_path, capsys):
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "a.nef").write_bytes(b"-")
    assert main(["segment", str(tmp_path / "only"), *TEXTURE]) == 2
    said = capsys.readouterr().err
    assert "holds no images" in said
    assert "1 .nef file was skipped: convert them to JPEG or PNG" in said


def test_folders_that_are_closed_are_named(mixed, monkeypatch):
    scan = os.scandir

    def scandir(path):
        if os.fspath(path) == str(mixed / "inner"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = find_images(mixed)
    assert f"a folder was skipped: {mixed}/inner (Permission denied)" in found.notes()
    assert not any("d.png" in path for path in found.images)


def test_a_folder_is_taken_by_its_own_path_and_once(tmp_path):
    """Links that were there before and are there later change no path of an image."""
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "a.png").touch()
    assert find_images(tmp_path).images == [str(tmp_path / "z" / "a.png")]
    (tmp_path / "a").symlink_to(tmp_path / "z")
    assert find_images(tmp_path).images == [str(tmp_path / "z" / "a.png")]
    assert find_images(tmp_path / "nowhere").images == []


def test_what_browsers_do_not_show():
    assert not_shown(["a.jpg", "b.avif", "c.webp"]) == []
    (line,) = not_shown(["a.TIF", "b.tif", "c.png"])
    assert line.startswith("browsers do not show 2 .tif files, and nor does the App")
    assert "magick mogrify -format png '*.tif'" in line


def test_heic_is_read_where_the_reader_is_installed(tmp_path):
    """A package of the reader's name stands in for it: its files are PNG behind four bytes."""
    (tmp_path / "pillow_heif.py").write_text(
        """
from PIL import Image, PngImagePlugin


class HeifFile(PngImagePlugin.PngImageFile):
    format = "HEIF"

    def _open(self):
        self.fp.read(4)
        super()._open()


def register_heif_opener():
    Image.register_open("HEIF", HeifFile, lambda start: start[:4] == b"heif")
    Image.register_extension("HEIF", ".heic")
"""
    )
    Image.new("RGB", (7, 5), "red").save(tmp_path / "a.png")
    (tmp_path / "b.HEIC").write_bytes(b"heif" + (tmp_path / "a.png").read_bytes())
    program = f"""
from promerge_fo.files import find_images
from promerge_fo.images import load_image, read_header
found = find_images({str(tmp_path)!r})
heic = next(path for path in found.images if path.endswith("b.HEIC"))
assert read_header(heic).size == (5, 7)
assert (load_image(heic) == (255, 0, 0)).all()
assert found.notes() == ["1 file was skipped, no images: 1 .py"], found.notes()
"""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_single_files_that_cannot_be_read_say_what_to_do(fo, tmp_path, photographs, capsys):
    if ".heic" in KINDS:
        pytest.skip("the reader is installed")
    shutil.copy(photographs[0], tmp_path / "a.jpg")
    (tmp_path / "b.heic").write_bytes(b"\0\0\0\x18ftypheic")
    assert main(["segment", str(tmp_path / "a.jpg"), str(tmp_path / "b.heic"), *TEXTURE]) == 1
    said = capsys.readouterr().err
    assert "b.heic is not an image that Pillow can read; install a reader for it (pip" in said


def test_one_limit_and_one_message_for_large_images(fo, tmp_path, monkeypatch, capsys, caplog):
    """Segmenting, evaluating, comparing, importing and exporting refuse the same images."""
    folder = tmp_path / "sizes"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (60, 100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "a.png")
    Image.fromarray(noise[:20, :20]).save(folder / "b.png")
    predictions = tmp_path / "predictions.json"
    entry = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}
    predictions.write_text(json.dumps([entry, {**entry, "image_id": 2}]))
    out = tmp_path / "masks.json"
    message = (
        f"{folder}/a.png has 100 x 60 = 6,000 pixels, but at most 5,000 are read; cut it into "
        "tiles, shrink it, or set PROMERGE_MAX_PIXELS in the environment to more"
    )
    monkeypatch.setenv("PROMERGE_MAX_PIXELS", "5000")
    assert main(["segment", str(folder), "--output", str(out), *TEXTURE]) == 1
    said = capsys.readouterr()
    assert f"failed: {message}" in said.err
    assert "masks of 1 images\n1 images are not in it: they cannot be read\n" in said.out
    assert main(["import", "sizes", str(predictions), "--label-field", "found"]) == 0
    assert message in capsys.readouterr().out
    for command in (
        ["evaluate", "sizes", "--gt-field", "found"],
        ["compare", "sizes", "promerge", "found", "--gt-field", "found"],
    ):
        caplog.clear()
        assert main(command) == 0, capsys.readouterr()
        assert f"1 images cannot be read and are left out: {message}" in caplog.text
    monkeypatch.delenv("PROMERGE_MAX_PIXELS")
    assert main(["segment", str(folder), "--retry-failed", "--output", str(out), *TEXTURE]) == 0
    assert "masks of 2 images" in capsys.readouterr().out
