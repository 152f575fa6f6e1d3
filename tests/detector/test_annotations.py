"""Reading pseudo-labels."""

import json

import numpy as np
import pytest

from promerge_fo.detector.annotations import find_annotations, read_annotations
from tests.detector.conftest import rle, write_coco


def test_images_masks_and_what_is_left_out(tmp_path):
    first, second = np.zeros((4, 6), dtype=bool), np.zeros((4, 6), dtype=bool)
    first[1:3, 2:5], second[0, 0] = True, True
    square = {"segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]}  # 3 x 2 pixels
    runs = {"segmentation": {"size": [4, 6], "counts": [4, 2, 18]}}  # column 1, rows 0 and 1
    entries = [
        {"image_id": 7, "segmentation": rle(second)},
        {"image_id": 3, "segmentation": rle(first)},
        {"image_id": 7, **square},
        {"image_id": 7, "iscrowd": 1, "segmentation": rle(first)},
        {"image_id": 7, "bbox": [0, 0, 2, 2]},
        {"image_id": 7, "segmentation": rle(np.zeros((4, 6), dtype=bool))},
        {"image_id": 99, "segmentation": rle(first)},
        {"image_id": 3, **runs},
    ]
    images = [{"id": i, "file_name": f"{i}.png", "height": 4, "width": 6} for i in (3, 5, 7)]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"annotations": entries, "images": images}))  # the order is free
    read = read_annotations(path, "/photos")
    assert (len(read), read.ids.tolist(), read.sizes.tolist()) == (3, [3, 5, 7], [[4, 6]] * 3)
    assert [read.path(k) for k in range(3)] == [f"/photos/{i}.png" for i in (3, 5, 7)]
    assert read.left_out == {"crowd": 1, "without mask": 1, "empty mask": 1, "of no image": 1}
    assert read.with_masks().tolist() == [0, 2]
    assert read.masks(1).shape == (0, 4, 6)
    column = np.zeros((4, 6), dtype=bool)
    column[:2, 1] = True
    assert (read.masks(0) == [first, column]).all()
    drawn = np.zeros((4, 6), dtype=bool)
    drawn[1:3, 1:4] = True
    assert (read.masks(2) == [second, drawn]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": []}, "has no images"),
        ({"images": [{"id": 1, "height": 4, "width": 6}]}, "image 0 .* has no 'file_name'"),
        (
            {"images": [{"id": "1", "file_name": "1.png", "height": 4, "width": 6}]},
            "image 0 .* id '1' is no whole number",
        ),
        ({"annotations": [{"segmentation": {}}]}, "annotation 0 .* has no 'image_id'"),
        (
            {"annotations": [{"image_id": 1, "segmentation": {"size": [6, 4], "counts": "0"}}]},
            r"annotation 0 .*image of 4 x 6 pixels \(width x height\), but its image has 6 x 4",
        ),
        (
            {"annotations": [{"image_id": 1, "segmentation": {"size": [4, 6], "counts": [2]}}]},
            "annotation 0 .*add up to 2 pixels",
        ),
    ],
)
def test_what_cannot_be_right_is_named(tmp_path, change, message):
    image = {"id": 1, "file_name": "1.png", "height": 4, "width": 6}
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"images": [image], "annotations": [], **change}))
    with pytest.raises(ValueError, match=message):
        read_annotations(path, tmp_path)


IMAGES = [{"id": i, "file_name": f"{i}.png", "height": 4, "width": 6} for i in (1, 2)]
WHOLE = np.ones((4, 6), dtype=bool)


def test_categories_are_one_class_or_classes_in_the_order_of_their_ids(tmp_path):
    path = tmp_path / "a.json"
    masks = [(2, WHOLE), (1, WHOLE), (2, WHOLE), (1, WHOLE)]
    write_coco(path, IMAGES, masks, [(9, "dog"), (4, "cat"), (7, "fg")], of=[9, 4, 4, 7])
    one = read_annotations(path, tmp_path)
    assert (one.categories, one.merged) == ({1: "fg"}, ("dog", "cat", "fg"))
    assert one.said() == "one class of 3 categories (dog, cat, fg); --classes learns them apart"
    assert [one.classes(k).tolist() for k in range(2)] == [[0, 0], [0, 0]]
    apart = read_annotations(path, tmp_path, classes=True)
    assert list(apart.categories.items()) == [(4, "cat"), (7, "fg"), (9, "dog")]
    assert [apart.classes(k).tolist() for k in range(2)] == [[0, 1], [2, 0]]  # by image, as masks
    assert (apart.merged, apart.said()) == ((), "3 classes: cat, fg, dog")


def test_of_many_classes_ten_are_named(tmp_path):
    path = tmp_path / "a.json"
    for count, said in ((1, ""), (11, "11 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...")):
        write_coco(path, IMAGES, [(1, WHOLE)], [(k + 1, str(k)) for k in range(count)])
        assert read_annotations(path, tmp_path, classes=True).said() == said


@pytest.mark.parametrize(
    ("categories", "of", "message"),
    [
        ([], 1, "has no categories with names to learn apart; export with classes"),
        ([(1, "fg")], 1, "has no categories with names"),
        ([(1, "cat")], 2, "has masks of category 2, which is none of its 1 categories"),
        ([(1, "cat")], None, r"annotation 0 .* its category_id None is no whole number"),
        ([(1, "cat")], 2**70, r"annotation 0 .* is no whole number"),
        ([("1", "cat")], 1, r"category 0 \(from 0\) .* has no id of its own, or no name"),
        ([(1, "cat"), (1, "dog")], 1, r"category 1 \(from 0\) .* no id of its own"),
        ([(1, "")], 1, "no name"),
        ([(1, "\ud800")], 1, "no name"),
    ],
)
def test_classes_without_names_are_refused(tmp_path, categories, of, message):
    path = tmp_path / "a.json"
    write_coco(path, IMAGES, [(1, WHOLE)], categories, of=[of])
    with pytest.raises(ValueError, match=message):
        read_annotations(path, tmp_path, classes=True)
    assert read_annotations(path, tmp_path).categories == {1: "fg"}  # where it does not matter


def test_an_id_twice(tmp_path):
    image = {"id": 1, "file_name": "1.png", "height": 4, "width": 6}
    write_coco(tmp_path / "a.json", [image, image], [])
    with pytest.raises(ValueError, match=r"image 1 \(from 0\) .*id 1 is that of another"):
        read_annotations(tmp_path / "a.json", tmp_path)


def test_an_export_says_where_its_images_lie(tmp_path):
    file = tmp_path / "pseudo.json"
    write_coco(file, [], [])
    with pytest.raises(ValueError, match="--image-root"):
        find_annotations(file)
    assert find_annotations(file, tmp_path) == (file, tmp_path)
    (tmp_path / "photos").mkdir()
    manifest = tmp_path / "pseudo.manifest.json"
    manifest.write_text(json.dumps({"image_root": str(tmp_path / "photos")}))
    assert find_annotations(file) == (file, tmp_path / "photos")
    manifest.write_text(json.dumps({"image_root": str(tmp_path / "gone")}))
    with pytest.raises(ValueError, match="gone is no folder"):
        find_annotations(file)
    with pytest.raises(FileNotFoundError, match=r"other\.json does not exist"):
        find_annotations(tmp_path / "other.json", tmp_path)


def test_the_folder_of_an_export(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither annotations/train\.json nor"):
        find_annotations(tmp_path)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images").mkdir()
    for name in ("instances", "train"):  # of both, train.json is what one trains on
        write_coco(tmp_path / "annotations" / f"{name}.json", [], [])
        expected = tmp_path / "annotations" / f"{name}.json", tmp_path / "images"
        assert find_annotations(tmp_path) == expected


@pytest.fixture
def exported(fo, photographs, tmp_path):
    """The folder of an export of photographs with random masks, and those masks by image."""
    from promerge_fo.dataset.exchange.export import export_pseudo_labels
    from promerge_fo.dataset.labels import masks_of

    dataset = fo.Dataset()
    rng = np.random.default_rng(0)
    for path in photographs:
        boxes = rng.uniform(0.0, 0.4, (3, 2))
        labels = [
            fo.Detection(label="fg", bounding_box=[*b, 0.5, 0.45], mask=rng.random((40, 50)) < 0.5)
            for b in boxes
        ]
        dataset.add_sample(fo.Sample(filepath=path, masks=fo.Detections(detections=labels)))
    export_pseudo_labels(dataset, "masks", tmp_path / "out", min_area=0, images="link")
    dataset.compute_metadata(progress=False)
    sizes = zip(dataset.values("metadata.height"), dataset.values("metadata.width"), strict=True)
    masks = {s.filename: masks_of(s.masks, size) for s, size in zip(dataset, sizes, strict=True)}
    yield tmp_path / "out", masks
    dataset.delete()


def test_an_export_is_read_bit_by_bit(exported):
    folder, masks = exported
    file, root = find_annotations(folder)
    read = read_annotations(file, root)
    assert len(read) == len(masks) == 4
    for k in range(4):
        name = read.path(k).rpartition("/")[2]
        assert read.path(k) == str(root / name)
        assert (read.masks(k) == masks[name]).all()


def test_detectron2_reads_the_same_masks(detectron2, exported):
    """Its own loader and mapper, on an export: the same images, sizes and masks."""
    from detectron2.data import DatasetMapper
    from detectron2.data.datasets import load_coco_json

    folder, masks = exported
    file, root = find_annotations(folder)
    ours = read_annotations(file, root)
    theirs = load_coco_json(str(file), str(root))
    mapper = DatasetMapper(
        is_train=True,
        augmentations=[],
        image_format="RGB",
        use_instance_mask=True,
        instance_mask_format="bitmask",
    )
    assert len(theirs) == len(ours) == 4
    for k, record in enumerate(theirs):
        mapped = mapper(record)
        theirs_masks = mapped["instances"].gt_masks.tensor.numpy()
        assert record["file_name"] == ours.path(k)
        assert (theirs_masks == ours.masks(k)).all()
        assert (theirs_masks == masks[ours.path(k).rpartition("/")[2]]).all()
        assert mapped["image"].shape[1:] == tuple(ours.sizes[k])
