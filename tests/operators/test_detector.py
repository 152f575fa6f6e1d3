"""Operators that train a detector and predict with it, and the panel of losses."""

import json
import sys
import time

import pytest

from promerge_fo.detector import DetectorConfig

SETTINGS = {
    "iterations": 4,
    "warmup": 0.25,
    "short_side_low": 48,
    "short_side_high": 64,
    "long_side": 96,
    "test_short_side": 64,
    "regions": 16,
    "proposals": 100,
    "precise_norm": 1,
}


@pytest.fixture
def detectron2():
    reason = "detectron2 is not installed; docs/detector.md says how to build it"
    return pytest.importorskip("detectron2", reason=reason)


@pytest.fixture
def absent(monkeypatch):
    """A Python without detectron2."""
    for name in [n for n in sys.modules if n.split(".")[0] == "detectron2"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "detectron2", None)


@pytest.fixture
def present(monkeypatch):
    """A form that takes detectron2 for installed."""
    from promerge_fo.detector import requirement

    monkeypatch.setattr(requirement, "why_no_detectron2", lambda: None)


@pytest.fixture
def pseudo(segmented, tmp_path):
    """An export of the photographs' masks."""
    from promerge_fo.dataset.exchange.export import export_pseudo_labels

    path = tmp_path / "pseudo.json"
    export_pseudo_labels(segmented, "promerge", path, min_area=0.0)
    return path


@pytest.fixture
def training(tmp_path):
    """The folder of a training of 4 iterations, with its losses, and without a detector."""
    folder = tmp_path / "earlier"
    (folder / "round1").mkdir(parents=True)
    record = {"config": DetectorConfig(**SETTINGS).to_dict()}
    (folder / "training.json").write_text(json.dumps(record))
    lines = [
        json.dumps({"iteration": k, "total_loss": 5.0 - k, "loss_mask": 0.5, "lr": 0.005}) + "\n"
        for k in range(3)
    ]
    (folder / "round1" / "losses.jsonl").write_text("".join(lines))
    return folder


MISSING = "the detector needs detectron2. Run, for Python "


def test_forms_say_how_to_get_detectron2(absent, operator, form, segmented, pseudo, tmp_path):
    output = tmp_path / "out"
    train = {"annotations": str(pseudo), "output": str(output), "start": "scratch"}
    checkpoint = tmp_path / "model.pth"
    checkpoint.touch()
    predict = {"detector": str(checkpoint), "label_field": "plus"}
    for name, params in (("train_detector", train), ("predict", predict)):
        said = form(operator(name), segmented, **params).error_message
        assert said.startswith(MISSING)
        assert said.count("pip install --no-build-isolation") == 1
        assert said.endswith("docs/detector.md says more")  # nothing else wrong
        with pytest.raises(Exception, match="the detector needs detectron2"):
            operator(name)(segmented, **params)
    assert not output.exists()
    assert not segmented.has_field("plus")


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, "Say where the pseudo-labels are. Say where the training is to be. Say which weights"),
        ({"annotations": "pseudo.json"}, "'pseudo.json' is no absolute path, such as /data/pseudo"),
        ({"annotations": "/nowhere/a.json"}, "/nowhere/a.json does not exist"),
        ({"annotations": __file__}, "says where its images lie"),
        ({"annotations": __file__, "image_root": "/nowhere"}, "/nowhere is no folder"),
        ({"output": "out"}, "'out' is no absolute path"),
        ({"output": "/usr"}, "/usr is not empty, and holds no training"),
        ({"weights": "/nowhere/dino.pth"}, "/nowhere/dino.pth does not exist. DINO's ResNet-50 is"),
        ({"weights": "/nowhere/dino.pkl"}, "dino.pkl is a pickle, which executes"),
        ({"settings": {"drop_loss_iou": 2}}, r"drop_loss_iou is 2.0, but must lie in [0, 1]"),
        ({"settings": {"short_side_low": 2000}}, "short_side_low is 2000, but must not be above"),
    ],
)
def test_wrong_trainings_are_refused_with_words(present, operator, form, segmented, params, words):
    assert words in form(operator("train_detector"), segmented, **params).error_message


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, "Say which detector"),
        ({"detector": "/usr"}, "/usr holds no trained detector (round1/model_final.pth)"),
        ({"detector": "/nowhere/model.pth"}, "/nowhere/model.pth does not exist. Give a class-agn"),
        ({"detector": "/nowhere/model.pkl"}, "model.pkl is a pickle, which executes"),
        ({"detector": __file__, "label_field": "no name"}, "is no name for a field"),
        ({"detector": __file__, "label_field": "promerge"}, "Tick the box"),
        ({"detector": __file__, "path": "found.json"}, "no absolute path that ends in .json"),
        ({"detector": __file__, "path": "/data/found"}, "no absolute path that ends in .json"),
    ],
)
def test_wrong_predictions_are_refused_with_words(
    present, operator, form, segmented, params, words
):
    assert words in form(operator("predict"), segmented, **params).error_message
    with pytest.raises(Exception, match=words.split(" ")[0]):
        operator("predict")(segmented, **params)
    assert not segmented.has_field("promerge_plus")


def test_settings_follow_the_batch(present, operator, form, segmented, pseudo, tmp_path):
    params = {"annotations": str(pseudo), "output": str(tmp_path / "out"), "start": "scratch"}
    train = operator("train_detector")
    asked = form(train, segmented, **params)
    assert not asked.invalid
    assert asked.type.properties["classes"].default is False
    made = form(train, segmented, batch_size=4, show_settings=True, **params)
    settings = made.type.properties["settings"].type.properties
    names = {record["name"] for record in DetectorConfig.describe()}
    assert set(settings) == names - {"batch_size"}
    assert settings["iterations"].default is None
    described = made.to_json()["type"]["properties"]["settings"]["type"]["properties"]
    assert "(640000)" in described["iterations"]["view"]["description"]
    assert "(0.00125)" in described["learning_rate"]["view"]["description"]


def test_an_export_from_the_form_is_what_is_trained_on(operator, from_app, segmented, tmp_path):
    """What the last export wrote is offered, unless it is for another detector."""
    from fiftyone.operators.executor import ExecutionContext

    export = operator("export_pseudo_labels")
    path = str(tmp_path / "labels.json")
    asked = {"label_field": "promerge", "path": path, "min_area": 0.0, "review": "all",
             "images": "refer", "format": "coco"}  # fmt: skip
    assert from_app(export, segmented, **asked).state == "done"
    train = operator("train_detector")

    def offered():
        request = {"dataset_name": segmented.name, "params": {"start": "scratch"}}
        ctx = ExecutionContext(operator_uri=train.uri, request_params=request)
        return train.resolve_input(ctx).type.properties["annotations"].default

    assert offered() == path
    asked.update(format="yolo", path=str(tmp_path / "yolo"), images="link")
    assert from_app(export, segmented, **asked).state == "done"
    assert offered() is None


def test_a_training_is_stopped_and_goes_on_by_the_same_form(
    operator, from_app, segmented, training, monkeypatch
):
    """What trains is replaced: this is about what it is given, and how it ends."""
    import promerge_fo.detector as room
    from promerge_fo.detector import training as home

    given = {}

    def train(annotations, output, config, *, progress, **more):
        given.update(more, annotations=annotations, output=output, config=config)
        bar = progress(1000)
        while True:
            bar.update(1)

    monkeypatch.setattr(home, "train", train)
    monkeypatch.setattr(room, "require_detectron2", lambda: None)
    params = {
        "annotations": "/data/pseudo",
        "output": str(training),
        "start": "scratch",
        "weights": "/data/chosen-before.pth",
        "device": "cpu",
        "batch_size": 8,
        "rounds": 2,
        "classes": True,
        "settings": {"drop_loss_iou": 0.02, "iterations": None, "seed": None},
    }
    made = operator("train_detector")
    record = from_app(made, segmented, wait=False, **params)
    while "of 1,000 iterations" not in record().text:
        assert record().is_open
    assert operator("stop_runs")(segmented).result == {"stopped": 1}
    while record().is_open:
        time.sleep(0.05)
    assert record().outcome.startswith(
        "Stopped; the same form goes on from here. round 1: 3 of 4 iterations"
    )
    assert given == {
        "annotations": "/data/pseudo",
        "output": str(training),
        "config": DetectorConfig().scaled(8).replace(drop_loss_iou=0.02),
        "weights": None,
        "image_root": None,
        "classes": True,
        "rounds": 2,
        "gpus": 0,
        "num_workers": 0,
        "checkpoint_every": 5000,
        "pictures_every": 1000,
    }


class FakePanel:
    """What FiftyOne gives a panel of its state."""

    def __init__(self):
        self.state = {}

    def get_state(self, name):
        return self.state.get(name)

    def set_state(self, name, value):
        self.state[name] = value


@pytest.fixture
def panel(operator, segmented):
    """The panel and its context: ``(panel, ctx)``."""
    from types import SimpleNamespace

    from fiftyone.operators.store import ExecutionStore

    def store(name):
        return ExecutionStore.create(name, segmented._doc.id)

    ctx = SimpleNamespace(dataset=segmented, panel=FakePanel(), store=store)
    return operator("promerge_training"), ctx


def shown(panel, ctx):
    return panel.render(ctx).type.properties


def test_the_panel_shows_the_losses_of_a_training(panel, training):
    made, ctx = panel
    made.on_load(ctx)
    assert "empty" in shown(made, ctx)
    ctx.panel.set_state("folder", str(training))
    made.look(ctx)
    found = shown(made, ctx)
    assert {"folder", "look", "progress", "total", "parts_1"} <= set(found)
    curves = ctx.panel.get_state("curves")["1"]
    assert curves["progress"] == (
        "3 of 4 iterations, loss 5.00 in the first tenth and 3.00 in the last"
    )
    assert curves["iterations"] == [1, 2, 3]
    assert curves["values"]["total_loss"] == [5, 4, 3]
    total, parts = (found[name].view.to_json()["data"] for name in ("total", "parts_1"))
    assert [(line["name"], line["y"]) for line in total] == [("round 1", [5, 4, 3])]
    assert [(line["name"], line["y"]) for line in parts] == [("mask", [0.5, 0.5, 0.5])]
    # the folder is remembered, and shown when the panel is opened the next time
    ctx.panel = FakePanel()
    made.on_load(ctx)
    assert ctx.panel.get_state("folder") == str(training)
    assert "total" in shown(made, ctx)
    # JSON has no NaN
    with (training / "round1" / "losses.jsonl").open("a") as file:
        file.write('{"iteration": 3, "total_loss": NaN}\n')
    made.look(ctx)
    values = ctx.panel.get_state("curves")["1"]["values"]
    assert values["total_loss"] == [5, 4, 3, None]
    assert values["loss_mask"] == [0.5, 0.5, 0.5, None]


def test_the_panel_says_what_is_wrong_with_a_folder(panel, tmp_path):
    made, ctx = panel
    ctx.panel.set_state("folder", str(tmp_path / "nothing"))
    made.look(ctx)
    assert "holds no training" in ctx.panel.get_state("trouble")
    assert "trouble_text" in shown(made, ctx)
    assert "total" not in shown(made, ctx)


def test_a_detector_is_trained_and_predicts(
    detectron2, operator, launch, segmented, pseudo, tmp_path
):
    """At once and scheduled: the same form, which then has nothing left to train."""
    from promerge_fo.dataset.provenance import list_runs
    from promerge_fo.detector import read_losses

    folder = tmp_path / "out"
    train = {
        "annotations": str(pseudo),
        "output": str(folder),
        "start": "scratch",
        "device": "cpu",
        "batch_size": 2,
        "settings": SETTINGS,
    }
    operator("train_detector")(segmented, **train)
    losses = read_losses(folder)[1]
    assert losses.finished
    assert losses.iterations.tolist() == [0, 1, 2, 3]
    record = json.loads((folder / "training.json").read_text())["config"]
    assert record["batch_size"] == 2
    assert record["learning_rate"] == pytest.approx(0.005 / 8)

    operator("predict")(
        segmented, detector=str(folder), label_field="now", device="cpu", top_k=5, min_score=0.0
    )
    counts = segmented.values("now.detections.confidence")
    assert 0 < max(len(scores or []) for scores in counts) <= 5

    later = tmp_path / "later"
    launch(operator("train_detector")(segmented, delegate=True, **{**train, "output": str(later)}))
    same = read_losses(later)[1]
    for name, values in losses.values.items():
        assert abs(values - same.values[name]).max() < 1e-4
    (folder / "round1" / "model_final.pth").unlink()
    file = tmp_path / "found.json"
    launch(
        operator("predict")(
            segmented.limit(2), delegate=True, detector=str(later), label_field="later",
            device="cpu", path=str(file),
        )
    )  # fmt: skip
    segmented.reload()
    found = json.loads(file.read_text())
    assert len(found) == segmented.count("later.detections") > 0
    assert {entry["image_id"] for entry in found} <= {1, 2}
    assert any(key.startswith("later") for key in list_runs(segmented))
    (later / "round1" / "model_final.pth").unlink()
