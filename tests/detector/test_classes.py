"""With classes, from names on a dataset to names on its predictions: with the real detectron2."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from promerge_fo.cli import main

pytestmark = pytest.mark.timeout(1200)

SETTINGS = {
    "iterations": 20,
    "batch_size": 2,
    "short_side_low": 48,
    "short_side_high": 64,
    "long_side": 96,
    "test_short_side": 64,
    "regions": 16,
    "proposals": 100,
    "precise_norm": 1,
    "confident": 0.3,
    "detections": 20,
}
FLAGS = [x for k, v in SETTINGS.items() for x in ("--" + k.replace("_", "-"), str(v))]
KINDS = ["zebra", "apple", "fg"]


@pytest.fixture(scope="module")
def dataset(fo, tmp_path_factory):
    """Six images with a mask of each kind; "fg" has no name."""
    folder, made = tmp_path_factory.mktemp("scenes"), fo.Dataset()
    for k in range(6):
        pixels = np.full((48, 72, 3), 40, dtype=np.uint8)
        labels = []
        for place, name in enumerate(KINDS):
            mask = np.zeros((48, 72), dtype=bool)
            mask[6 + 2 * k : 26 + 2 * k, 4 + 22 * place : 20 + 22 * place] = True
            pixels[mask, place] = 230
            labels.append(fo.Detection.from_mask(mask, label=name, confidence=0.9))
        path = str(folder / f"{k}.png")
        Image.fromarray(pixels).save(path)
        made.add_sample(fo.Sample(filepath=path, promerge=fo.Detections(detections=labels)))
    yield made
    made.delete()


@pytest.fixture(scope="module")
def pseudo(dataset, tmp_path_factory):
    """Their export: categories 1, "zebra", and 2, "apple"."""
    from promerge_fo.dataset import export_pseudo_labels

    path = tmp_path_factory.mktemp("export") / "pseudo.json"
    export_pseudo_labels(dataset, "promerge", path, classes=KINDS[:2])
    return path


def command(annotations, output):
    start = ["train", str(annotations), "--output", str(output), "--from-scratch", "--gpus", "0"]
    return [*start, *FLAGS, "--num-workers", "0", "--pictures-every", "1000"]


@pytest.fixture(scope="module")
def trained(detectron2, pseudo, tmp_path_factory):
    """The folder of two rounds with classes."""
    folder = tmp_path_factory.mktemp("trained") / "out"
    with redirect_stdout(io.StringIO()) as said:
        assert main([*command(pseudo, folder), "--classes", "--rounds", "2"]) == 0
    assert said.getvalue().count("2 classes: zebra, apple\n") == 2  # in each round
    yield folder
    for checkpoint in folder.rglob("*.pth"):  # half a gigabyte each
        checkpoint.unlink()


def test_an_export_with_classes_comes_back_as_predictions_with_names(trained, dataset, tmp_path):
    from promerge_fo.dataset import import_predictions
    from promerge_fo.detector import predict

    path = tmp_path / "results.json"
    report = predict(trained, dataset, path, device="cpu", num_workers=0)
    found = json.loads(path.read_text())
    assert report.predictions == len(found) > 20
    pairs = {(entry["category_id"], entry["category_name"]) for entry in found}
    assert pairs == {(1, "zebra"), (2, "apple")}
    assert import_predictions(dataset, path, "plus", overwrite=True).labels == len(found)
    names = [entry["category_name"] for entry in found]
    assert dataset.count_values("plus.detections.label") == {
        name: names.count(name) for name in ("zebra", "apple")
    }


@pytest.mark.parametrize(("place", "category"), [(0, (1, "zebra")), (1, (2, "apple"))])
def test_the_class_that_the_network_names_is_the_category(
    trained, dataset, tmp_path, place, category
):
    """Its scores are pushed towards one class, and another file knows nothing of the training."""
    import torch

    from promerge_fo.detector import predict

    final = torch.load(trained / "round1" / "model_final.pth", weights_only=True)
    assert final["categories"] == {1: "zebra", 2: "apple"}
    for stage in range(3):
        final["model"][f"roi_heads.box_predictor.{stage}.cls_score.bias"][place] += 30
    torch.save({name: final[name] for name in ("model", "categories")}, tmp_path / "alone.pth")
    path = tmp_path / "results.json"
    predict(tmp_path / "alone.pth", dataset[:2], path, device="cpu", num_workers=0, min_score=0.9)
    found = json.loads(path.read_text())
    assert {(entry["category_id"], entry["category_name"]) for entry in found} == {category}


def test_detectron2_reads_the_same_classes(detectron2, dataset, pseudo):
    """Its own loader names and numbers them as training here does."""
    from detectron2.data import MetadataCatalog
    from detectron2.data.datasets.coco import load_coco_json

    from promerge_fo.detector.annotations import read_annotations

    root = str(Path(dataset.first().filepath).parent)
    records = load_coco_json(str(pseudo), root, "promerge_classes")
    named = MetadataCatalog.get("promerge_classes").thing_classes
    MetadataCatalog.remove("promerge_classes")
    read = read_annotations(pseudo, root, classes=True)
    assert named == list(read.categories.values()) == KINDS[:2]
    for k, record in enumerate(records):
        ours = read.classes(k).tolist()
        assert [each["category_id"] for each in record["annotations"]] == ours == [0, 1]


def test_a_second_round_has_the_same_classes(trained, pseudo):
    new = json.loads((trained / "round2" / "pseudo_labels.json").read_text())
    assert new["categories"] == json.loads(pseudo.read_text())["categories"]
    assert {entry["category_id"] for entry in new["annotations"]} == {1, 2}


def test_a_training_without_classes_is_another(trained, pseudo, capsys):
    assert main(command(pseudo, trained)) == 2
    assert "holds a training of other classes; give another folder" in capsys.readouterr().err


def test_classes_without_names_are_refused(detectron2, dataset, tmp_path, capsys):
    from promerge_fo.dataset import export_pseudo_labels

    export_pseudo_labels(dataset, "promerge", tmp_path / "one.json")
    assert main([*command(tmp_path / "one.json", tmp_path / "out"), "--classes"]) == 2
    assert "has no categories with names to learn apart; export with" in capsys.readouterr().err
