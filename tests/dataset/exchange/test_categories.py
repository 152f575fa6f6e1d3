"""Names of labels as categories of exports, and back."""

from __future__ import annotations

import json

import pytest
import yaml

from promerge_fo import dataset as pfo

NAMES = ["dog", "fg", "cat", "dog", "Ünïcode: #1", "cat"]


@pytest.fixture
def named(scenes):
    """The scenes, with names on their labels in turn."""
    count = 0
    for sample in scenes.iter_samples(autosave=True):
        for label in sample.promerge.detections:
            label.label = NAMES[count % len(NAMES)]
            count += 1
    return scenes


def export(named, path, **options):
    """The summary, and the number of annotations by category."""
    summary = pfo.export_pseudo_labels(named, "promerge", path, 0, **options)
    content = json.loads(path.read_text())
    names = {each["id"]: each["name"] for each in content["categories"]}
    assert list(names) == list(range(1, len(names) + 1))
    counts = dict.fromkeys(names.values(), 0)
    for annotation in content["annotations"]:
        counts[names[annotation["category_id"]]] += 1
    return summary, counts


def test_a_list_is_kept_in_its_order_and_other_names_are_counted(named, tmp_path):
    present = named.count_values("promerge.detections.label")
    summary, counts = export(named, tmp_path / "a.json", classes=["dog", "bird", "cat"])
    assert list(counts.items()) == [("dog", present["dog"]), ("bird", 0), ("cat", present["cat"])]
    assert summary["unlisted_names"] == {n: present[n] for n in ("fg", "Ünïcode: #1")}
    assert summary["unlisted"] == present["fg"] + present["Ünïcode: #1"] > 0
    manifest = json.loads((tmp_path / "a.manifest.json").read_text())
    assert manifest["settings"]["classes"] == ["dog", "bird", "cat"]
    assert manifest["unlisted_names"] == summary["unlisted_names"]


@pytest.mark.parametrize("listed", [False, True])
def test_other_names_go_where_the_user_says(named, tmp_path, listed):
    present = named.count_values("promerge.detections.label")
    classes = ["animal", "dog"] if listed else ["dog"]
    summary, counts = export(named, tmp_path / "a.json", classes=classes, other_class="animal")
    others = sum(present.values()) - present["dog"]
    assert counts == {"dog": present["dog"], "animal": others} and summary["unlisted"] == 0
    assert list(counts) == (["animal", "dog"] if listed else ["dog", "animal"])


def test_all_names_are_sorted_and_fg_is_none(named, tmp_path):
    present = named.count_values("promerge.detections.label")
    summary, counts = export(named, tmp_path / "a.json", classes="labels")
    assert list(counts) == ["cat", "dog", "Ünïcode: #1"]
    assert summary["unlisted_names"] == {"fg": present["fg"]}


def test_a_file_has_a_name_a_line(named, tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("\ufeffcat\n\n  dog \n", encoding="utf-8")
    for given in (path, str(path)):
        assert list(export(named, tmp_path / "a.json", classes=given)[1]) == ["cat", "dog"]


def test_without_classes_names_do_not_matter(named, tmp_path):
    summary, counts = export(named, tmp_path / "a.json")
    assert counts == {"fg": summary["annotations"]} and summary["unlisted"] == 0


def test_yolo_names_them(named, tmp_path):
    present = named.count_values("promerge.detections.label")
    options = {"format": "yolo", "images": "link", "classes": "labels", "other_class": "rest: 2"}
    summary = pfo.export_pseudo_labels(named, "promerge", tmp_path / "out", 0, **options)
    names = yaml.safe_load((tmp_path / "out" / "dataset.yaml").read_text())["names"]
    assert names == dict(enumerate(["cat", "dog", "Ünïcode: #1", "rest: 2"]))
    lines = [
        line.split()[0]
        for path in (tmp_path / "out" / "labels").rglob("*.txt")
        for line in path.read_text().splitlines()
    ]
    assert len(lines) + summary["scattered"] == sum(present.values())
    assert set(lines) == {"0", "1", "2", "3"}


def test_an_import_gives_the_names_back(named, tmp_path):
    export(named, tmp_path / "a.json", classes="labels", other_class="fg")
    report = pfo.import_predictions(named, tmp_path / "a.json", "again", class_names="annotations")
    path = "detections.label"
    assert report.labels == named.count("promerge.detections")
    assert named.values(f"again.{path}") == named.values(f"promerge.{path}")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classes": []}, "there are none"),
        ({"classes": ["cat", "cat"]}, "'cat' stands there twice"),
        ({"classes": ["cat", " "]}, "the class ' ' is no name"),
        ({"classes": ["a\nb"]}, "is no name"),
        ({"classes": [1]}, "the class 1 is no name"),
        ({"other_class": "cat"}, "give classes, too"),
        ({"classes": "nowhere.txt"}, "there is no file nowhere.txt; give classes as a list"),
        ({"classes": "labels"}, "no label of 'promerge' has a name other than 'fg'"),
    ],
)
def test_wrong_classes_are_refused(scenes, tmp_path, options, words):
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        pfo.export_pseudo_labels(scenes, "promerge", tmp_path / "a.json", **options)
    assert not (tmp_path / "a.json").exists()
