"""The benchmarks run, and write what they promise; their figures are nobody's business here."""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS, DATASET, PIPELINE, main

ROOT = Path(__file__).parents[1]


def run(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, **options
    )


def leaves(value, path=()):
    if isinstance(value, dict):
        for key, part in value.items():
            yield from leaves(part, (*path, key))
    elif isinstance(value, list):
        for part in value:
            yield from leaves(part, path)
    else:
        yield path, value


def check(record: dict) -> None:
    assert record["quick"] is True
    conditions = record["conditions"]
    for name in ("time", "command", "cpu", "cores", "torch_threads", "python", "torch", "numba"):
        assert conditions[name], name
    assert {"commit", "gpu", "driver", "cuda", "fiftyone", "pydensecrf2"} <= set(conditions)
    for path, value in leaves(record):
        where = ".".join(path)
        if isinstance(value, str):
            assert not value.startswith("/"), where
            assert str(ROOT) not in value, where
            assert "/tmp" not in value, where
        elif isinstance(value, float):
            assert math.isfinite(value), where
        if path[-1] in ("median_s", "seconds", "mean_s") or path[-1].endswith("_per_s"):
            assert value > 0, where
        if "iou" in path[-1] and value is not None:
            assert 0 <= value <= 1, where
    assert json.dumps(record, allow_nan=False)


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> dict[str, dict]:
    """What a quick run of several benchmarks wrote, in one process."""
    folder = tmp_path_factory.mktemp("results")
    names = ("normalized_cut", "crf", "gpu")
    options = ("--device", "cpu", "--quick", "--output-dir", str(folder))
    environment = {**os.environ, "TORCH_COMPILE_DISABLE": "1"}  # it takes a minute
    done = run("-m", "benchmarks", *names, *options, env=environment)
    assert done.returncode == 0, done.stderr
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in names}


def test_records_hold_figures_and_conditions(quick):
    for name, record in quick.items():
        assert record["benchmark"] == name
        assert record["device"] == "cpu"
        assert record["conditions"]["command"].startswith(
            f"python -m benchmarks {next(iter(quick))}"
        )
        check(record)


def test_segmentation_is_held_against_its_product(quick):
    results = quick["gpu"]["results"]["segmentation"]
    case = results["against_product"][0]
    ratio = case["segment"]["median_s"] / case["product"]["median_s"]
    assert case["segment_over_product"] == pytest.approx(ratio, abs=0.01)
    assert [(c["preset"], c["stride"], c["prompts"]) for c in results["against_product"]] == [
        ("official", 4, 225), ("official", 2, 900), ("default", 4, 225), ("default", 2, 900),
    ]  # fmt: skip
    assert case["masks"] >= 1
    assert results["steps"][0]["ms"].keys() >= {"prompts", "split", "filter", "merge", "score"}
    assert all(value > 0 for name, value in results["steps"][0]["ms"].items() if name != "other")


def test_cuts_are_held_against_a_dense_solver(quick):
    results = quick["normalized_cut"]["results"]
    assert (results["cuts"], results["patches"]) == (3, 400)
    (found,) = results["threads"]
    assert found["threads"] == 1
    assert found["min_iou"] == 1
    (image,) = found["images"]
    assert len(image["products"]) == len(image["eigenvalues"]) == len(image["ious"]) == 3
    assert all(0 < value < 1 for value in image["eigenvalues"])
    assert sum(image["patches"]) > 0
    for kind, key in (("wall", "times_faster"), ("processor", "times_faster_by_processor_time")):
        ratio = image["dense"][kind]["median_s"] / image["lanczos"][kind]["median_s"]
        assert image[key] == pytest.approx(ratio, abs=0.06)
    assert found["parts"].keys() == {"graph", "one_cut", "all_cuts"}


def test_prompts_follow_the_strides(quick):
    rows = quick["gpu"]["results"]["prompts"]["strides"]
    assert [row["prompts"] for row in rows] == [900, 225, 100, 64, 36, 16, 4]


def test_the_crf_is_held_against_the_reference_where_there_is_one(quick):
    results = quick["crf"]["results"]
    assert results["sizes"][0]["numba"]["peak_memory_mb"] > 0
    assert results["batches"][0]["iou_with_numba"]["min"] > 0.9
    rows = results["counts"]["refine_masks"]
    if results["pydensecrf_missing"]:
        assert results["agreement"] is None
        assert rows[0]["times_faster"] is None
        assert results["sizes"][0]["pydensecrf"] is None
    else:
        assert results["agreement"]["all"]["min_iou"] > 0.9
        assert rows[0]["times_faster"] > 0
        assert results["sizes"][0]["iou"] > 0.9


def test_the_gpu_run_has_all_sections(quick):
    from benchmarks.pipeline.gpu import SECTIONS

    results = quick["gpu"]["results"]
    assert list(results) == list(SECTIONS)
    assert results["count"]["counts"][0]["failed"] == 0
    assert results["encoder"]["encoders"][0]["batches"][0]["tflop_per_s"] > 0
    assert results["end_to_end"]["overlap"]["together_over_slower"] > 0
    assert results["table2"]["paper"]["images_per_s"]["ProMerge"] == 0.54


def test_flops_are_those_that_torch_counts():
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks.pipeline.encoder import count_flops
    from benchmarks.subjects import TINY, photographs, random_vit

    encoder = random_vit(TINY, device="cpu", image_size=64)
    image = photographs((64, 64))["coffee"]
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        encoder.encode([image])
    assert sum(count_flops(encoder).values()) == counter.get_total_flops()


def test_the_stand_in_gives_stored_features_in_turn():
    import numpy as np
    import torch

    from benchmarks.settings import Settings
    from benchmarks.subjects import golden_features, instant

    encoder = instant(Settings())
    image = np.zeros((480, 480, 3), np.uint8)
    given = encoder.encode([image] * 3), encoder.encode([image] * 2)
    stored = list(golden_features().values())
    expected = [stored[i % len(stored)] for i in range(5)]
    assert torch.equal(torch.cat(given), torch.stack(expected))


def test_the_presets_encoders_are_the_models(fo):
    from benchmarks.subjects import ENCODERS
    from promerge_fo.config import preset_encoder

    assert {preset: preset_encoder(preset) for preset in ENCODERS} == ENCODERS


def test_the_steps_of_a_million_agree(fo, monkeypatch):
    from benchmarks.dataset import million

    monkeypatch.setattr(million, "DIFFERENT", 20)
    with million._watched() as peaks:
        found = {name: getattr(million, name)(40) for name in million.STAGES}
        time.sleep(3 * million.EVERY_S)
    fo.load_dataset(million.NAME).delete()
    assert set(found) == {"fill", "evaluate", "load_results", "compare", "export"}
    assert found["evaluate"]["AP"] == found["load_results"]["AP"] == found["compare"]["AP"]
    assert 0 < found["compare"]["found_by_one"]["objects"] < million.LABELS * 40
    assert found["export"]["json_mb"] >= 0
    assert 50 < peaks["peak_memory_mb"] < 20_000
    assert peaks["server_peak_mb"] > 10


def test_a_size_is_saved_step_by_step_beside_the_others(tmp_path, monkeypatch):
    from benchmarks.dataset import million

    def apart(function, **arguments):
        if broken == [function]:
            raise RuntimeError("a later step fails")
        return {"seconds": 1.0}

    monkeypatch.setattr(million, "apart", apart)
    monkeypatch.setattr(million, "start_server", lambda root: "")
    monkeypatch.setattr(million, "isolate", lambda name: tmp_path)
    monkeypatch.setenv("FIFTYONE_DATABASE_URI", "")
    broken = []
    options = ["million", "--quick", "--output-dir", str(tmp_path), "--samples"]
    assert main([*options, "7", "9"]) == 0
    broken = ["benchmarks.dataset.million:compare"]
    with pytest.raises(RuntimeError, match="a later step"):
        main([*options, "8"])
    counts = json.loads((tmp_path / "million.json").read_text())["results"]["counts"]
    assert [each["samples"] for each in counts] == [7, 8, 9]
    assert ["compare" in each for each in counts] == [True, False, True]
    assert all({"commit", "time", "evaluate"} <= each.keys() for each in counts)


def test_list_names_what_there_is(capsys):
    for arguments in (["--list"], []):
        assert main(arguments) == 0
        listed = capsys.readouterr().out
        assert all(f"\n{name} " in listed for name in BENCHMARKS)
    for room, benchmarks in (("pipeline", PIPELINE), ("dataset", DATASET)):
        for name in benchmarks:
            assert callable(importlib.import_module(f"benchmarks.{room}.{name}").run)


def test_every_benchmark_is_listed():
    for room, benchmarks in (("pipeline", PIPELINE), ("dataset", DATASET)):
        files = {path.stem for path in (ROOT / "benchmarks" / room).glob("*.py")}
        assert files - {"__init__"} == set(benchmarks)


def test_an_unknown_name_is_refused_with_the_list(capsys):
    assert main(["segmentatoin"]) == 2
    said = capsys.readouterr().err
    assert "there is no benchmark segmentatoin" in said
    assert "segmentation" in said


def test_without_a_gpu_its_run_says_so(capsys, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["gpu"]) == 2
    said = capsys.readouterr().err
    assert "finds no CUDA device" in said
    assert "python -m benchmarks gpu" in said
    assert main(["gpu", "--device", "cpu"]) == 2


def test_what_a_benchmark_needs_is_said(capsys):
    assert main(["coco_accuracy", "--quick"]) == 2
    assert "--annotations ANNOTATIONS.json --images FOLDER" in capsys.readouterr().err
    assert main(["precision", "--checkpoint", "weights.pth"]) == 2
    assert "--models with the name of one model" in capsys.readouterr().err


def test_what_is_not_installed_is_null(monkeypatch):
    from benchmarks import record

    monkeypatch.setattr(record, "PACKAGES", ("torch", "no-such-package"))
    monkeypatch.setenv("PATH", "")
    conditions = record.conditions()
    assert conditions["no-such-package"] is None
    assert conditions["commit"] is None
    assert conditions["torch"]


def test_a_process_apart_returns_what_its_function_does():
    from benchmarks.memory import apart

    with pytest.raises(RuntimeError, match="no_such_function"):
        apart("benchmarks.memory:no_such_function")


def test_the_gpu_run_needs_neither_fiftyone_nor_an_installed_package():
    code = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"fiftyone", "eta", "pycocotools", "pydensecrf", "matplotlib"}:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
import benchmarks.pipeline.gpu
from benchmarks.record import conditions
conditions()
"""
    done = run("-c", code)
    assert done.returncode == 0, done.stderr


def test_the_page_shows_what_was_measured_on_a_gpu(quick, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    figures = importlib.import_module("speed_figures")
    monkeypatch.setattr(figures, "read", lambda name: None)
    assert "python -m benchmarks gpu" in figures.gpu()
    monkeypatch.setattr(figures, "read", lambda name: quick[name])
    shown = figures.gpu()
    for section in quick["gpu"]["results"]:
        assert f"`{section}`:\n\n| " in shown
    batch = quick["gpu"]["results"]["encoder"]["encoders"][0]["batches"][0]
    assert f"| {figures.show(batch['product']['tflop_per_s'])} |" in shown


def test_the_page_is_what_the_results_give():
    done = run("docs/make_speed.py", "--check")
    assert done.returncode == 0, done.stderr
    page = (ROOT / "docs" / "speed.md").read_text()
    assert not [line for line in page.splitlines() if line.startswith("<!--=")]
    for picture in re.findall(r"\(images/([\w.-]+)\)", page):
        assert (ROOT / "docs" / "images" / picture).is_file()
