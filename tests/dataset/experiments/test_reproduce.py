"""The paper's tables, on samples of its benchmarks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from promerge_fo import cli
from promerge_fo.config import ProMergeConfig
from promerge_fo.dataset.experiments.reproduction import (
    list_experiments,
    load_experiment,
    reproduce,
)
from promerge_fo.dataset.experiments.settings import settings_of
from promerge_fo.dataset.provenance import list_runs, load_run
from tests.dataset.evaluation.test_benchmark_sets import MAKERS


@pytest.fixture
def root(fo, tmp_path):
    """A folder with samples of all benchmarks; datasets are deleted afterwards."""
    before = set(fo.list_datasets())
    for name, make in MAKERS.items():
        make(tmp_path / name)
    yield tmp_path
    for name in set(fo.list_datasets()) - before:
        fo.delete_dataset(name)


TABLES = ("table3", "table4a", "table4b", "table5", "table6", "fig5", "fig6")


def test_stored_experiments_are_whole():
    assert list_experiments() == sorted(["table1", "table2", *TABLES])
    for name in ("table1", "table2"):
        experiment = load_experiment(name)
        assert set(experiment["paper"]) == set(experiment["methods"])
        for figures in experiment["paper"].values():
            assert list(figures) == list(experiment["benchmarks"])
            assert {len(values) for values in figures.values()} == {len(experiment["metrics"])}
    found = load_experiment("table1")["paper"]["ProMerge"].values()
    average = [sum(values) / 6 for values in zip(*found, strict=True)]
    assert average == pytest.approx([1.7, 4.5], abs=0.05)  # as the paper averages


def test_stored_ablations_are_whole():
    settings = {}
    for name in TABLES:
        experiment = load_experiment(name)
        assert experiment["kind"] == "ablation"
        settings[name] = settings_of(experiment["methods"])
        assert set(experiment["paper"]) <= set(settings[name])
        if name.startswith("table"):
            assert set(experiment["paper"]) == set(settings[name])
        else:
            assert "in a plot alone" in experiment["notes"][0]
        for figures in experiment["paper"].values():
            assert len(figures["coco2017"]) == len(experiment["metrics"])
        # the paper's default is in each table, with the figures that Table 1 has of it
        default = ProMergeConfig.preset("paper")
        assert default in settings[name].values()
        for setting, config in settings[name].items():
            figures = dict(
                zip(
                    experiment["metrics"],
                    experiment["paper"].get(setting, {}).get("coco2017", []),
                    strict=False,
                )
            )
            if config == default:
                assert figures["segm AP"] == 2.4
                assert figures.get("segm AR100", 7.5) == 7.5
    first = list(settings["table3"].values())
    assert [c.filtering.value for c in first] == ["none", "none", "cascade", "cascade"]
    assert [c.merge_rule.value for c in first] == ["none", "either", "either", "either"]
    assert [c.split_components.value for c in first] == ["none", "none", "none", "all"]
    by_nms, by_ioa, by_feature, _ = settings["table4b"].values()
    assert (by_nms.filtering.value, by_nms.nms_iou) == ("nms", 0.5)
    assert (by_ioa.filtering.value, by_ioa.tau_ioa_bg) == ("ioa", 0.5)
    assert (by_feature.filtering.value, by_feature.tau_f_bg) == ("feature", 0.0)
    prompts = [c.prompting.value for c in settings["table6"].values()]
    assert prompts == ["grid", "random", "iterative", "attentive", "attention"]
    strides = [c.stride for name, c in settings["fig6"].items() if "stride" in name]
    assert strides == [2, 4, 6, 8, 10, 15, 30]
    assert {c.method for c in settings["fig5"].values()} == {"promerge", "maskcut"}


def test_an_ablation_runs_on_coco_annotations(fo, filled, photographs, tmp_path, capsys):
    """Every figure of the page is the ablation's, or the paper's."""
    from promerge_fo.dataset.evaluation.benchmark_sets import load_coco
    from promerge_fo.dataset.exchange.export import export_pseudo_labels

    images, annotations = Path(photographs[0]).parent, tmp_path / "truth.json"
    export_pseudo_labels(filled, "promerge", annotations, min_area=0)
    data = ["--coco", str(annotations), "--images", str(images)]
    page = tmp_path / "t3.md"
    arguments = ["reproduce", "table3", *data, "--encoder", "texture", "--folder", str(tmp_path)]
    before = set(fo.list_datasets())
    assert cli.main([*arguments, "--output", str(page)]) == 0
    assert page.read_text() in capsys.readouterr().out
    assert "4 images of your own, not the paper's" in page.read_text()
    for plot in ("t3_settings.png", "t3_times.png"):
        assert (page.parent / plot).stat().st_size > 5000
    dataset = load_coco(annotations, images)
    assert len(dataset) == 4
    assert dataset.count("ground_truth.detections") == filled.count("promerge.detections")
    outcome = reproduce("table3", dataset, encoder="texture", folder=tmp_path)
    metrics = outcome.ablation.metrics()
    for name, paper in outcome.experiment["paper"].items():
        line = next(x for x in page.read_text().splitlines() if x.startswith(f"| {name} |"))
        cells = [cell.strip().split(" ")[0] for cell in line.split("|")[2:-1]]
        here = [metrics[name]["segm"][metric] for metric in ("AP50", "AP", "AR100")]
        assert [float(cell) for cell in cells[::2]] == paper["coco2017"]
        assert cells[1::2] == [f"{value:.2f}" for value in here]
    assert metrics["prompting, merging, pruning, splitting"]["segm"]["AP"] > 0
    assert not dataset.has_field("promerge")
    dataset.delete()
    for name in set(fo.list_datasets()) - before:
        fo.delete_dataset(name)


def test_an_ablation_runs_on_a_benchmark(root, tmp_path):
    only = {"methods": ["voting"], "encoder": "texture", "folder": tmp_path}
    outcome = reproduce("table4a", root, limit=2, **only)
    assert outcome.ablation.images == 2
    assert list(outcome.ablation.outcomes) == ["voting"]
    assert "the first 2 images of each benchmark alone" in str(outcome)
    assert "| voting | 6.0 |" in str(outcome)


def test_prompting_that_cannot_be_done_is_left_out_or_refused(root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "finch", None)
    options = {"encoder": "texture", "folder": tmp_path, "limit": 1}
    outcome = reproduce("table6", root, **options)
    assert list(outcome.ablation.outcomes) == ["regular grid", "random", "iterative"]
    assert "finch-clust" in outcome.left_out["attentive"]
    assert "has no class token" in outcome.left_out["MHA"]
    with pytest.raises(ValueError, match="has no class token"):
        reproduce("table6", root, methods=["MHA"], **options)


def test_tables_1_and_2_on_a_dataset_of_ones_own(filled, tmp_path):
    filled.clone_sample_field("promerge", "truth")
    fields = set(filled.get_field_schema())
    options = {"gt_field": "truth", "encoder": "texture", "folder": tmp_path}
    outcome = reproduce("table1", filled, methods=["ProMerge", "TokenCut"], **options)
    assert list(outcome.ablation.outcomes) == ["ProMerge", "TokenCut"]
    assert "| ProMerge | 2.4 |" in outcome.table()
    assert set(filled.get_field_schema()) == fields
    speed = reproduce("table2", filled, methods=["ProMerge"], **options)
    (rate,) = speed.figures["ProMerge"][filled.name]
    assert 0 < rate < 1000
    assert f"| ProMerge, here | - | {rate:.2f} |" in speed.table()


def test_table1_runs_on_a_sample_of_each(fo, root, capsys):
    arguments = ["reproduce", "table1", "--root", str(root), "--limit", "20"]
    assert cli.main([*arguments, "--encoder", "texture", "--output", str(root / "t.md")]) == 0
    page = capsys.readouterr().out
    assert (root / "t.md").read_text() in page
    assert "| ProMerge, paper | 2.40 | 7.50 | 3.00 | 7.40 |" in page
    for method in ("TokenCut", "MaskCut", "ProMerge"):
        here = next(line for line in page.splitlines() if line.startswith(f"| {method}, here"))
        assert len([cell for cell in here.split("|")[2:-1] if cell.strip() != "-"]) == 12
    for text in (
        "the encoder is texture, not vit_base_patch8_224.dino",
        "the first 20 images of each benchmark alone",
        "kitti: boxes, as its files have no masks",
        "- CutLER: a detector, which is trained and run by itself",
    ):
        assert text in page
    dataset = fo.load_dataset("coco2017-20")
    methods = ["tokencut", "maskcut", "promerge"]
    assert set(dataset.list_evaluations()) == {f"table1_{method}" for method in methods}
    runs = list_runs(dataset)
    assert [load_run(dataset, run)["method"] for run in runs] == methods
    assert {load_run(dataset, run)["config"]["score"] for run in runs} == {"constant"}
    started = [dataset.get_run_info(run).timestamp for run in runs]
    reproduce("table1", root, limit=20, encoder="texture")  # nothing is segmented again
    assert [dataset.get_run_info(run).timestamp for run in runs] == started


def test_table2_measures_time(root):
    outcome = reproduce("table2", root, encoder="texture")
    assert list(outcome.figures) == ["TokenCut", "MaskCut", "ProMerge"]
    for figures in outcome.figures.values():
        (rate,) = figures["coco2017"]
        assert 0 < rate < 1000
    assert "3 images, of which 1 warm up" in str(outcome)
    assert "| ProMerge, paper | 0.54 |" in str(outcome)


def test_benchmarks_that_are_missing_are_named(root, capsys):
    (root / "lvis" / "lvis_v1_val.json").unlink()
    outcome = reproduce("table1", root, methods=["ProMerge"], encoder="texture", limit=1)
    assert "LVIS v1 val has no annotations in" in outcome.left_out["lvis"]
    assert "lvis" not in outcome.figures["ProMerge"]
    assert cli.main(["reproduce", "table1", "--root", str(root / "none")]) == 2
    assert "is no folder" in capsys.readouterr().err


def test_what_is_not_there_is_refused_by_name(root):
    with pytest.raises(ValueError, match="no experiment 'table9'; the experiments are: fig5"):
        reproduce("table9", root)
    with pytest.raises(ValueError, match="CutLER is a detector, which is trained"):
        reproduce("table1", root, methods=["CutLER"])
    with pytest.raises(ValueError, match="no method 'SAM'"):
        reproduce("table1", root, methods=["SAM"])
