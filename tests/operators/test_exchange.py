"""Operators that export pseudo-labels and import predictions."""

import json

import pytest


def test_masks_are_exported_and_imported_again(operator, segmented, tmp_path):
    from promerge_fo.dataset.evaluation.evaluate import evaluate_instances
    from promerge_fo.dataset.provenance import list_runs

    path = tmp_path / "labels.json"
    operator("export_pseudo_labels")(
        segmented, label_field="unfiltered", path=str(path), min_area=0.0, review="all"
    )
    exported = json.loads(path.read_text())
    assert len(exported["annotations"]) == segmented.count("unfiltered.detections")
    results = tmp_path / "coco_instances_results.json"
    results.write_text(json.dumps(exported["annotations"]))
    operator("import_predictions")(segmented, path=str(results), label_field="again")
    assert segmented.count("again.detections") == len(exported["annotations"])
    metrics = evaluate_instances(segmented, "again", "unfiltered").metrics()
    assert metrics["segm"]["AP"] == pytest.approx(100)
    assert any(key.startswith("again") for key in list_runs(segmented))


def test_predictions_are_named_by_categories_or_by_themselves(operator, form, segmented, tmp_path):
    sample = segmented.first()
    sample.promerge.detections[0].label = "cat"
    sample.save()
    path, results = tmp_path / "a.json", tmp_path / "results.json"
    params = {"label_field": "promerge", "path": str(path), "min_area": 0.0, "classes": "dog, cat"}
    operator("export_pseudo_labels")(segmented, **params)
    (entry,) = json.loads(path.read_text())["annotations"]
    results.write_text(json.dumps([{**entry, "category_name": "lion"}]))
    take = operator("import_predictions")
    params = {"path": str(results), "annotations": str(path)}
    assert form(take, segmented, **params).type.properties["class_names"].default is False
    for ticked, name in ((False, "lion"), (True, "cat")):
        take(segmented, class_names=ticked, label_field=name, **params)
        assert segmented.distinct(f"{name}.detections.label") == [name]


def test_export_filters_and_splits(operator, form, segmented, tmp_path):
    labels = segmented.first().promerge.detections
    labels[0]["review"] = "rejected"
    first = segmented.first()
    first.promerge.detections = labels
    first.save()
    folder = tmp_path / "split"
    export = operator("export_pseudo_labels")
    params = {"label_field": "promerge", "path": str(folder), "min_area": 0.0, "images": "link"}
    export(segmented, review="not rejected", val_fraction=0.5, **params)
    parts = [
        json.loads((folder / "annotations" / f"{s}.json").read_text()) for s in ("train", "val")
    ]
    assert [len(part["images"]) for part in parts] == [2, 2]
    written = sum(len(part["annotations"]) for part in parts)
    assert written == segmented.count("promerge.detections") - 1
    assert sum(path.is_symlink() for path in folder.rglob("*.jpg")) == 4
    again = form(export, segmented, **params)
    assert "Tick the box" in again.error_message
    assert not form(export, segmented, overwrite=True, **params).invalid


def test_names_become_classes(operator, form, segmented, tmp_path):
    sample = segmented.first()
    sample.promerge.detections[0].label = "cat"
    sample.save()
    path, export = tmp_path / "a.json", operator("export_pseudo_labels")
    params = {"label_field": "promerge", "path": str(path), "min_area": 0.0}
    for classes, names in (("labels", ["cat"]), (" dog, cat,", ["dog", "cat"])):
        result = export(segmented, classes=classes, **params)
        content = json.loads(path.read_text())
        assert [each["name"] for each in content["categories"]] == names
        assert len(content["annotations"]) == 1
        others = segmented.count("promerge.detections") - 1
        assert result.result["unlisted"] == others
    export(segmented, classes="cat", other_class="rest", **params)
    content = json.loads(path.read_text())
    assert [each["name"] for each in content["categories"]] == ["cat", "rest"]
    assert len(content["annotations"]) == others + 1
    assert "other_class" in form(export, segmented, classes="cat", **params).type.properties


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, "Say where to"),
        ({"path": "labels.json"}, "no absolute path"),
        ({"path": "/nowhere/labels.json", "val_fraction": 0.2}, "needs a folder"),
        ({"path": "/nowhere/labels.json", "format": "yolo"}, "needs a folder"),
        ({"path": "/nowhere/labels.json", "images": "copy"}, "needs a folder"),
    ],
)
def test_wrong_exports_are_refused_with_words(operator, form, segmented, params, words):
    assert words in form(operator("export_pseudo_labels"), segmented, **params).error_message


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, "Say which file"),
        ({"path": "/nowhere/results.json"}, "There is no file /nowhere/results.json"),
        ({"path": __file__, "annotations": "/nowhere/a.json"}, "There is no file /nowhere/a.json"),
        ({"path": __file__, "label_field": "no name"}, "is no name for a field"),
        ({"path": __file__, "label_field": "promerge"}, "Tick the box"),
    ],
)
def test_wrong_imports_are_refused_with_words(operator, form, segmented, params, words):
    assert words in form(operator("import_predictions"), segmented, **params).error_message
    with pytest.raises(Exception, match=words):
        operator("import_predictions")(segmented, **params)


def test_a_file_that_is_no_predictions_fails_and_leaves_nothing(operator, segmented, tmp_path):
    path = tmp_path / "results.json"
    path.write_text('{"hello": "world"}')
    with pytest.raises(Exception, match="results.json"):
        operator("import_predictions")(segmented, path=str(path), label_field="bad")
    assert not segmented.has_field("bad")


def test_delegated_export_and_import(operator, launch, segmented, tmp_path):
    path = tmp_path / "labels.json"
    export = {"label_field": "promerge", "path": str(path), "min_area": 0.0}
    launch(operator("export_pseudo_labels")(segmented, delegate=True, **export))
    assert path.is_file()
    launch(
        operator("import_predictions")(
            segmented, delegate=True, path=str(path), label_field="later"
        )
    )
    segmented.reload()
    assert segmented.count("later.detections") == segmented.count("promerge.detections")


def test_places_that_cannot_be_written_are_refused_in_the_form(operator, form, segmented, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    words = f"cannot be written: {file} is no folder. Choose another place."
    path = str(file / "new" / "labels.json")
    asked = {"label_field": "promerge", "path": path}
    assert words in form(operator("export_pseudo_labels"), segmented, **asked).error_message
    asked = {"folder": {"absolute_path": str(file)}}
    segmented.clone_sample_field("promerge", "third")
    assert words in form(operator("compare_fields"), segmented, **asked).error_message
    assert words in form(operator("tune"), segmented, encoder="texture", **asked).error_message
    asked = {"detector": str(file), "path": path}
    assert words in form(operator("predict"), segmented, **asked).error_message
    asked = {"output": str(file / "training")}
    assert words in form(operator("train_detector"), segmented, **asked).error_message
