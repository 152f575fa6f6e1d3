"""The paper's benchmarks, from made-up samples in the very formats of their owners."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from promerge_fo import dataset as pfo

SIZE = (30, 40)
POLYGON = [[5, 5, 20, 5, 20, 15, 5, 15]]


def mask(y0, x0, y1, x1):
    made = np.zeros(SIZE, dtype=np.uint8)
    made[y0:y1, x0:x1] = 1
    return made


def rle(array, compressed=True):
    if compressed:
        encoded = coco_mask.encode(np.asfortranarray(array))
        return {"size": list(SIZE), "counts": encoded["counts"].decode()}
    flat = array.ravel(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [flat[-1] ^ 1]])))
    return {"size": list(SIZE), "counts": np.diff(np.concatenate([[0], edges])).tolist()}


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE[::-1]).save(path)


def record(number, name, **more):
    return {"id": number, "file_name": name, "height": SIZE[0], "width": SIZE[1], **more}


def annotation(number, image_id, **more):
    box = {"bbox": [5.0, 5.0, 15.0, 10.0], "area": 150}
    return {"id": number, "image_id": image_id, "category_id": 1, "iscrowd": 0, **box, **more}


def write(path, images, annotations):
    path.parent.mkdir(parents=True, exist_ok=True)
    categories = [{"id": 1, "name": "fg"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(content))


def coco(root, file, folder, count=3):
    """Polygons, RLE of either kind, a crowd, and an image without any object."""
    names = [f"{number:012d}.jpg" for number in (7, 3, 5)[:count]]
    for name in names:
        image(root / folder / name)
    write(
        root / file,
        [record(int(name[:-4]), name) for name in names],
        [
            annotation(1, 7, segmentation=POLYGON),
            annotation(2, 7, segmentation=rle(mask(0, 0, 30, 40), compressed=False), iscrowd=1),
            annotation(3, 3, segmentation=rle(mask(1, 2, 9, 20))),
        ],
    )


def coco2017(root):
    coco(root, "annotations/coco_cls_agnostic_instances_val2017.json", "val2017")


def coco20k(root):
    coco(root, "annotations/coco20k_trainval_gt.json", "train2014")


def lvis(root):
    """Images are named by address, and lie in two folders."""
    image(root / "val2017" / "000000000007.jpg")
    image(root / "train2017" / "000000000003.jpg")
    images = [record(7, ""), record(3, "")]
    for entry, place in zip(images, ("val2017", "train2017"), strict=True):
        del entry["file_name"]
        entry["coco_url"] = f"http://images.cocodataset.org/{place}/{entry['id']:012d}.jpg"
    annotations = [annotation(1, 7, segmentation=POLYGON), annotation(3, 3, segmentation=POLYGON)]
    write(root / "lvis_v1_val.json", images, annotations)


def kitti(root):
    """The owner's layout: boxes in text files, other folders with images of the same names."""
    for folder in ("training/image_2", "training/image_3", "testing/image_2"):
        image(root / folder / "000000.png")
    labels = root / "training" / "label_2"
    labels.mkdir()
    (labels / "000000.txt").write_text(
        "Car 0.00 0 1.85 5.00 5.50 20.00 15.00 1.67 1.87 3.69 -16.53 2.39 58.49 1.57\n"
        "DontCare -1 -1 -10 1.00 1.00 9.00 9.00 -1 -1 -1 -1000 -1000 -1000 -10\n"
    )


def objects365(root):
    """Boxes alone; file names with folders of their own."""
    name = "images/v2/patch16/objects365_v2_00908726.jpg"
    image(root / "val" / "patch16" / "objects365_v2_00908726.jpg")
    write(root / "objects365_16-40.json", [record(908726, name)], [annotation(9, 908726)])


def sa1b(root):
    """One JSON an image, in folders."""
    for number in (223750, 223751):
        image(root / "sa_000020" / f"sa_{number}.jpg")
        masks = [{"id": 5, "bbox": [2, 1, 18, 8], "segmentation": rle(mask(1, 2, 9, 20))}]
        file = root / "sa_000020" / f"sa_{number}.json"
        about = {"image_id": number, "width": SIZE[1], "height": SIZE[0]}
        about["file_name"] = f"sa_{number}.jpg"
        file.write_text(json.dumps({"image": about, "annotations": masks}))


MAKERS = {
    "coco2017": coco2017, "coco20k": coco20k, "lvis": lvis, "kitti": kitti,
    "objects365": objects365, "sa1b": sa1b,
}  # fmt: skip


@pytest.fixture
def load(fo, tmp_path):
    """Load a benchmark's sample; datasets are deleted afterwards."""
    before = set(fo.list_datasets())

    def made(name, make=True, **options):
        if make:
            MAKERS[name](tmp_path / name)
        return pfo.load_benchmark(name, tmp_path / name, **options)

    yield made
    for name in set(fo.list_datasets()) - before:
        fo.delete_dataset(name)


@pytest.mark.parametrize("name", MAKERS)
def test_every_benchmark_loads_runs_and_is_evaluated(load, name, model):
    dataset = load(name)
    ids = dataset.values("coco_id")
    assert ids == sorted(ids) and len(ids) == len({*ids}) > 0
    assert {(m.height, m.width) for m in dataset.values("metadata")} == {SIZE}
    assert dataset.persistent and dataset.name == name
    assert set(dataset.distinct("ground_truth.detections.label")) == {"fg"}
    dataset.apply_model(model, label_field="promerge", batch_size=2, num_workers=0)
    assert "failed" not in dataset.count_values("promerge.status")
    results = pfo.evaluate_instances(dataset, "promerge", eval_key="promerge")
    assert "bbox" in results.coco_metrics
    perfect = pfo.evaluate_instances(dataset, "ground_truth")
    kinds = ("bbox",) if name in ("kitti", "objects365") else ("segm", "bbox")
    assert {kind: round(f["AP"], 6) for kind, f in perfect.coco_metrics.items()} == dict.fromkeys(
        kinds, 100
    )


def test_masks_are_those_of_pycocotools(load):
    dataset = load("coco2017")
    (small,), (), (polygon, crowd) = (pfo.masks_of(sample.ground_truth, SIZE) for sample in dataset)
    np.testing.assert_array_equal(small, mask(1, 2, 9, 20))
    expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(POLYGON, *SIZE)))
    np.testing.assert_array_equal(polygon, expected)
    assert crowd.all()
    assert dataset.values("ground_truth.detections.iscrowd") == [[False], [], [False, True]]
    assert dataset.values("ground_truth.detections.annotation_id") == [[3], [], [1, 2]]


def test_boxes_alone_stay_boxes(load):
    (label,) = load("objects365").first().ground_truth.detections
    assert label.mask is None
    assert label.bounding_box == pytest.approx([5 / 40, 5 / 30, 15 / 40, 10 / 30])
    car, ignored = load("kitti").first().ground_truth.detections
    assert car.bounding_box == pytest.approx([5 / 40, 5.5 / 30, 15 / 40, 9.5 / 30])
    assert (car.iscrowd, ignored.iscrowd) == (False, True)


def test_the_class_agnostic_file_is_preferred(load, tmp_path):
    coco2017(tmp_path / "coco2017")
    write(tmp_path / "coco2017" / "annotations" / "instances_val2017.json", [], [])
    assert len(load("coco2017", make=False)) == 3


def test_a_limit_takes_the_first_images(load):
    dataset = load("coco2017", limit=2)
    assert dataset.name == "coco2017-2"
    assert dataset.values("coco_id") == [3, 5]


def test_an_interrupted_load_goes_on_where_it_stopped(fo, load, monkeypatch):
    from promerge_fo.dataset.evaluation import benchmark_sets as protocols

    monkeypatch.setattr(protocols, "_BATCH", 1)
    sample, made = protocols._Image.sample, []

    def interrupted(self):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(self.number)
        return sample(self)

    monkeypatch.setattr(protocols._Image, "sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load("coco2017")
    first = fo.load_dataset("coco2017").values("id")
    assert len(first) == 2
    monkeypatch.setattr(protocols._Image, "sample", sample)
    dataset = load("coco2017", make=False)
    assert dataset.values("coco_id") == [3, 5, 7]
    assert dataset.values("id")[:2] == first


def test_a_complete_load_is_only_opened(load, tmp_path):
    first = load("coco2017").values("id")
    shutil.rmtree(tmp_path / "coco2017" / "annotations")
    assert load("coco2017", make=False).values("id") == first


def test_what_is_missing_is_said(fo, load, tmp_path):
    with pytest.raises(ValueError, match="the benchmarks are: 'coco2017', 'coco20k', 'lvis'"):
        load("imagenet", make=False)
    with pytest.raises(FileNotFoundError, match=r"is no folder; give the one that KITTI lies in"):
        load("kitti", make=False)
    (tmp_path / "kitti").mkdir()
    with pytest.raises(FileNotFoundError, match=r"trainval_cls_agnostic.json.*label_2.*cvlibs"):
        load("kitti", make=False)
    coco2017(tmp_path / "coco2017")
    (tmp_path / "coco2017" / "val2017" / "000000000005.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 3 images of COCO val2017.*00005.jpg.*coco"):
        load("coco2017", make=False)
    next((tmp_path / "coco2017" / "annotations").iterdir()).write_text('{"images": [')
    with pytest.raises(ValueError, match="is no JSON, or not all of it"):
        load("coco2017", make=False)
    assert not fo.dataset_exists("coco2017")


def test_annotations_of_images_as_they_are_stored_are_left_out(load, tmp_path, caplog):
    """A file that says that it is to be turned, and annotations of tools that do not turn it."""
    coco2017(tmp_path / "coco2017")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = tmp_path / "coco2017" / "val2017" / "000000000007.jpg"
    Image.new("RGB", SIZE[::-1]).save(turned, exif=exif)
    assert load("coco2017", make=False).values("coco_id") == [3, 5]
    assert (
        f"1 are of another size than they are shown, such as {turned} (30 x 40, not 40 x 30)"
        in (caplog.text)
    )
    for name in ("000000000003.jpg", "000000000005.jpg"):
        Image.new("RGB", SIZE[::-1]).save(turned.with_name(name), exif=exif)
    with pytest.raises(ValueError, match="3 are of another size .* annotate them as"):
        load("coco2017", make=False, dataset_name="all turned")


def test_a_dataset_that_an_interruption_left_empty_is_filled(fo, load, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(fo.Dataset, "add_sample_field", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load("coco2017", dataset_name="interrupted")
    dataset = load("coco2017", dataset_name="interrupted")
    assert len(dataset) > 0
    assert load("coco2017", dataset_name="interrupted") is dataset
    dataset.delete()


def test_another_dataset_of_the_name_is_left_alone(fo, load, dataset):
    with pytest.raises(ValueError, match="already, and it holds something else"):
        load("coco2017", dataset_name=dataset.name)
    assert len(dataset) == 0
