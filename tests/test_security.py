"""The promises of SECURITY.md."""

from __future__ import annotations

import ast
import json
import pickle
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
SOURCES = [
    path
    for part in ("promerge_fo", "plugin", "operators")
    for path in sorted((ROOT / part).rglob("*.py"))
] + [ROOT / "__init__.py"]


class Executed:
    """Leaves a trace where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def test_a_checkpoint_s_code_is_not_executed(tmp_path):
    import torch

    from promerge_fo.encoder import WeightsError, load_encoder

    trace = tmp_path / "executed"
    torch.save({"state_dict": Executed(trace)}, tmp_path / "zip.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps({"model": Executed(trace)}, protocol=2))
    for name in ("zip.pth", "bare.pth"):
        with pytest.raises(WeightsError, match="would execute code, which is refused"):
            load_encoder("test_vit", tmp_path / name, device="cpu", image_size=64)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Executed(trace)))
    assert trace.exists()  # it would have left one


FORBIDDEN_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.execv", "os.spawnv",
    "subprocess.getoutput", "subprocess.getstatusoutput", "pickle.load", "pickle.loads",
    "pickle.Unpickler", "marshal.load", "marshal.loads", "shelve.open", "joblib.load", "yaml.load",
    "dill.load", "dill.loads", "cloudpickle.load", "cloudpickle.loads",
}  # fmt: skip


def faults(source: str) -> list[str]:
    """What a module calls that it must not."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        options = {k.arg: ast.unparse(k.value) for k in node.keywords}
        shell = options.get("shell", "False") != "False"
        text = (
            name.startswith("subprocess.") and node.args and isinstance(node.args[0], ast.JoinedStr)
        )
        starts = [ast.unparse(a) for a in node.args[:1]]
        if name in FORBIDDEN_CALLS or shell or text:
            found.append(f"{name} in line {node.lineno}")
        if name.startswith("subprocess.") and any("'sh'" in s or "'-c'" in s for s in starts):
            found.append(f"a shell in line {node.lineno}")
        if name == "torch.load" and options.get("weights_only") != "True":
            found.append(f"torch.load in line {node.lineno}")
        if name in ("np.load", "numpy.load") and options.get("allow_pickle", "False") != "False":
            found.append(f"{name} in line {node.lineno}")
    return found


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)", "os.system('ls')", "subprocess.run(command, shell=True)",
        "subprocess.run(['sh', '-c', text])", "subprocess.run(f'ls {x}')", "pickle.loads(data)",
        "torch.load(path)", "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
    ],
)  # fmt: skip
def test_what_is_forbidden_is_found(line):
    assert faults(line)


def test_there_is_no_shell_no_pickle_and_no_code_from_text():
    assert len(SOURCES) > 80
    assert {str(p.relative_to(ROOT)): f for p in SOURCES if (f := faults(p.read_text()))} == {}


OUTSIDE = ["../secret.png", "/etc/hostname", "a/../../secret.png", "..\\secret.png", "C:\\x.png"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_an_annotation_file_opens_nothing_outside_of_its_folder(fo, tmp_path, name):
    from promerge_fo.dataset.evaluation.benchmark_sets import load_benchmark
    from promerge_fo.detector.annotations import read_annotations

    root = tmp_path / "root"
    (root / "val2017").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    Image.new("RGB", (4, 4)).save(root / "secret.png")
    image = {"id": 1, "file_name": name, "height": 4, "width": 4}
    content = {"images": [image], "annotations": [], "categories": []}
    (root / "instances_val2017.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="leads out of the folder of the images"):
        load_benchmark("coco2017", root, "outside")
    assert not fo.dataset_exists("outside")

    apart = tmp_path / "sa1b"
    apart.mkdir()
    (apart / "sa_1.json").write_text(
        json.dumps({"image": {**image, "image_id": 1}, "annotations": []})
    )
    with pytest.raises(ValueError, match="leads out of the folder of the images"):
        load_benchmark("sa1b", apart, "outside")
    assert not fo.dataset_exists("outside")

    with pytest.raises(ValueError, match="leads out of the folder of the images"):
        read_annotations(root / "instances_val2017.json", root / "val2017")


@pytest.mark.parametrize("name", OUTSIDE)
def test_predictions_reach_only_images_of_the_dataset(fo, dataset, tmp_path, monkeypatch, name):
    """Names are looked up among the samples; not even their existence is asked of the disk."""
    from promerge_fo.dataset import sizes
    from promerge_fo.dataset.exchange.imports import import_predictions

    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    inside = tmp_path / "images" / "a.png"
    inside.parent.mkdir()
    Image.new("RGB", (4, 4)).save(inside)
    dataset.add_sample(fo.Sample(filepath=str(inside)))
    box = {"category_id": 1, "bbox": [0, 0, 2, 2], "score": 0.5}
    entries = [{"image_id": name, **box}, {"image_id": "a.png", **box}]
    file = tmp_path / "predictions.json"
    file.write_text(json.dumps(entries))
    opened = []
    read = sizes.read_header
    monkeypatch.setattr(sizes, "read_header", lambda path: opened.append(path) or read(path))
    report = import_predictions(dataset, file, "predicted")
    assert (report.labels, report.unmatched, report.unmatched_ids) == (1, 1, (name,))
    assert opened == [str(inside)]
    assert len(dataset) == 1


def test_masks_of_files_are_checked_against_their_image():
    from promerge_fo.annotations.untrusted_masks import EntryError
    from promerge_fo.dataset.stored_labels import label_document

    rle = {"size": [4, 4], "counts": [2, 3, 11]}
    assert label_document({"segmentation": rle}, (4, 4), 0.5, "fg")["area"] == 3 / 16
    for wrong in (
        {**rle, "counts": [2, 30, 11]},
        {**rle, "size": [400, 400]},
        {**rle, "counts": "~"},
    ):
        with pytest.raises(EntryError):
            label_document({"segmentation": wrong}, (4, 4), 0.5, "fg")


def test_a_shard_with_masks_that_are_none_is_set_aside(fo, dataset, tmp_path):
    from tests.needs import need

    need("pyarrow", "pip install 'promerge-fo[cluster]'")
    from promerge_fo.cluster.driver import _ShardMerger
    from promerge_fo.cluster.shards import write_shard
    from promerge_fo.dataset.labels import declare_field

    dataset.add_sample(fo.Sample(filepath="/a.png"))
    declare_field(dataset, "promerge")
    row = {
        "filepath": "/a.png", "height": 4, "width": 4, "status": "ok", "error": None,
        "scores": [0.5], "counts": ["oooo"],
    }  # fmt: skip
    write_shard(tmp_path / "a.parquet", [row], {"run_hash": "0" * 16})
    todo = {"/a.png": None}
    with _ShardMerger(dataset, "promerge", "0" * 16, tmp_path, 0) as merger:
        assert merger.merge("a.parquet", todo) == 0
    assert todo == {"/a.png": None}
    assert [path.name for path in tmp_path.iterdir()] == ["a.damaged"]
    assert dataset.count("promerge.detections") == 0


def test_the_demo_s_app_listens_on_this_machine_alone(fo, tmp_path, capsys):
    from promerge_fo.demo import DATASET, run

    run(tmp_path, "texture")
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("the App:")]
    command = line.removeprefix("the App:").split()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = subprocess.Popen(
        [*command, "--port", str(port), "--remote", "--wait", "-1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 90
        while not (bound := addresses(port)) and time.monotonic() < until:
            time.sleep(0.2)
        assert bound == {"127.0.0.1"}
    finally:
        app.terminate()
        app.wait()
        fo.delete_dataset(DATASET)


def addresses(port: int) -> set[str]:
    """Addresses on which this machine listens at a port (Linux)."""
    if not sys.platform.startswith("linux"):
        pytest.skip("/proc/net is Linux's")
    found = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        path = Path("/proc/net", table)
        for row in path.read_text().splitlines()[1:] if path.exists() else ():
            address, state = row.split()[1], row.split()[3]
            host, number = address.split(":")
            if state == "0A" and int(number, 16) == port:
                words = np.frombuffer(bytes.fromhex(host), ">u4").astype("<u4").tobytes()
                found.add(socket.inet_ntop(family, words))
    return found


def test_ray_reports_nothing_where_we_start_it(monkeypatch):
    from tests.needs import need

    ray = need("ray", "pip install 'promerge-fo[cluster]'")
    import os

    from promerge_fo.cluster import driver

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    with driver._ray_session(None):
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    with driver._ray_session(None):
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"
