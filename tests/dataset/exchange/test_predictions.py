"""Predictions as labels: what is stored, what is matched and left out, nothing by halves."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from pathlib import Path

import bson
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from promerge_fo import dataset as pfo
from promerge_fo.dataset.exchange.entries import Images
from promerge_fo.dataset.exchange.image_index import ImageIndex
from tests.dataset.exchange.test_predictions_fuzz import take_in


def results_of(samples, path: Path) -> list[dict]:
    """The annotations of an export, as a detector's results: without what these do not have."""
    pfo.export_pseudo_labels(samples, "promerge", path, min_area=0)
    wanted = ("image_id", "category_id", "bbox", "score", "segmentation")
    return [
        {name: entry[name] for name in wanted}
        for entry in json.loads(path.read_text())["annotations"]
    ]


@pytest.fixture
def results(scenes, tmp_path) -> list[dict]:
    return results_of(scenes, tmp_path / "export.json")


@pytest.fixture
def store(dataset, tmp_path):
    """Import some entries to the field "found"."""

    def run(entries, samples=dataset, **options):
        path = tmp_path / "coco_instances_results.json"
        path.write_text(entries if isinstance(entries, str) else json.dumps(entries))
        return pfo.import_predictions(samples, path, "found", **{"overwrite": True, **options})

    return run


def plain(sample, field: str) -> list[tuple]:
    """The labels of a sample, as far as they can be compared."""
    return [
        (d.label, d.confidence, d.bounding_box, d.area, d.touches_border,
         None if d.mask is None else d.mask.tobytes(), None if d.mask is None else d.mask.dtype)
        for d in sample[field].detections
    ]  # fmt: skip


def everything(dataset) -> dict:
    """All that a dataset holds, as the database has it."""
    dataset.reload()
    return {
        "samples": [
            {k: v for k, v in d.items() if k != "last_modified_at"}
            for d in dataset._sample_collection.find({})
        ],
        "schema": sorted(dataset.get_field_schema(flat=True)),
        "runs": sorted(dataset.list_runs()),
        "sidebar": [
            path for group in dataset.app_config.sidebar_groups or [] for path in group.paths
        ],
    }


def test_labels_come_back_as_they_were(scenes, results, store):
    report = store(results)
    scenes.reload()
    total = scenes.count("promerge.detections")
    assert (report.entries, report.labels, report.images) == (total, total, 9)
    assert (report.skipped, report.unmatched, report.problems) == ({}, 0, ())
    for sample in scenes:
        assert plain(sample, "found") == plain(sample, "promerge")
        assert sample.found.run == report.run and sample.found.status == "ok"
    figures = pfo.evaluate_instances(scenes, "found", gt_field="promerge").metrics()
    assert figures["segm"]["AP"] == figures["bbox"]["AP"] == 100
    assert str(report) == f"{total} labels on 9 images in the field 'found', of {total} predictions"


def test_the_database_holds_labels_as_fiftyone_writes_them(fo, scenes, results, store):
    box = {"image_id": 1, "bbox": [5, 10, 20, 10], "score": 0.5}
    store([*results, box])
    labels = scenes.first().found.detections
    document = scenes._sample_collection.find_one({})
    ours = document["found"]["detections"]
    theirs = [bson.decode(bson.encode(label.copy().to_dict())) for label in labels]
    for mine, other in zip(ours, theirs, strict=True):
        assert {k: v for k, v in mine.items() if k != "_id"} == {
            k: v for k, v in other.items() if k != "_id"
        }
    segmented = document["promerge"]["detections"][0]
    assert set(segmented) == set(ours[0])
    assert len({d["_id"] for d in ours}) == len(ours)


def test_an_export_itself_is_read(scenes, store, tmp_path):
    pfo.export_pseudo_labels(scenes, "promerge", tmp_path / "export.json", min_area=0)
    report = store((tmp_path / "export.json").read_text())
    assert report.labels == scenes.count("promerge.detections") == report.entries
    for sample in scenes:
        assert plain(sample, "found") == plain(sample, "promerge")


def test_the_record_of_an_import(scenes, results, store, tmp_path):
    report = store(results, min_score=0.5, top_k=2)
    (key,) = pfo.list_runs(scenes)
    record = pfo.load_run(scenes, key)
    assert key == f"found_{report.run[:8]}"
    assert json.loads(json.dumps(record)) == record
    content = (tmp_path / "coco_instances_results.json").read_bytes()
    wanted = {
        "run_hash": report.run, "label_field": "found", "method": "import",
        "file": "coco_instances_results.json", "sha256": hashlib.sha256(content).hexdigest(),
        "annotations_sha256": None, "images": report.images, "instances": report.labels,
        "settings": {"min_score": 0.5, "top_k": 2, "class_names": None}, "interrupted": False,
    }  # fmt: skip
    assert {name: record[name] for name in wanted} == wanted
    assert record["counts"] == {"ok": report.images}
    # the same again is the same run; other settings or another file are not
    assert store(results, min_score=0.5, top_k=2).run == report.run
    assert store(results, min_score=0.5).run != report.run
    assert store(results[1:], min_score=0.5, top_k=2).run != report.run
    # whatever the file is called
    content = tmp_path / "coco_instances_results.json"
    store(results, min_score=0.5, top_k=2)
    renamed = content.rename(tmp_path / "renamed.json")
    again = pfo.import_predictions(scenes, renamed, "found", min_score=0.5, top_k=2, overwrite=True)
    assert again.run == report.run
    assert len(pfo.list_runs(scenes)) == 3
    assert pfo.delete_run(scenes, pfo.list_runs(scenes)[-1]) > 0
    assert not scenes.has_field("found")


def test_score_and_number(scenes, results, store):
    scores = scenes.values("promerge.detections.confidence")
    report = store(results, min_score=0.8, top_k=1)
    kept = [[s for s in row if s >= 0.8][:1] for row in scores]
    found = scenes.values("found.detections.confidence")
    assert found == [row or [] for row in kept]
    assert report.below_min_score == sum(s < 0.8 for row in scores for s in row) > 0
    assert report.beyond_top_k == sum(s >= 0.8 for row in scores for s in row) - report.labels > 0
    assert report.entries == report.labels + report.below_min_score + report.beyond_top_k
    assert set(scenes.values("found.status")) == {"ok", None}
    assert scenes.count("found") == 9


def test_the_best_are_kept_in_file_order(scenes, results, store):
    entry = results[0]
    given = [0.5, 0.9, 0.5, 0.1, 0.9, 0.7]
    entries = [{**entry, "score": score} for score in given]
    for count, wanted in (
        (1, [0.9]), (2, [0.9, 0.9]), (3, [0.9, 0.9, 0.7]), (4, [0.5, 0.9, 0.9, 0.7]), (9, given),
    ):  # fmt: skip
        report = store(entries, top_k=count)
        assert (
            scenes.first().found.detections
            and [d.confidence for d in scenes.first().found.detections] == wanted
        )
        assert report.beyond_top_k == 6 - len(wanted)


def test_runs_as_numbers_polygons_and_boxes_alone(scenes, store):
    sample = scenes.first()
    height, width = sample.metadata.height, sample.metadata.width
    box = np.zeros((height, width), dtype=bool)
    box[10:20, 5:25] = True
    rle = {"size": [height, width], "counts": [5 * height + 10]}
    for _ in range(19):
        rle["counts"] += [10, height - 10]
    rle["counts"] += [10, height * width - sum(rle["counts"]) - 10]
    base = {"image_id": 1, "category_id": 3, "score": 0.5}
    entries = [
        {**base, "segmentation": rle},
        {**base, "segmentation": [[5, 10, 25, 10, 25, 20, 5, 20]], "bbox": [0, 0, 1, 1]},
        {**base, "bbox": [5, 10, 20, 10]},
        {**base, "bbox": [5, 10, 1000, 10]},
        {"image_id": 1, "bbox": [5, 10, 20, 10]},
        {**base, "bbox": [5, 10, 20, 10], "segmentation": []},
        {**base, "bbox": [0, 0, 0, 0], "segmentation": rle},
    ]
    report = store(entries)
    labels = scenes.first().found.detections
    assert report.labels == len(labels) == 7
    for label in (*labels[:2], labels[6]):
        np.testing.assert_array_equal(pfo.mask_of(label, (height, width)), box)
        assert label.area == 200 / (height * width) and not label.touches_border
    assert [label.mask for label in labels[2:6]] == [None] * 4
    for label in (*labels[:3], *labels[4:]):
        assert label.bounding_box == [5 / width, 10 / height, 20 / width, 10 / height]
    assert labels[3].bounding_box == [5 / width, 10 / height, (width - 5) / width, 10 / height]
    assert labels[3].touches_border and not labels[2].touches_border
    assert labels[2].area == pytest.approx(200 / (height * width))
    assert [label.confidence for label in labels] == [0.5] * 4 + [None, 0.5, 0.5]


def test_images_by_coco_id(scenes, results, store):
    numbers = [139, 285, 632, 724, 776, 785, 802, 872, 885]
    scenes.set_values("coco_id", numbers)
    report = store([{**entry, "image_id": numbers[entry["image_id"] - 1]} for entry in results])
    assert report.unmatched == 0
    assert [plain(s, "found") for s in scenes] == [plain(s, "promerge") for s in scenes]
    report = store([*results, {**results[0], "image_id": 139}])
    assert (report.labels, report.unmatched) == (1, len(results))
    assert report.unmatched_ids == tuple(range(1, 10))
    assert f"{len(results)} of images that are not here, such as 1, 2, 3, 4, 5" in str(report)


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8, None], "1 of 9 images have none"),
        ([1, 2, 3, 4, 5, 6, 7, 8, 8], "1 ids stand on several images, such as 8"),
    ],
)
def test_ids_that_do_not_tell_images_apart_are_refused(scenes, results, store, ids, words):
    scenes.set_values("coco_id", ids)
    before = everything(scenes)
    with pytest.raises(ValueError, match=words):
        store(results)
    assert everything(scenes) == before


def test_images_by_the_names_of_an_annotation_file(scenes, results, store, tmp_path):
    paths = [str(Path(p).relative_to(tmp_path / "photos")) for p in scenes.values("filepath")]
    places = {number: 1000 - number for number in range(1, 10)}
    entries = [{**entry, "image_id": places[entry["image_id"]]} for entry in results]
    wanted = [plain(s, "promerge") for s in scenes]
    annotations = tmp_path / "annotations.json"

    def names(change) -> None:
        images = [
            {"id": places[number], "file_name": change(path)}
            for number, path in enumerate(paths, start=1)
        ]
        annotations.write_text(json.dumps({"images": images, "annotations": [{"id": 1}]}))

    # the same names in several folders: the folders tell them apart
    for change in (str, lambda p: f"/elsewhere/images/{p}", lambda p: p.replace("/", "\\")):
        names(change)
        report = store(entries, annotations=annotations)
        assert report.unmatched == 0
        assert [plain(s, "found") for s in scenes] == wanted
    # without folders, what lies in several is not found
    names(lambda p: Path(p).name)
    with pytest.raises(ValueError, match="nothing of .* can be imported"):
        store(entries, annotations=annotations)
    with pytest.raises(ValueError, match="nothing of .* can be imported"):
        store(entries, scenes.limit(3), annotations=annotations)  # three ids for each of them


def test_addresses_name_images_as_well(scenes, results, store, tmp_path):
    annotations = tmp_path / "annotations.json"
    first = {"id": 1, "coco_url": "http://images.example.org/photos/a/0.png"}
    annotations.write_text(json.dumps({"images": [first]}))
    report = store(results, annotations=annotations)
    assert report.images == 1 and plain(scenes.first(), "found") == plain(
        scenes.first(), "promerge"
    )


def test_a_name_is_given_to_the_image_that_fits_best(scenes, results, store, tmp_path):
    annotations = tmp_path / "annotations.json"
    images = [{"id": 1, "file_name": "b/c/0.png"}, {"id": 2, "file_name": "x/0.png"}]
    annotations.write_text(json.dumps({"images": images}))
    view = scenes.skip(6).limit(1)  # b/c/0.png, of the size of a/0.png
    entries = [{**results[0], "image_id": 2}, {**results[0], "image_id": 1}]
    report = store(entries, view, annotations=annotations)
    assert (report.labels, report.unmatched_ids) == (1, (2,))


def test_paths_are_compared_from_their_ends():
    """Against a look at every path, on paths that share many parts."""
    rng = np.random.default_rng(3)
    names = ["a", "b", "c"]

    def path() -> str:
        return "/".join(rng.choice(names, int(rng.integers(1, 5))))

    for _ in range(300):
        paths = [f"/{path()}" for _ in range(int(rng.integers(1, 12)))]
        index = ImageIndex(NoIds(len(paths)), paths, None)
        wanted = path()
        parts = wanted.split("/")[::-1]
        shared = []
        for other in paths:
            ends = zip(parts, [*other.split("/")[:0:-1], "/"], strict=False)
            shared.append(next((k for k, (x, y) in enumerate(ends) if x != y), len(parts)))
            shared[-1] = min(shared[-1], len(other.split("/")) - 1)
        best = [k for k, n in enumerate(shared) if n == max(shared)]
        expected = best[0] if len(best) == 1 and max(shared) else None
        by_path = index._by_path(wanted)[0]
        assert by_path == expected, (wanted, paths)


class NoIds:
    """Samples without the field coco_id."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def get_field_schema(self) -> dict[str, object]:
        return {}


def test_a_hundred_thousand_files_of_one_name():
    paths = [f"/scenes/{number}/rgb.png" for number in range(100_000)]
    index = ImageIndex(NoIds(len(paths)), paths, None)
    started = time.perf_counter()
    found = [index.find(f"{number}/rgb.png") for number in range(0, 100_000, 10)]
    assert found == list(range(0, 100_000, 10))
    assert index.find("rgb.png") is None
    assert time.perf_counter() - started < 10


def test_frames_of_videos(fo, dataset, photographs, store):
    sample = fo.Sample(filepath="clip.mp4")
    for number, path in enumerate(photographs, start=1):
        sample.frames[number] = fo.Frame(filepath=path)
    dataset.add_sample(sample)
    store([{"image_id": 2, "score": 0.5, "bbox": [1, 2, 3, 4]}], dataset.to_frames())
    labels = [frame.found.detections for frame in dataset.first().frames.values()]
    assert list(map(len, labels)) == [0, 1, 0, 0]
    (key,) = pfo.list_runs(dataset)
    assert pfo.load_run(dataset, key)["instances"] == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]}, "of the id 1;"),
        ({"images": [{"id": "1", "file_name": "a"}]}, "image 0 has no whole number as id"),
        ({"images": [{"id": 1}]}, "no file_name"),
        ({"images": [3]}, "image 0 has no whole number"),
        ({"images": []}, "has no list of images"),
        ([], "has no list of images"),
        ("{", "is no JSON"),
    ],
)
def test_annotation_files_that_name_no_images_are_refused(
    scenes, results, store, tmp_path, content, words
):
    annotations = tmp_path / "annotations.json"
    annotations.write_text(content if isinstance(content, str) else json.dumps(content))
    before = everything(scenes)
    with pytest.raises(ValueError, match=words):
        store(results, annotations=annotations)
    assert everything(scenes) == before


def test_images_by_path_name_and_stem(fo, dataset, photographs, store):
    for path in photographs:
        dataset.add_sample(fo.Sample(filepath=path))
    first, second, third, fourth = map(Path, photographs)
    box = {"category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.5}
    ids = [str(first), f"images/{second.name}", third.stem, fourth.name, "", ".", "\ud800", "x"]
    report = store([{**box, "image_id": image_id} for image_id in ids], dataset)
    assert dataset.values("found.detections.confidence") == [[0.5]] * 4
    assert report.unmatched_ids == ("", ".", "\ud800", "x")
    assert "'\\ud800'" in str(report)


def test_classes(scenes, results, store, tmp_path):
    entries = [{**e, "category_id": k % 3} for k, e in enumerate(results)]
    labels = "found.detections.label"
    store(entries)
    assert scenes.distinct(labels) == ["fg"]
    report = store(entries, class_names={1: "cat", 2: "dog"})
    assert scenes.count_values(labels) == {
        "cat": sum(e["category_id"] == 1 for e in entries),
        "dog": sum(e["category_id"] == 2 for e in entries),
    }
    assert report.skipped == {"category_id": sum(e["category_id"] == 0 for e in entries)}
    assert report.problems[0] == "entry 0: its category_id 0 has no name"
    annotations = tmp_path / "annotations.json"
    pfo.export_pseudo_labels(scenes, "promerge", annotations)
    content = json.loads(annotations.read_text())
    content["categories"] = [{"id": 0, "name": "bird"}, {"id": "1"}, 7, {"id": 2, "name": "\ud800"}]
    annotations.write_text(json.dumps(content))
    report = store(entries, annotations=annotations, class_names="annotations")
    assert scenes.distinct(labels) == ["bird"]
    with pytest.raises(ValueError, match="there is no annotation file with categories"):
        store(entries, class_names="annotations")
    with pytest.raises(ValueError, match="class_names is 'names', but must be"):
        store(entries, class_names="names")


def test_predictions_bring_the_names_of_their_classes(scenes, results, store):
    names = ["cat", "dög", "", None, 7, "\ud800", "x" * 5000]
    entries = [{**e, "category_name": names[k % 7]} for k, e in enumerate(results)]
    report = store(entries)
    counts = Counter(names[k % 7] for k in range(len(results)))
    assert scenes.count_values("found.detections.label") == {
        "cat": counts["cat"], "dög": counts["dög"], "fg": counts[""] + counts[None],
    }  # fmt: skip
    assert report.skipped == {"category_name": sum(counts[name] for name in names[4:])}
    assert report.problems[0] == "entry 4: its category_name is no short text"
    store([{**e, "category_id": 2} for e in entries], class_names={2: "bird"})  # what is given wins
    assert scenes.distinct("found.detections.label") == ["bird"]


def test_malformed_entries_are_named_and_the_others_stored(scenes, results, store):
    good = results[0]
    rle = good["segmentation"]
    bad = {
        0: (17, "it is no object"),
        2: ({**good, "image_id": 1.0}, "its image_id is neither a whole number nor a short text"),
        3: ({**good, "image_id": True}, "its image_id is neither"),
        4: ({**good, "image_id": None}, "its image_id is neither"),
        5: ({**good, "score": "0.9"}, "its score is '0.9', but must lie in [0, 1]"),
        6: ({**good, "score": float("nan")}, "its score is nan"),
        7: ({**good, "score": float("inf")}, "its score is inf"),
        8: ({**good, "score": -0.1}, "its score is -0.1"),
        9: ({**good, "category_id": "1"}, "its category_id is no whole number"),
        10: ({**good, "bbox": [0, 0, -1, 3]}, "its bbox has the width -1 and the height 3"),
        11: (
            {**good, "segmentation": {**rle, "size": [60, 40]}},
            "is of an image of 40 x 60 pixels",
        ),
        12: ({**good, "segmentation": {**rle, "counts": rle["counts"][:-3]}}, "its counts"),
        13: ({"image_id": 1, "score": 0.5}, "it has neither segmentation nor bbox"),
        14: ({**good, "id": [1]}, "its id is neither a whole number nor a short text"),
        16: ({**good, "id": 5}, "an entry before it has the same id, 5"),
        17: ({**good, "image_id": "x" * 5000}, "its image_id is neither"),
        18: ({**good, "id": "x" * 5000}, "its id is neither"),
        19: ({**good, "id": "five"}, "an entry before it has the same id, 'five'"),
        20: ({**good, "id": 10**30}, "an entry before it has the same id, 1000000"),
    }
    ids = {1: 5, 15: "five", 21: -1, 22: -2, 23: 10**30}
    order = [*range(16), 21, 22, 23, *range(16, 21)]
    entries = [bad[k][0] if k in bad else {**good, "id": ids[k]} for k in order]
    report = store(entries)
    assert report.labels == len(ids) and report.entries == 24
    assert scenes.first().found.detections[0].confidence == good["score"]
    assert sum(report.skipped.values()) == len(report.problems) == len(bad)
    for line, (k, (_, words)) in zip(report.problems, bad.items(), strict=True):
        assert line.startswith(f"entry {order.index(k)}: ") and words in line
    assert "19 malformed (" in str(report)


def test_values_of_every_depth(scenes, results, store, tmp_path):
    good, stored = json.dumps(results[0]), range(1, 1200, 37)
    path, images = tmp_path / "deep.json", Images(scenes, None)
    for depth in (*stored, *range(850, 1000)):
        deep = "[" * depth + "]" * depth
        entry = f'{{"image_id": 1, "score": {deep}, "bbox": [0, 0, 1, 1], "other": {deep}}}'
        path.write_text(f"[{good}, {entry}]")
        try:
            report = (
                store(path.read_text()) if depth in stored else take_in(path, images, scenes)[0]
            )
        except ValueError as error:
            assert depth > 500 and "nested too deep" in str(error)
        else:
            assert report.labels == 1 and sum(report.skipped.values()) == 1


def test_the_list_of_problems_is_bounded(scenes, results, store):
    report = store([*results, *[{}] * 5000, *[{**results[0], "image_id": -k} for k in range(5000)]])
    assert report.skipped == {"image_id": 5000} and len(report.problems) == 100
    assert report.unmatched == 5000 and len(report.unmatched_ids) == 100
    assert len(str(report).splitlines()) < 15


def test_images_that_cannot_be_read(fo, dataset, store, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    dataset.add_sample(fo.Sample(filepath=str(tmp_path / "broken.jpg")))
    with pytest.raises(ValueError, match="entry 0: its image cannot be read: .*broken.jpg is not"):
        store([{"image_id": 1, "bbox": [0, 0, 1, 1], "score": 1}], dataset)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ("", "neither a list nor an object"),
        ('[{"image_id": 1}', "it ends too soon"),
        ("[" * 10**6, "nested too deep"),
        ([{}], "entry 0: its image_id is neither a whole number nor a short text"),
        ([{"image_id": 77, "score": 1, "bbox": [0, 0, 1, 1]}], "of images that are not here"),
    ],
)
def test_files_of_which_nothing_fits_change_nothing(scenes, store, entries, words):
    scenes.clone_sample_field("promerge", "found")
    before = everything(scenes)
    with pytest.raises(ValueError, match=words):
        store(entries)
    assert everything(scenes) == before


def test_a_list_without_predictions_empties_the_field(scenes, store):
    scenes.clone_sample_field("promerge", "found")
    report = store([])
    assert (report.entries, report.labels) == (0, 0)
    assert scenes.count("found") == 9 and scenes.count("found.detections") == 0


def test_the_end_of_a_long_file_is_read_before_anything_is_written(scenes, results, store):
    before = everything(scenes)
    text = json.dumps(results * 200)
    with pytest.raises(ValueError, match=f"element {200 * len(results) - 1}, .*ends too soon"):
        store(text[:-10])
    assert everything(scenes) == before


def test_images_without_predictions_get_empty_detections(scenes, results, store):
    store([entry for entry in results if entry["image_id"] != 4])
    counts = [len(s.found.detections) for s in scenes]
    assert counts[3] == 0 and all(counts[:3]) and all(counts[4:])
    assert scenes.skip(3).first().found.status is None


def test_a_view_alone_is_filled(scenes, results, store):
    view = scenes.limit(3)
    report = store([entry for entry in results if entry["image_id"] <= 3], view)
    assert report.images == 3
    assert scenes.count("found") == 3


def test_labels_are_not_replaced_unasked(scenes, results, store):
    with pytest.raises(ValueError, match="'promerge' has labels on 9 images; give another field"):
        pfo.import_predictions(scenes, "nowhere.json", "promerge")
    store(results[:1])
    store(results)
    scenes.reload()
    assert scenes.count("found.detections") == len(results)
    assert [plain(s, "found") for s in scenes] == [plain(s, "promerge") for s in scenes]


class Break:
    """Raises where it is called for the nth time."""

    def __init__(self, function, n: int, error: type[BaseException]) -> None:
        self.function, self.n, self.error = function, n, error

    def __call__(self, *args, **kwargs):
        self.n -= 1
        if self.n == 0:
            raise self.error("broken")
        return self.function(*args, **kwargs)


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize(
    ("place", "n"), [("_write", 1), ("_write", 3), ("declare_field", 1), ("register", 1)]
)
def test_a_failure_while_writing_restores_the_field(
    scenes, results, store, monkeypatch, exists, error, place, n
):
    from promerge_fo.dataset.exchange import imports as predictions
    from promerge_fo.dataset.exchange import replace_field

    if exists:
        scenes.clone_sample_field("promerge", "found")
        labels = scenes.first().found
        labels.detections = []
        scenes.first().save()
        scenes.limit(1).clear_sample_field("found")
    before = everything(scenes)
    module = predictions if place == "register" else replace_field
    monkeypatch.setattr(replace_field, "_BATCH", 2)
    monkeypatch.setattr(module, place, Break(getattr(module, place), n, error))
    with pytest.raises(error, match="broken"):
        store(results[:5])
    after = everything(scenes)
    if exists:  # FiftyOne says None where a sample has no such field
        for sample in after["samples"]:
            sample.setdefault("found", None)
    assert after["samples"] == before["samples"]
    assert after["runs"] == before["runs"]
    assert set(before["schema"]) <= set(after["schema"])
    if not exists:
        assert after["schema"] == before["schema"]
        assert not [path for path in after["sidebar"] if path.startswith("found")]
    monkeypatch.undo()
    assert store(results).labels == len(results)


@pytest.mark.parametrize(
    ("field", "options", "words"),
    [
        ("found", {"min_score": 2}, r"min_score is 2, but must lie in \[0, 1\]"),
        ("found", {"top_k": 0}, "top_k is 0, but must be at least 1"),
        ("metadata", {}, "'metadata' holds"),
        ("_found", {}, "cannot start with '_'"),
        ("", {}, "cannot be empty"),
        ("promerge.found", {}, "would lie in another one; give a plain name"),
    ],
)
def test_arguments_that_cannot_be_are_refused(scenes, tmp_path, field, options, words):
    with pytest.raises(ValueError, match=words):
        pfo.import_predictions(scenes, tmp_path / "missing.json", field, **options)


def test_what_cannot_take_labels_is_refused(scenes, tmp_path):
    path = tmp_path / "missing.json"
    with pytest.raises(ValueError, match="patches of images"):
        pfo.import_predictions(scenes.to_patches("promerge"), path, "found")
    with pytest.raises(FileNotFoundError, match="missing.json"):
        pfo.import_predictions(scenes, path, "found")
    with pytest.raises(ValueError, match="no samples to import to; take another view"):
        pfo.import_predictions(scenes.limit(0), path, "found")


def test_labels_that_the_database_cannot_hold(scenes, results, store, monkeypatch):
    from promerge_fo.dataset.exchange import entries as prediction_intake

    monkeypatch.setattr(prediction_intake, "LARGEST", 1000)
    before = everything(scenes)
    with pytest.raises(ValueError, match="labels of one image take .* give top_k or min_score"):
        store(results)
    assert everything(scenes) == before


def test_masks_of_a_large_image(fo, dataset, store, tmp_path):
    height, width = 3000, 4000
    metadata = fo.ImageMetadata(width=width, height=height)
    dataset.add_sample(fo.Sample(filepath=str(tmp_path / "large.jpg"), metadata=metadata))
    mask = np.zeros((height, width), dtype=np.uint8, order="F")
    mask[10:2990, 20:3900] = 1
    mask[1000:1100] = 0
    rle = coco_mask.encode(mask)
    segmentation = {"size": rle["size"], "counts": rle["counts"].decode()}
    store([{"image_id": 1, "score": 0.5, "segmentation": segmentation}], dataset)
    (label,) = dataset.first().found.detections
    np.testing.assert_array_equal(pfo.mask_of(label, (height, width)), mask.astype(bool))
