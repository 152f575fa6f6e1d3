"""The examples in docstrings and in README.md run, and print what they show.

This reads docstrings itself: ``pytest --doctest-modules`` would import each file under a second
name, because there is an ``__init__.py`` at the root of the repository, and could give examples a
dataset only from a conftest.py there or in the package.
"""

from __future__ import annotations

import doctest
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from skimage import data

from promerge_fo.instances import Instances
from tests.needs import need

ROOT = Path(__file__).parents[1]
FILES = [path for path in ROOT.glob("promerge_fo/**/*.py") if ">>> " in path.read_text("utf-8")]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in FILES
)
README = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
NEEDS_NETWORK = "foz.register_zoo_model_source("  # the one block that is not run


class Checker(doctest.OutputChecker):
    """What an example does not show is not compared."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return not want or super().check_output(want, got, optionflags)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    """The texture encoder in place of every vision transformer, whose weights are not here."""

    def texture(name, checkpoint, facet, device, precision, image_size, resize, *others):
        from promerge_fo.encoder.texture import TextureEncoder

        return TextureEncoder(device, image_size, resize)

    monkeypatch.setattr("promerge_fo.encoder.vit.VitEncoder", texture)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def make_dataset(fo, photographs) -> Callable[[], Any]:
    """Makes datasets of four photographs with drawn masks.

    "ground_truth" and "promerge" have two on each image, the second of which is a bad match;
    "maskcut" has one.
    """
    from promerge_fo.dataset import to_detections

    def labels(size: tuple[int, int], *extents: tuple[float, float, float, float]) -> Any:
        h, w = size
        masks = np.zeros((len(extents), h, w), dtype=bool)
        for mask, (top, left, bottom, right) in zip(masks, extents, strict=True):
            mask[round(top * h) : round(bottom * h), round(left * w) : round(right * w)] = True
        scores = np.array([0.9, 0.4][: len(masks)], dtype=np.float32)
        return to_detections(Instances(masks, scores), run="0123456789abcdef")

    def make() -> Any:
        dataset = fo.Dataset()
        dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
        dataset.compute_metadata()
        for sample in dataset.iter_samples(autosave=True):
            size = sample.metadata.height, sample.metadata.width
            good, bad = (0.1, 0.1, 0.5, 0.5), (0.6, 0.3, 0.9, 0.6)
            sample["ground_truth"] = labels(size, good, (0.6, 0.5, 0.9, 0.9))
            sample["promerge"] = labels(size, good, bad)
            sample["maskcut"] = labels(size, bad)
        return dataset

    return make


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str, request: pytest.FixtureRequest):
    module = need(name, "its examples cannot run without it")
    runner = doctest.DocTestRunner(Checker(), verbose=False, optionflags=doctest.ELLIPSIS)
    output: list[str] = []
    for docstring in doctest.DocTestFinder().find(module, name):
        if re.search(r"\b(dataset|session|label)\b", "".join(e.source for e in docstring.examples)):
            dataset = request.getfixturevalue("make_dataset")()
            ids = dataset.values("promerge.detections.id", unwind=True)
            if ".classes." in name:
                from promerge_fo import dataset as pfo

                pfo.embed_instances(dataset, "promerge", encoder="texture")
                pfo.name_instances(dataset, "promerge", "cat", ids[:1])
            docstring.globs.update(
                dataset=dataset,
                label=dataset.first().promerge.detections[0],
                session=SimpleNamespace(view=dataset.view(), selected=ids[:3]),  # of the App
            )
        runner.run(docstring, out=output.append)
    assert runner.failures == 0, "".join(output)
    assert runner.tries > 0


def test_readme(make_dataset):
    dataset = make_dataset()
    dataset.name = "my-dataset"
    dataset.delete_sample_field("promerge")
    names: dict[str, Any] = {"image": data.coffee()}
    run = [block for block in README if NEEDS_NETWORK not in block]
    assert len(run) == len(README) - 1 >= 4
    for block in run:
        exec(block, names)
    dataset.reload()
    assert len(dataset.exists("promerge")) == len(dataset)
    assert names["results"].metrics()["segm"]["AP"] >= 0
    assert names["refined"].masks.shape[1:] == names["image"].shape[:2]
    dataset.delete()
