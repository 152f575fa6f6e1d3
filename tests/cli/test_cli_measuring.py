"""``promerge ablate`` and ``tune``: options to settings, and a report."""

from __future__ import annotations

import json

import pytest

from promerge_fo import cli
from promerge_fo.cli.measuring import _flags, _texts, _values
from promerge_fo.config import ProMergeConfig


@pytest.fixture
def named(fo, dataset, photographs):
    """The photographs with a ground truth; gives the dataset's name."""
    from promerge_fo.dataset.runs.model import load_model
    from promerge_fo.dataset.runs.segment import segment_dataset

    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    config = ProMergeConfig(image_size=96, tau_b=0.3)
    segment_dataset(dataset, load_model(config=config, encoder="texture"), "truth")
    return dataset.name


def run(name, folder, *options):
    data = ["--dataset", name, "--gt-field", "truth", "--folder", str(folder)]
    small = ["--encoder", "texture", "--image-size", "96"]
    return cli.main(["ablate", *data, *small, *options])


def test_a_grid(named, tmp_path, capsys):
    assert run(named, tmp_path, "--vary", "stride=2,4", "--vary", "tau-b=0.2,0.3") == 0
    printed = capsys.readouterr().out
    page = (tmp_path / "report" / "report.md").read_text()
    for name in ("stride=2, tau_b=0.2", "stride=4, tau_b=0.3"):
        assert f"| {name} |" in printed
        assert f"| {name} |" in page
    # the last is what made the ground truth
    line = next(x for x in page.splitlines() if x.startswith("| stride=4, tau_b=0.3 |"))
    assert line.split("|")[2:4] == [" 100.00 ", " 100.00 [100.00, 100.00] "]
    assert (tmp_path / "report" / "results.csv").read_text().count("\n") == 5


def test_settings_from_a_file(named, tmp_path, capsys):
    file = tmp_path / "settings.json"
    small = {"image_size": 96}
    file.write_text(json.dumps({"plain": small, "cuts": {"method": "maskcut", **small}}))
    assert run(named, tmp_path, "--settings", str(file), "--limit", "2") == 0
    printed = capsys.readouterr().out
    assert "2 images against truth, encoder texture" in printed
    assert "| plain |" in printed
    assert "| cuts |" in printed


def test_values_become_what_parameters_are():
    values = _values(
        _texts(["stride=2,4", "filtering=ioa, nms", "fill_holes=true,False"]), "promerge"
    )
    assert values == {
        "stride": [2.0, 4.0],
        "filtering": ["ioa", "nms"],
        "fill_holes": [True, False],
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--vary", "stride"], "is not of the form NAME=V,V,...: stride=2,4,6"),
        (["--vary", "cuts=1,2"], "--vary cuts is no parameter of promerge; its parameters are: "),
        (["--vary", "stride=a"], "--vary stride: 'a' is not a number"),
        (["--vary", "fill_holes=1"], "--vary fill_holes: '1' is not true or false"),
        (["--vary", "stride=0"], "stride is 0, but must lie in [1, 1024]"),
        (["--vary", "stride=2.5"], "stride is 2.5, but must be a whole number"),
        (["--vary", "stride=2", "--vary", "stride=4"], "--vary stride is there twice"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_read(options, words, tmp_path, capsys):
    assert run("no such dataset", tmp_path, *options) == 2
    assert words in capsys.readouterr().err


def test_wrong_data_is_refused(fo, tmp_path, capsys):
    vary = ["--vary", "stride=2", "--encoder", "texture", "--folder", str(tmp_path)]
    assert cli.main(["ablate", "--dataset", "no such dataset", *vary]) == 2
    assert "there is no dataset 'no such dataset'; the datasets are: " in capsys.readouterr().err
    assert cli.main(["ablate", "--coco", "truth.json", *vary]) == 2
    assert "--coco and --images go together" in capsys.readouterr().err
    assert cli.main(["ablate", "--coco", "truth.json", "--images", str(tmp_path), *vary]) == 2
    assert "truth.json is no file" in capsys.readouterr().err
    (tmp_path / "truth.json").write_text("{}")
    data = ["--coco", str(tmp_path / "truth.json"), "--images"]
    assert cli.main(["ablate", *data, str(tmp_path), *vary]) == 2
    assert "is no COCO annotation file" in capsys.readouterr().err
    assert cli.main(["ablate", *data, str(tmp_path / "none"), *vary]) == 2
    assert "is no folder; give the one that the images lie in" in capsys.readouterr().err


def test_tuning(named, tmp_path, capsys):
    data = ["tune", "--dataset", named, "--gt-field", "truth", "--folder", str(tmp_path)]
    run = [*data, "--encoder", "texture", "--image-size", "96", "--folds", "2"]
    out = tmp_path / "tuned.json"
    assert cli.main([*run, "--tau-b", "-0.5", "--vary", "tau_b=0.3", "--output", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "Take 'tau_b=0.3'." in printed, printed
    assert "to use the choice, add to the options: --tau-b 0.3\n" in printed
    assert json.loads(out.read_text())["tuned"]["config"]["tau_b"] == 0.3
    assert (tmp_path / "tuning" / "tuning.md").is_file()
    both = tmp_path / "both.json"
    plain = {"image_size": 96, "tau_b": -0.5}
    both.write_text(json.dumps({"plain": plain, **json.loads(out.read_text())}))
    assert cli.main([*run, "--settings", str(both)]) == 0
    printed = capsys.readouterr().out
    assert "Take 'tuned'." in printed
    assert "--tau-b" not in printed
    assert cli.main([*run, "--metric", "mAP"]) == 2
    assert "there is no metric 'mAP'" in capsys.readouterr().err
    assert cli.main([*run, "--vary", "cuts=1"]) == 2
    assert "--vary cuts is no parameter of promerge" in capsys.readouterr().err


def test_a_choice_is_written_as_options():
    changes = {"stride": 2, "tau_b": 0.3, "fill_holes": False, "filtering": "nms"}
    assert _flags(changes) == "--stride 2 --tau-b 0.3 --no-fill-holes --filtering nms"
    assert _flags({"fill_holes": True}) == "--fill-holes"


def test_facets_and_blocks_are_settings(named, tmp_path, capsys, weights):
    vary = ["--vary", "facet=key,token", "--vary", "block=6,11", "--vary", "tau_b=0.2,0.3"]
    assert run(named, tmp_path, *vary, *weights) == 0
    page = (tmp_path / "report" / "report.md").read_text()
    names = {line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| facet")}
    assert names == {
        f"facet={facet}, block={block}, tau_b={tau_b}"
        for facet in ("key", "token") for block in (6, 11) for tau_b in (0.2, 0.3)
    }  # fmt: skip
    assert len(list((tmp_path / "features").iterdir())) == 4


def test_what_is_measured_is_calibrated_unless_it_is_switched_off(named, tmp_path, weights):
    runs = []
    for more in ([], ["--no-calibrate"]):
        assert run(named, tmp_path, "--vary", "stride=2,3", *weights, *more) == 0
        report = (tmp_path / "report" / "results.csv").read_text().splitlines()
        runs += [line.split(",")[-1] for line in report[1:]]
    assert len(set(runs)) == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--vary", "block=last"], "--vary block: 'last' is not a whole number"),
        (["--vary", "facet=keys"], "facet is 'keys', but must be one of"),
        (["--vary", "facet=key", "--encoder", "texture"], "'texture' has neither"),
    ],
)
def test_wrong_facets_and_blocks_are_refused(named, tmp_path, capsys, weights, options, words):
    assert run(named, tmp_path, *weights, *options) == 2
    assert words in capsys.readouterr().err


@pytest.fixture
def tuned(named, tmp_path, weights):
    """What ``promerge tune --output`` wrote, for a calibrated ViT, and its one setting."""
    data = ["--dataset", named, "--gt-field", "truth", "--folder", str(tmp_path), "--folds", "2"]
    model = [*weights, "--image-size", "96", "--facet", "token", "--block", "6"]
    file = tmp_path / "tuned.json"
    assert cli.main(["tune", *data, *model, "--vary", "tau_b=0.2,0.4", "--output", str(file)]) == 0
    return file, json.loads(file.read_text())["tuned"]


def test_segment_takes_all_that_was_tuned(fo, named, tuned, weights, capsys):
    from promerge_fo.config import run_hash
    from promerge_fo.dataset import list_runs, load_run

    file, setting = tuned
    encoder = setting["encoder"]
    assert (encoder["facet"], encoder["block"], encoder["image_size"]) == ("token", 6, 96)
    assert setting["calibration"]["encoder"] == encoder
    checkpoint = weights[2:]
    command = ["segment", named, "--settings", str(file), *checkpoint]
    assert cli.main([*command, "--label-field", "from_file"]) == 0
    dataset = fo.load_dataset(named)
    record = load_run(dataset, list_runs(dataset)[-1])
    assert record["label_field"] == "from_file"
    assert {name: record[name] for name in setting} == setting
    assert record["run_hash"] == run_hash(setting)
    capsys.readouterr()
    assert cli.main([*command, "--facet", "token", "--label-field", "from_file"]) == 0
    assert "4 images were done before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--facet", "query"], "--facet query contradicts {file}, which has token; leave one of"),
        (["--block", "3"], "--block 3 contradicts {file}, which has 6"),
        (["--encoder", "texture"], "--encoder texture contradicts {file}, which has vit_tiny_"),
        (["--method", "maskcut"], "--method maskcut contradicts {file}, which has promerge"),
        (["--stride", "9"], "--stride 9 contradicts {file}, which has "),
        (["--cuts", "3"], "--cuts 3 contradicts {file}, which has no such parameter"),
        (["--no-fill-holes"], "--fill-holes False contradicts {file}, which has True"),
        (["--precision", "bf16"], "--precision bf16 contradicts {file}, which has fp32"),
        (["--preset", "fast"], "{file} has all settings; leave --preset out, or the file"),
        (["--no-calibrate"], "{file} has all settings; leave --no-calibrate out, or the file"),
    ],
)
def test_options_that_contradict_a_tuned_file_are_refused(tmp_path, capsys, options, words):
    from promerge_fo import Pipeline, load_encoder

    file = tmp_path / "tuned.json"
    identity = Pipeline(load_encoder("texture"), ProMergeConfig()).identity()
    identity["encoder"] |= {"name": "vit_tiny_patch16_224", "facet": "token", "block": 6}
    file.write_text(json.dumps({"tuned": identity}))
    assert cli.main(["segment", "nowhere", "--settings", str(file), *options]) == 2
    assert words.format(file=file) in capsys.readouterr().err


def test_other_weights_than_those_that_were_tuned_are_refused(named, tuned, tmp_path, capsys):
    import timm
    import torch

    file, _ = tuned
    other = tmp_path / "other.pth"
    torch.save(timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict(), other)
    options = ["--settings", str(file), "--checkpoint", str(other)]
    assert cli.main(["segment", named, *options]) == 2
    said = capsys.readouterr().err
    assert f"promerge: {file}: the encoder is not the run's (weights_sha256: " in said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is no JSON file"),
        ("[1]", "must hold a JSON object with settings, each an object, by name"),
        ('{"a": {"tau_b": 0.3}}', "is no file that promerge tune --output wrote"),
        ("{}", "is no file that promerge tune --output wrote"),
        (
            '{"a": {"method": "sam", "config": {}, "encoder": {"name": "texture"}}}',
            "is no file that promerge tune --output wrote",
        ),
    ],
)
def test_files_that_were_not_tuned_are_refused(tmp_path, capsys, content, words):
    file = tmp_path / "tuned.json"
    file.write_text(content)
    assert cli.main(["segment", "nowhere", "--settings", str(file)]) == 2
    assert words in capsys.readouterr().err


def test_what_was_tuned_is_compared_with_other_settings_and_explained(
    named, photographs, tmp_path, capsys
):
    from promerge_fo import Pipeline, load_encoder

    pipeline = Pipeline(load_encoder("texture", image_size=96), ProMergeConfig(image_size=96))
    file, drawn, photograph = tmp_path / "both.json", tmp_path / "steps.png", photographs[0]
    plain = {"image_size": 96, "tau_b": 0.3}
    file.write_text(json.dumps({"tuned": pipeline.identity()}))
    data = ["--dataset", named, "--gt-field", "truth", "--folder", str(tmp_path)]
    assert cli.main(["ablate", *data, "--settings", str(file)]) == 0  # wants no weights of DINO
    assert "encoder texture" in capsys.readouterr().out
    assert cli.main(["explain", photograph, "--settings", str(file), "--output", str(drawn)]) == 0
    assert drawn.is_file()
    file.write_text(json.dumps({"plain": plain, "tuned": pipeline.identity()}))
    assert run(named, tmp_path, "--settings", str(file)) == 0
    rows = (tmp_path / "report" / "results.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["plain", "tuned"]
