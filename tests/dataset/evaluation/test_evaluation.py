"""COCO figures of fields: pycocotools' own, and a run as FiftyOne knows runs."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from promerge_fo import dataset as pfo
from promerge_fo.dataset.evaluation.by_class import class_mean
from promerge_fo.dataset.evaluation.coco_metrics import METRICS, ImageRecords, evaluate


def pycocotools_figures(truth: dict, found: list[dict], kind: str) -> dict[str, float]:
    """What a plain run of pycocotools gives for COCO's JSON, in the way that detectron2 does it."""
    with contextlib.redirect_stdout(io.StringIO()):
        table = COCO()
        table.dataset = json.loads(json.dumps(truth))
        table.createIndex()
        found = json.loads(json.dumps(found))
        if kind == "segm":
            for record in found:
                record.pop("bbox", None)
        predictions = table.loadRes(found) if found else COCO()
        if not found:
            predictions.dataset = {**table.dataset, "annotations": []}
            predictions.createIndex()
        evaluation = COCOeval(table, predictions, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = [-1 if value < 0 else 100 * value for value in evaluation.stats]
    return dict(zip(METRICS, stats, strict=True))


def exported(samples, field, path, **options) -> dict:
    pfo.export_pseudo_labels(samples, field, path, min_area=0, **options)
    return json.loads(path.read_text())


def compare(samples, results, tmp_path, kinds=("segm", "bbox"), pred="found", gt="truth"):
    """Hold an evaluation against pycocotools on the files of our exporter."""
    truth = exported(samples, gt, tmp_path / "truth.json")
    found = exported(samples, pred, tmp_path / "found.json")["annotations"]
    for record in found:
        record["score"] = 1.0 if record["score"] is None else record["score"]
    assert set(results.coco_metrics) == set(kinds)
    for kind in kinds:
        assert results.metrics()[kind] == pycocotools_figures(truth, found, kind)


class Scene:
    """Seeded samples with every odd case: see the comments."""

    def __init__(self, fo, seed: int, folder) -> None:
        self.fo, self.folder = fo, folder
        self.rng = np.random.default_rng(seed)
        rng = self.rng
        self.levels = rng.choice([2, 5, 1000])  # few levels: tied scores
        self.crowds = rng.random() < 0.5
        self.masks = rng.choice(["masks", "masks", "masks", "boxes"])
        self.many = rng.random() < 0.15  # more than 100 predictions of an image
        self.confidence = rng.random() < 0.9

    def samples(self, count: int) -> list:
        numbers = self.rng.permutation(1000)[:count]
        with_ids = self.rng.random() < 0.5
        samples = []
        for i in range(count):
            size = tuple(int(x) for x in self.rng.integers(20, 140, 2))
            sample = self.fo.Sample(
                filepath=f"/nowhere/{i}.jpg",
                metadata=self.fo.ImageMetadata(height=size[0], width=size[1]),
            )
            if with_ids:
                sample["coco_id"] = int(numbers[i])
            truth = [self.shape(size) for _ in range(self.rng.choice([0, 1, 3, 8]))]
            amount = 130 if self.many and i == 0 else self.rng.choice([0, 2, 10])
            found = [
                self.near(truth[self.rng.integers(len(truth))], size)
                if truth and self.rng.random() < 0.7
                else self.shape(size)
                for _ in range(amount)
            ]
            sample["truth"] = self.labels(truth, size, found=False)
            if self.rng.random() < 0.9 or found:
                sample["found"] = self.labels(found, size, found=True)
            samples.append(sample)
        return samples

    def shape(self, size):
        height, width = size
        y, x = np.mgrid[:height, :width]
        centre = self.rng.uniform(0, 1, 2) * size
        radii = self.rng.uniform(0.02, 0.6, 2) * size + 0.5
        mask = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < 1
        if self.rng.random() < 0.3:
            mask &= self.rng.random(size) < 0.8  # ragged
        return mask

    def near(self, mask, size):
        if self.rng.random() < 0.2:
            return mask
        return np.roll(mask, self.rng.integers(-3, 4, 2), axis=(0, 1))

    def labels(self, masks, size, found):
        labels = []
        for mask in masks:
            label = self.label(mask, size)
            if label is None:
                continue
            if found and self.confidence:
                label.confidence = float(self.rng.integers(self.levels) / self.levels)
            if not found and self.crowds and self.rng.random() < 0.25:
                label["iscrowd"] = True
            labels.append(label)
        return self.fo.Detections(detections=labels)

    def label(self, mask, size):
        height, width = size
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return None
        y0, y1, x0, x1 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        box = [x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height]
        name = str(self.rng.choice(["fg", "cat", "dog"]))  # of no consequence
        crop = mask[y0:y1, x0:x1]
        if self.masks == "boxes":
            return self.fo.Detection(label=name, bounding_box=box)
        kind = self.rng.choice(["bool", "disk", "edited", "empty"], p=[0.7, 0.1, 0.15, 0.05])
        if kind == "disk":
            path = self.folder / f"{self.rng.integers(2**60)}.png"
            Image.fromarray(crop.astype(np.uint8) * 255).save(path)
            return self.fo.Detection(label=name, bounding_box=box, mask_path=str(path))
        if kind == "edited":  # as the App's brush leaves it: another size, uint8, an uneven box
            crop = crop.repeat(2, 0).repeat(3, 1).astype(np.uint8) * 255
            box = [value + self.rng.uniform(-0.4, 0.4) / width for value in box]
        if kind == "empty":
            crop = np.zeros_like(crop)
        return self.fo.Detection(label=name, bounding_box=box, mask=crop)


@pytest.mark.parametrize("seed", range(40))
def test_figures_are_those_of_pycocotools_on_our_own_export(fo, dataset, tmp_path, seed):
    scene = Scene(fo, seed, tmp_path)
    dataset.add_samples(scene.samples(6))
    results = pfo.evaluate_instances(dataset, "found", "truth")
    has_masks = scene.masks == "masks" or dataset.count("truth.detections") == 0
    kinds = ("segm", "bbox") if has_masks else ("bbox",)
    compare(dataset, results, tmp_path, kinds)


@pytest.mark.parametrize("seed", range(0, 40, 4))
def test_figures_of_classes_are_those_of_pycocotools(fo, dataset, tmp_path, seed):
    scene = Scene(fo, seed, tmp_path)
    dataset.add_samples(scene.samples(6))
    results = pfo.evaluate_instances(dataset, "found", "truth", classwise=True)
    names = sorted(dataset.distinct("truth.detections.label"))
    truth, found = (
        exported(dataset, field, tmp_path / f"{field}.json", classes=names or ["none"])
        for field in ("truth", "found")
    )
    predictions = found["annotations"]
    for record in predictions:
        record["score"] = 1.0 if record["score"] is None else record["score"]
    places = {record["category_id"] for record in truth["annotations"]}
    assert set(results.class_metrics) == {names[place - 1] for place in places}
    mean = class_mean(results.class_metrics)
    for kind in results.coco_metrics if places else ():
        every = pycocotools_figures(truth, predictions, kind)
        assert mean[kind] == pytest.approx(every, abs=1e-9)
        for place in places:
            alone = {**truth, "categories": [truth["categories"][place - 1]]}
            figures = pycocotools_figures(alone, predictions, kind)
            assert results.class_metrics[names[place - 1]][kind] == figures


def test_classes_are_kept_and_printed(small, capsys):
    results = pfo.evaluate_instances(small, "found", "truth", eval_key="named", classwise=True)
    kept = small.load_evaluation_results("named").class_metrics
    assert kept == results.class_metrics and len(kept) > 0
    results.print_metrics()
    printed = capsys.readouterr().out
    assert f"mean of {len(kept)} classes" in printed and all(name in printed for name in kept)
    assert pfo.evaluate_instances(small, "found", "truth").class_metrics == {}


def random_records(rng, count, found):
    records = []
    for _ in range(count):
        x, y, w, h = rng.integers(0, 30, 4).tolist()
        record = {"bbox": [x, y, w + 1, h + 1], "area": int(rng.integers(1, 12000)), "iscrowd": 0}
        if found:
            record["score"] = float(rng.integers(4)) / 4
        elif rng.random() < 0.2:
            record["iscrowd"] = 1
        records.append(record)
    return records


@pytest.mark.parametrize("seed", range(300))
def test_matching_is_pycocotools_on_crowded_boxes(seed):
    rng = np.random.default_rng(seed)
    images = [
        ImageRecords(
            int(number),
            random_records(rng, rng.integers(0, 12), found=False),
            random_records(rng, rng.choice([0, 3, 20, 120]), found=True),
        )
        for number in rng.permutation(20)[: rng.integers(1, 6)]
    ]
    truth = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "fg"}]}
    found = []
    for image in images:
        truth["images"].append({"id": image.number})
        for records, into in ((image.truth, truth["annotations"]), (image.predictions, found)):
            for record in records:
                numbers = {"id": len(into) + 1, "image_id": image.number, "category_id": 1}
                into.append({**record, **numbers})
    assert evaluate(images, "bbox").metrics == pycocotools_figures(truth, found, "bbox")


@pytest.fixture
def small(fo, dataset):
    """Two images: a hit, a miss, a false alarm, a crowd with a prediction in it."""

    def label(x, y, w, h, **attributes):
        mask = np.ones((round(h * 50), round(w * 100)), dtype=bool)
        return fo.Detection(label="thing", bounding_box=[x, y, w, h], mask=mask, **attributes)

    samples = [
        fo.Sample(filepath=f"/nowhere/{i}.jpg", metadata=fo.ImageMetadata(width=100, height=50))
        for i in range(2)
    ]
    samples[0]["truth"] = fo.Detections(
        detections=[label(0.1, 0.2, 0.2, 0.4), label(0.6, 0.2, 0.2, 0.4)]
    )
    samples[0]["found"] = fo.Detections(
        detections=[
            label(0.4, 0.6, 0.1, 0.2, confidence=0.9),
            label(0.1, 0.2, 0.2, 0.3, confidence=0.8),
        ]
    )
    samples[1]["truth"] = fo.Detections(detections=[label(0.0, 0.0, 1.0, 0.6, iscrowd=True)])
    samples[1]["found"] = fo.Detections(detections=[label(0.1, 0.2, 0.2, 0.3, confidence=0.7)])
    dataset.add_samples(samples)
    return dataset


def test_a_run_marks_labels_and_samples(small):
    results = pfo.evaluate_instances(small, "found", "truth", "first")
    first, second = small
    hit, miss = first.truth.detections
    alarm, match = first.found.detections
    assert (hit.first, miss.first, alarm.first, match.first) == ("tp", "fn", "fp", "tp")
    assert (hit.first_id, match.first_id) == (match.id, hit.id)
    assert match.first_iou == hit.first_iou == pytest.approx(0.75)
    assert second.truth.detections[0].first is None
    assert second.found.detections[0].first is None  # in a crowd: counts neither way
    assert small.values("first_tp") == [1, 0]
    assert small.values("first_fp") == [1, 0]
    assert small.values("first_fn") == [1, 0]
    # By hand: of two objects one is found, behind a false alarm, at the IoUs up to 0.75.
    figures = results.metrics()["segm"]
    assert figures["AP50"] == pytest.approx(100 * 0.5 * 51 / 101)
    assert figures["AR100"] == pytest.approx(100 * 0.5 * 6 / 10)
    assert figures["APl"] == -1


def test_a_run_is_one_of_fiftyones(fo, small):
    results = pfo.evaluate_instances(small, "found", "truth", "first")
    assert small.list_evaluations() == ["first"]
    info = small.get_evaluation_info("first")
    assert (info.config.pred_field, info.config.gt_field) == ("found", "truth")
    small.clear_cache()
    loaded = small.load_evaluation_results("first", cache=False)
    assert loaded.metrics() == results.metrics()
    assert 100 * loaded.mAP() == pytest.approx(results.metrics()["segm"]["AP"])
    assert loaded.report()["fg"]["support"] == 2
    kinds = small.to_evaluation_patches("first").count_values("type")
    assert (kinds["tp"], kinds["fp"], kinds["fn"]) == (1, 1, 1)
    small.rename_evaluation("first", "second")
    assert small.list_evaluations() == ["second"]
    assert small.values("second_tp") == [1, 0]
    assert small.load_evaluation_results("second").metrics() == results.metrics()
    small.delete_evaluation("second")
    assert small.list_evaluations() == []
    assert not small.has_field("second_tp")
    assert not small.has_field("found.detections.second")


def test_its_figures_stand_in_the_model_evaluation_panel(small):
    pfo.evaluate_instances(small, "found", "truth", "first")
    shown = small.load_evaluation_results("first", cache=False).custom_metrics
    labels = {record["label"]: record["value"] for record in shown.values()}
    assert len(labels) == 24
    assert labels["AP50 (masks, %)"] == pytest.approx(25.25, abs=0.01)
    assert {record["lower_is_better"] for record in shown.values()} == {False}


def test_fiftyones_metrics_stand_beside_ours(small):
    pfo.evaluate_instances(small, "found", "truth", "first")
    results = small.load_evaluation_results("first", cache=False)
    metrics = results.metrics()
    # By hand: one hit, one miss, one false alarm.
    assert {name: metrics[name] for name in ("precision", "recall", "fscore", "support")} == {
        "precision": 0.5, "recall": 0.5, "fscore": 0.5, "support": 2,
    }  # fmt: skip
    assert metrics["accuracy"] == pytest.approx(1 / 3)
    assert {kind: metrics[kind] for kind in ("segm", "bbox")} == results.coco_metrics
    shares = (results.mAP(), results.mAR())
    expected = (metrics["segm"]["AP"], metrics["segm"]["AR100"])
    assert [100 * share for share in shares] == pytest.approx(expected)
    metrics["segm"].clear()  # a copy
    assert len(results.metrics()["segm"]) == len(METRICS)
    assert results.metrics(classes=["fg"], beta=2.0)["fscore"] == 0.5


def test_metrics_of_images_without_labels(fo, small):
    small.set_values("truth", [fo.Detections()] * 2)
    small.set_values("found", [fo.Detections()] * 2)
    metrics = pfo.evaluate_instances(small, "found", "truth").metrics()
    assert metrics["support"] == metrics["precision"] == 0
    assert metrics["segm"]["AP"] == -1


def test_a_second_run_under_the_same_name_replaces_the_first(small):
    pfo.evaluate_instances(small, "found", "truth", "first")
    sample = small.first()
    sample.found.detections = sample.found.detections[:1]
    sample.save()
    results = pfo.evaluate_instances(small, "found", "truth", "first")
    assert small.list_evaluations() == ["first"]
    assert small.values("first_tp") == [0, 0]
    assert results.metrics()["segm"]["AR100"] == 0


def test_views_are_evaluated_alone(fo, small):
    sure = small.filter_labels("found", fo.ViewField("confidence") < 0.85, only_matches=False)
    small.save_view("sure", sure)
    view = small.load_saved_view("sure")
    results = pfo.evaluate_instances(view, "found", "truth", "sure")
    assert results.metrics()["segm"]["AP50"] == pytest.approx(100 * 51 / 101)
    alarm, match = small.first().found.detections
    assert (alarm.get_field("sure") if alarm.has_field("sure") else None, match["sure"]) == (
        None,
        "tp",
    )
    assert small.load_evaluation_view("sure").count("found.detections") == 2
    one = pfo.evaluate_instances(small.limit(1), "found", "truth", "one")
    assert small.values("one_tp") == [1, None]
    assert one.metrics() == pfo.evaluate_instances(small, "found", "truth").metrics()


def stored(dataset):
    """All that an evaluation has stored on a dataset, as another process finds it."""
    dataset.reload()
    dataset.clear_cache()
    labels = [
        {name: label[name] for name in label.field_names if name.startswith("first")}
        for field in ("truth", "found")
        for each in dataset.values(f"{field}.detections")
        for label in each
    ]
    counts = map(dataset.values, [n for n in dataset.get_field_schema() if n.startswith("first")])
    results = {k: dataset.load_evaluation_results(k) for k in dataset.list_evaluations()}
    return {
        "schema": set(dataset.get_field_schema(flat=True)),
        "labels": labels,
        "counts": list(counts),
        "metrics": {key: result.metrics() for key, result in results.items()},
        "matches": {key: result.ypred_ids.tolist() for key, result in results.items()},
        "times": [dataset.get_evaluation_info(key).timestamp for key in results],
        "sidebar": [
            set(group.paths)
            for group in dataset.app_config.sidebar_groups or ()
            if group.name == "first"
        ],
    }


@pytest.fixture(
    params=[
        ("_panel_metrics", RuntimeError),
        ("write", KeyboardInterrupt),
        ("register_run", RuntimeError),
        ("save_run_results", KeyboardInterrupt),
    ]
)
def failing(request, monkeypatch):
    """Makes evaluations fail at some step, after it did its work."""
    from promerge_fo.dataset.evaluation import evaluate as evaluation

    when, error = request.param
    place = {"_panel_metrics": evaluation, "write": evaluation.MatchedLabels}.get(
        when, evaluation.InstanceEvaluation
    )
    real = getattr(place, when)

    def broken(*arguments, **options):
        real(*arguments[when == "save_run_results" :], **options)  # that one is a class's
        raise error("no luck")

    def fail():
        monkeypatch.setattr(place, when, broken)
        return pytest.raises(error, match="no luck")

    yield fail


def test_a_run_that_fails_leaves_no_trace_and_the_earlier_one_of_its_name(
    small, failing, monkeypatch
):
    nothing = stored(small)
    with failing():
        pfo.evaluate_instances(small, "found", "truth", "first")
    assert stored(small) == nothing
    assert not nothing["metrics"]

    monkeypatch.undo()
    pfo.evaluate_instances(small, "found", "truth", "first")
    earlier = stored(small)
    assert earlier["counts"] == [[1, 0], [1, 0], [1, 0]]
    sample = small.first()
    sample.found.detections[1].confidence = 0.95
    sample.save()
    with failing():
        pfo.evaluate_instances(small.limit(1), "found", "truth", "first")
    assert stored(small) == earlier
    assert earlier["metrics"]["first"]["segm"]["AP50"] < 26

    monkeypatch.undo()
    pfo.evaluate_instances(small.limit(1), "found", "truth", "first")
    later = stored(small)
    assert later["metrics"]["first"]["segm"]["AP50"] == pytest.approx(100 * 51 / 101)
    assert later["counts"] == [[1, None], [1, None], [1, None]]


def test_a_view_may_speak_of_what_its_own_evaluation_replaces(fo, small):
    pfo.evaluate_instances(small, "found", "truth", "first")
    view = small.match(fo.ViewField("first_tp") > 0)
    results = pfo.evaluate_instances(view, "found", "truth", "first")
    assert results.config.images == 1
    assert small.values("first_tp") == [1, None]
    view = small.exists("first_tp", False)
    assert pfo.evaluate_instances(view, "found", "truth", "first").config.images == 1
    assert small.values("first_tp") == [None, 0]
    hits = small.filter_labels("found", fo.ViewField("confidence") < 0.85, only_matches=False)
    pfo.evaluate_instances(hits, "found", "truth", "first")
    assert small.values("first_fp") == [0, 0]
    hits = small.filter_labels("found", fo.ViewField("first") == "tp", only_matches=False)
    results = pfo.evaluate_instances(hits, "found", "truth", "first")
    assert results.metrics()["segm"]["AP50"] == pytest.approx(100 * 51 / 101)
    assert small.count_values("found.detections.first") == {"tp": 1, None: 2}


def test_bad_input_is_refused_before_work_starts(fo, small):
    with pytest.raises(ValueError, match="the field 'nothing' does not exist"):
        pfo.evaluate_instances(small, "nothing", "truth")
    with pytest.raises(ValueError, match="no samples to evaluate"):
        pfo.evaluate_instances(small.limit(1).skip(1), "found", "truth")
    with pytest.raises(ValueError, match="Invalid evaluation key 'not a name'"):
        pfo.evaluate_instances(small, "found", "truth", "not a name")
    assert small.list_evaluations() == []


def test_images_that_cannot_be_read_are_left_out(fo, small, caplog):
    whole = pfo.evaluate_instances(small, "found", "truth")
    lost = small.first().copy()
    lost.metadata, lost.filepath = None, "/nowhere/lost.jpg"
    small.add_sample(lost)
    results = pfo.evaluate_instances(small, "found", "truth", "first")
    assert results.metrics() == whole.metrics()
    assert small.values("first_tp") == [1, 0, 0]
    assert "1 images cannot be read" in caplog.text


def test_a_table_is_printed(small, capsys):
    pfo.evaluate_instances(small, "found", "truth").print_metrics()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == list(METRICS)
    assert lines[1].split()[:3] == ["segm", "15.15", "25.25"]
