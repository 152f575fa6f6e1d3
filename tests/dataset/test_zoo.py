"""The repository as a remote source of zoo models."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import promerge_fo

ROOT = Path(promerge_fo.__file__).parents[1]
MODELS = [
    "promerge-dino-vitb8", "promerge-dino-vits16", "promerge-dino-vits8", "promerge-dinov2-vitb14",
    "promerge-dinov2-vits14", "promerge-dinov3-vitb16", "promerge-dinov3-vits16",
    "promerge-texture",
]  # fmt: skip


@pytest.fixture(scope="module")
def zoo(fo, tmp_path_factory):
    """FiftyOne's zoo, with an archive of the repository registered as a source."""
    import fiftyone.zoo as foz

    folder = tmp_path_factory.mktemp("server")
    sources = ROOT.glob("promerge_fo/**/*.py")
    with zipfile.ZipFile(folder / "promerge.zip", "w") as archive:
        for path in [ROOT / "manifest.json", ROOT / "__init__.py", *sources]:
            archive.write(path, Path("promerge") / path.relative_to(ROOT))
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        patch.setenv("no_proxy", "127.0.0.1")
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = f"http://127.0.0.1:{server.server_port}/promerge.zip"
        foz.register_zoo_model_source(source)
        server.shutdown()
    yield foz
    foz.delete_zoo_model_source(source)


def test_the_manifest_lists_the_models(zoo):
    assert [name for name in zoo.list_zoo_models() if name.startswith("promerge-")] == MODELS
    module = repository_module()
    assert sorted(module.ENCODERS) == MODELS


def test_the_manifest_has_the_package_s_requirements():
    models = json.loads((ROOT / "manifest.json").read_text())["models"]
    listed = (ROOT / "requirements.txt").read_text().split()
    assert [model["requirements"]["packages"] for model in models] == [listed] * len(MODELS)


def test_the_app_asks_for_what_models_take(fo, zoo):
    from fiftyone.operators.executor import ExecutionContext

    def asked(name):
        made = repository_module().resolve_input(name, ExecutionContext())
        return made.type.properties

    form = asked("promerge-dino-vitb8")
    assert list(form) == ["preset", "facet", "device"]
    assert form["preset"].default == "default"
    assert form["preset"].type.values == ["default", "official", "paper", "fast", "proposals"]
    assert form["facet"].type.values == ["key", "query", "value", "token", "normed_token"]
    assert form["facet"].default is form["device"].default is None
    assert not any(each.required for each in form.values())
    assert asked("promerge-dino-vits16")["preset"].default == "fast"
    assert list(asked("promerge-texture")) == ["preset", "device"]
    model = zoo.load_zoo_model("promerge-texture", preset="paper", device="cpu")
    assert model.config.score == "constant"


def test_the_texture_model_needs_no_download(fo, zoo, dataset, photographs):
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    model = zoo.load_zoo_model("promerge-texture", image_size=160)
    dataset.apply_model(model, label_field="promerge", batch_size=4, num_workers=0)
    counts = dataset.count_values("promerge.status")
    assert "ok" in counts and "failed" not in counts and sum(counts.values()) == 4


def test_a_downloaded_model_is_loaded_from_its_file(fo, zoo, dataset, photographs):
    import hashlib

    import timm
    import torch
    from safetensors.torch import save_file

    path = Path(zoo.get_zoo_model("promerge-dino-vits16").get_path_in_dir(fo.config.model_zoo_dir))
    torch.manual_seed(0)
    network = timm.create_model("vit_small_patch16_224.dino", pretrained=False)
    save_file(network.state_dict(), path)
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    model = zoo.load_zoo_model("promerge-dino-vits16", image_size=160, device="cpu")
    assert model.config.stride == 2
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert model.pipeline.encoder.weights_sha256 == sha256
    dataset.apply_model(model, label_field="promerge", batch_size=4, num_workers=0)
    assert "failed" not in dataset.count_values("promerge.status")
    assert len(dataset.exists("promerge")) == 4


@pytest.mark.parametrize(
    ("name", "encoder", "size"),
    [
        ("promerge-dinov2-vits14", "vit_small_patch14_reg4_dinov2", 154),
        ("promerge-dinov3-vits16", "vit_small_patch16_dinov3", 160),
    ],
)
def test_later_models_are_calibrated_on_the_images(
    fo, zoo, dataset, photographs, name, encoder, size
):
    import timm
    import torch
    from safetensors.torch import save_file

    path = Path(zoo.get_zoo_model(name).get_path_in_dir(fo.config.model_zoo_dir))
    torch.manual_seed(0)
    save_file(timm.create_model(encoder, pretrained=False, num_classes=0).state_dict(), path)
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    model = zoo.load_zoo_model(name, image_size=size, device="cpu", facet="token", block=3)
    assert model.calibrate(dataset.values("filepath")).facet == "token"
    assert model.config.tau_b == model.pipeline.calibration.parameters["tau_b"]
    dataset.apply_model(model, label_field="promerge", batch_size=4, num_workers=0)
    assert "failed" not in dataset.count_values("promerge.status")
    assert dataset.count_values("promerge.run") == {model.hash: 4}


def test_weights_are_the_hubs_own_file(tmp_path, monkeypatch):
    import huggingface_hub

    def hf_hub_download(repository, filename):
        path = tmp_path / "cache"
        path.write_text(f"{repository}/{filename}")
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    target = tmp_path / "dino-vitb8.safetensors"
    repository_module().download_model("promerge-dino-vitb8", str(target))
    assert target.read_text() == "timm/vit_base_patch8_224.dino/model.safetensors"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", target.name]


def test_the_source_is_light_until_it_is_used(tmp_path):
    code = (
        "import runpy, sys; runpy.run_path(sys.argv[1]); import promerge_fo;"
        "assert not {'torch', 'fiftyone', 'timm'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(ROOT / "__init__.py")]
    subprocess.run(command, check=True, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"})


def repository_module():
    spec = importlib.util.spec_from_file_location("promerge_zoo_source", ROOT / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
