"""Labels of the next round, by hand."""

import json

import numpy as np
import pytest

from promerge_fo.detector.self_training import merge_labels, same_objects
from tests.detector.conftest import decoded, rle, write_coco


def row(start, stop, width=10):
    mask = np.zeros((2, width), dtype=bool)
    mask[0, start:stop] = True
    return mask


def prediction(image_id, mask, score):
    return {"image_id": image_id, "category_id": 1, "score": score, "segmentation": rle(mask)}


def test_labels_make_way_for_what_is_the_same_object():
    labels = [rle(row(0, 4)), rle(row(6, 10)), rle(row(0, 10))]
    found = [rle(row(0, 3)), rle(row(4, 8))]
    # IoUs: 3/4 and 0; 0 and 2/6; 3/10 and 4/10
    assert same_objects(labels, found, 0.5).tolist() == [True, False, False]
    assert same_objects(labels, found, 0.75).tolist() == [False, False, False]  # above, not from
    assert same_objects(labels, found, 0.39).tolist() == [True, False, True]
    assert same_objects(labels, [], 0.5).tolist() == [False] * 3
    assert same_objects([], found, 0.5).tolist() == []


def test_confident_predictions_and_the_labels_they_do_not_replace(tmp_path):
    images = [{"id": i, "file_name": f"deep/{i}.jpg", "height": 2, "width": 10} for i in (5, 6, 8)]
    write_coco(tmp_path / "old.json", images, [(5, row(0, 4)), (5, row(6, 10)), (8, row(2, 5))])
    found = [
        prediction(5, row(0, 3), 0.9),  # is the first label
        prediction(5, row(6, 10), 0.69),  # is the second, but unsure
        prediction(6, row(1, 9), 0.7),  # an image without labels
    ]
    (tmp_path / "found.json").write_text(json.dumps(found))
    counts = merge_labels(
        tmp_path / "old.json", tmp_path / "found.json", tmp_path / "new.json", min_score=0.7
    )
    assert counts == {"images": 3, "predicted": 2, "kept": 2, "replaced": 1}
    new = json.loads((tmp_path / "new.json").read_text())
    assert new["images"] == images
    assert new["categories"] == [{"id": 1, "name": "fg"}]
    masks = [(a["image_id"], decoded(a["segmentation"])) for a in new["annotations"]]
    expected = [(5, row(0, 3)), (5, row(6, 10)), (6, row(1, 9)), (8, row(2, 5))]
    assert [i for i, _ in masks] == [i for i, _ in expected]
    assert all((m == e).all() for (_, m), (_, e) in zip(masks, expected, strict=True))
    assert [a["id"] for a in new["annotations"]] == [1, 2, 3, 4]
    assert [a["area"] for a in new["annotations"]] == [3, 4, 8, 3]
    assert [a["bbox"] for a in new["annotations"]][1] == [6, 0, 4, 1]
    assert [a.get("score") for a in new["annotations"]] == [0.9, None, 0.7, None]


def test_new_labels_have_the_classes_of_what_they_are(tmp_path):
    """A prediction brings its own, also where it replaces a label of another."""
    image = {"id": 5, "file_name": "5.jpg", "height": 2, "width": 10}
    masks = [(5, row(0, 4)), (5, row(6, 10))]
    write_coco(tmp_path / "old.json", [image], masks, [(7, "dog"), (3, "cat")], of=[7, 7])
    found = [{**prediction(5, row(0, 3), 0.9), "category_id": 3}]
    (tmp_path / "found.json").write_text(json.dumps(found))
    for classes, of, names in (
        (True, [3, 7], [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]),
        (False, [3, 1], [{"id": 1, "name": "fg"}]),
    ):
        new = tmp_path / f"{classes}.json"
        merge_labels(tmp_path / "old.json", tmp_path / "found.json", new, classes=classes)
        content = json.loads(new.read_text())
        assert [entry["category_id"] for entry in content["annotations"]] == of
        assert content["categories"] == names


def test_predictions_of_other_images_are_refused(tmp_path):
    image = {"id": 5, "file_name": "5.jpg", "height": 2, "width": 10}
    write_coco(tmp_path / "old.json", [image], [(5, row(0, 4))])
    (tmp_path / "found.json").write_text(json.dumps([prediction(4, row(0, 3), 0.9)]))
    with pytest.raises(ValueError, match="has predictions of image 4 where none were expected"):
        merge_labels(tmp_path / "old.json", tmp_path / "found.json", tmp_path / "new.json")
    assert not list(tmp_path.glob("new.json*"))
