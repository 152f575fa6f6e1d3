"""``promerge group`` and ``name``."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageDraw

from promerge_fo import dataset as pfo
from promerge_fo.cli import main
from tests.scenes import kind_of, scenes_of_kinds


@pytest.fixture
def photos(fo):
    """A dataset "photos" of sixty masks of three kinds, with embeddings."""
    from tests.dataset.classes.made import embed, fill, vectors

    made = fo.Dataset("photos")
    fill(made, fo)
    embed(made, vectors())
    return made


def test_group_lists_what_it_found(photos, capsys):
    assert main(["group", "photos", "--label-field", "promerge"]) == 0
    assert re.search(r"\n[3-6] groups; promerge name gives", capsys.readouterr().out)
    assert main(["group", "photos", "--groups", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "group 1: 20 masks", "group 2: 20 masks", "group 3: 20 masks",
        "3 groups; promerge name gives them names",
    ]  # fmt: skip
    assert main(["group", "photos", "--merge", "1", "2"]) == 0
    assert capsys.readouterr().out.startswith("group 1: 40 masks\ngroup 3: 20 masks\n2 groups")
    assert main(["group", "photos", "--split", "1", "--into", "2"]) == 0
    assert "3 groups" in capsys.readouterr().out
    assert main(["group", "photos", "--groups", "4"]) == 0
    assert main(["group", "photos", "--list"]) == 0
    assert capsys.readouterr().out.count("4 groups") == 2
    photos.reload()
    groups = photos.values("promerge.detections.group", unwind=True)
    assert set(groups) == {"1", "2", "3", "4"}


def test_name_gives_spreads_lists_and_takes_back(photos, capsys):
    assert main(["group", "photos", "--groups", "3"]) == 0
    assert main(["name", "photos", "cat", "--group", "1", "3"]) == 0
    assert "40 masks are named 'cat'; --undo takes it back" in capsys.readouterr().out
    assert main(["name", "photos", "--undo"]) == 0
    assert "40 masks have their former names" in capsys.readouterr().out
    ids = photos.values("promerge.detections.id", unwind=True)
    assert main(["name", "photos", "dog", "--ids", ids[0], ids[3]]) == 0
    capsys.readouterr()
    near = ["--limit", "4", "--max-distance", "0.6"]
    assert main(["name", "photos", "dog", "--nearest", *near]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == "4 masks without a name within 0.600"
    assert all(re.fullmatch(r"[0-9a-f]{24}  0\.\d{3}  dog", line) for line in lines)
    assert main(["name", "photos", "--list"]) == 0
    assert capsys.readouterr().out == "       2  dog\n"
    assert main(["name", "photos", "--propagate", *near]) == 0
    assert "4 masks are named; --undo takes it back" in capsys.readouterr().out
    assert main(["name", "photos", "--list"]) == 0
    assert capsys.readouterr().out == "       6  dog\n"
    photos.reload()
    named = {label.id for s in photos for label in s.promerge.detections if label.label == "dog"}
    assert named == {ids[0], ids[3], *(line[:24] for line in lines)}


def test_a_folder_of_images_becomes_a_yolo_dataset_with_classes(fo, tmp_path):
    folder, truth = tmp_path / "objects", {}
    folder.mkdir()
    for number, (image, masks, kinds) in enumerate(scenes_of_kinds(31)):
        Image.fromarray(image).save(folder / f"{number}.png")
        truth[str(number)] = (masks, kinds)
    small = ["--encoder", "texture", "--image-size", "240"]
    assert main(["segment", str(folder), "--embed", *small]) == 0
    assert main(["group", str(folder)]) == 0
    dataset = fo.load_dataset("objects")
    total = dataset.count("promerge.detections")
    labels = {label.id: (s, label) for s in dataset for label in s.promerge.detections}
    for group in pfo.list_groups(dataset, "promerge"):  # its four most typical masks are looked at
        looks = Counter[int | None]()
        for sample, label in map(labels.get, group.typical):
            mask = label.to_segmentation(frame_size=(240, 240)).mask > 0
            looks[kind_of(mask, *truth[sample.filename.removesuffix(".png")])] += 1
        name = f"kind{looks.most_common(1)[0][0]}"
        assert main(["name", "objects", name, "--ids", *group.typical]) == 0
    near = ["--limit", str(total), "--max-distance", "2"]
    assert main(["name", "objects", "--propagate", *near]) == 0
    names = [f"kind{kind}" for kind in range(4)]
    out = tmp_path / "yolo"
    exporting = ["export", "objects", str(out), "--format", "yolo", "--images", "link"]
    assert main([*exporting, "--min-area", "0", "--classes", *names]) == 0
    right = 0
    for path in out.rglob("*.txt"):
        for line in path.read_text().splitlines() if path.stem in truth else ():
            number, *corners = line.split()
            canvas = Image.new("1", (240, 240))
            polygon = (np.array(corners, dtype=float) * 240).tolist()
            ImageDraw.Draw(canvas).polygon(polygon, fill=1)
            right += kind_of(np.asarray(canvas), *truth[path.stem]) == int(number)
    assert right >= 0.95 * total > 35


def test_what_cannot_be_grouped_or_named_ends_with_a_reason(photos, capsys):
    for arguments, reason in (
        (["group", "photos", "--label-field", "x"], "the field 'x' does not exist"),
        (["group", "photos", "--split", "5"], "has no group '5'; its groups are: none; promerge"),
        (["name", "photos", " ", "--group", "1"], "one line of text that is not empty"),
        (["name", "photos", "--group", "1"], "promerge name DATASET NAME"),
        (["name", "photos", "cat", "--nearest"], "has the name 'cat'; the names are: none"),
        (["name", "nothing", "--undo"], "there is no dataset 'nothing'"),
    ):
        assert main(arguments) == 2, arguments
        assert reason in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["name", "photos", "cat"])
    assert "one of the arguments --group --ids" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["group", "name"])
def test_help_teaches_by_examples(capsys, command):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = capsys.readouterr().out
    assert f"usage: promerge {command} DATASET|DIR " in said
    assert f"\n  promerge {command} my-dataset" in said
