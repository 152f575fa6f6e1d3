"""The paper's tables, on samples of its benchmarks."""

from __future__ import annotations

import pytest

from promerge_fo import cli
from promerge_fo.dataset.reproduce import list_experiments, load_experiment, reproduce
from promerge_fo.dataset.runs import list_runs, load_run
from tests.dataset.test_protocols import MAKERS


@pytest.fixture
def root(fo, tmp_path):
    """A folder with samples of all benchmarks; datasets are deleted afterwards."""
    before = set(fo.list_datasets())
    for name, make in MAKERS.items():
        make(tmp_path / name)
    yield tmp_path
    for name in set(fo.list_datasets()) - before:
        fo.delete_dataset(name)


def test_stored_experiments_are_whole():
    assert list_experiments() == ["table1", "table2"]
    for name in list_experiments():
        experiment = load_experiment(name)
        assert set(experiment["paper"]) == set(experiment["methods"])
        for figures in experiment["paper"].values():
            assert list(figures) == list(experiment["benchmarks"])
            assert {len(values) for values in figures.values()} == {len(experiment["metrics"])}
    found = load_experiment("table1")["paper"]["ProMerge"].values()
    average = [sum(values) / 6 for values in zip(*found, strict=True)]
    assert average == pytest.approx([1.7, 4.5], abs=0.05)  # as the paper averages


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
        "- CutLER: the method is not there yet",
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
    outcome = reproduce("table1", root, encoder="texture", limit=1)
    assert "LVIS v1 val has no annotations in" in outcome.left_out["lvis"]
    assert "lvis" not in outcome.figures["ProMerge"]
    assert cli.main(["reproduce", "table1", "--root", str(root / "none")]) == 2
    assert "is no folder" in capsys.readouterr().err


def test_what_is_not_there_is_refused_by_name(root):
    with pytest.raises(ValueError, match="no experiment 'table9'; the experiments are: table1"):
        reproduce("table9", root)
    with pytest.raises(ValueError, match="the method CutLER is not there yet"):
        reproduce("table1", root, methods=["CutLER"])
    with pytest.raises(ValueError, match="no method 'SAM'"):
        reproduce("table1", root, methods=["SAM"])
