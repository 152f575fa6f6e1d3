"""ProMerge on photographs that scikit-image carries: ``promerge demo`` and ``make demo``."""

from __future__ import annotations

import json
import shutil
import sys
import time
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promerge_fo.dataset.runs.model import ProMergeModel

__all__ = ["PHOTOGRAPHS", "add_outlines", "run"]

#: Files of scikit-image's wheel (CC0 and public domain), and the name that each takes here.
PHOTOGRAPHS = {
    "astronaut.png": "astronaut",
    "chelsea.png": "cat",
    "coffee.png": "coffee",
    "rocket.jpg": "rocket",
    "motorcycle_left.png": "motorcycle",
    "camera.png": "photographer",
}
DATASET = "promerge-demo"


def run(folder: Path, encoder: str | None = None) -> int:
    """Segment the photographs into the dataset ``promerge-demo``, and show what came out.

    Its field ``ground_truth`` has their objects' outlines, to evaluate and to compare with.

    Args:
        folder: where the photographs and the picture go.
        encoder: an encoder's name; None takes DINO, or, where its weights cannot be had, the
            texture encoder, and prints a warning.

    Returns:
        The exit status: 0 where every photograph was segmented.
    """
    from promerge_fo.dataset.runs.segment import segment_dataset
    from promerge_fo.dataset.samples import open_source

    photographs = folder / "photographs"
    photographs.mkdir(parents=True, exist_ok=True)
    import skimage

    source = Path(skimage.__file__).parent / "data"
    for file, name in PHOTOGRAPHS.items():
        target = photographs / f"{name}{Path(file).suffix}"
        if not target.exists():
            shutil.copyfile(source / file, target)

    model = _model(encoder)
    dataset = open_source(str(photographs), DATASET)
    add_outlines(dataset)
    started = time.perf_counter()
    report = segment_dataset(dataset, model, "promerge", overwrite=True)
    seconds = time.perf_counter() - started
    picture = folder / "promerge-demo.png"
    _show(dataset, picture, f"ProMerge, encoder {model.pipeline.encoder.name}")
    print(f"{report}, {seconds:.1f} s in all")
    print(f"picture:  {picture.resolve()}")
    fiftyone = Path(sys.executable).parent / "fiftyone"
    print(f"the App:  {fiftyone} app launch {DATASET} --address 127.0.0.1")
    return 1 if report.counts.get("failed") else 0


def add_outlines(dataset: Any) -> None:
    """Give photographs a field ``ground_truth`` with the outlines of their objects.

    ``outlines.json`` has them, drawn by hand: of each photograph the polygons (x, y in pixels) by
    name, from back to front. What of an object another one hides is not in its mask.

    Args:
        dataset: of :data:`PHOTOGRAPHS`, whose files have these names.
    """
    import fiftyone as fo
    import numpy as np
    from PIL import Image, ImageDraw

    stored = resources.files("promerge_fo").joinpath("outlines.json").read_text(encoding="utf-8")
    for sample in dataset.iter_samples(autosave=True):
        outlines = json.loads(stored)[Path(sample.filepath).stem]
        with Image.open(sample.filepath) as image:
            layers = Image.new("I", image.size)
        draw = ImageDraw.Draw(layers)
        for number, polygon in enumerate(outlines.values(), start=1):
            draw.polygon([(x, y) for x, y in polygon], fill=number)
        numbers = np.asarray(layers)
        sample["ground_truth"] = fo.Detections(
            detections=[
                fo.Detection.from_mask(numbers == number, label=name)
                for number, name in enumerate(outlines, start=1)
            ]
        )


def _model(encoder: str | None) -> ProMergeModel:
    from promerge_fo.dataset.runs.model import load_model
    from promerge_fo.encoder.weights import WeightsError

    if encoder is not None:
        return load_model(encoder=encoder)
    try:
        return load_model()
    except WeightsError:
        line = "!" * 88
        print(
            f"{line}\n"
            "DINO's weights cannot be had here: the demo runs on the TEXTURE encoder instead.\n"
            "It needs no weights and shows that everything works; its masks are NOT ProMerge's\n"
            "quality. For that: connect to the Hugging Face hub once, or\n"
            "  promerge segment DIR --checkpoint dino_vitbase8_pretrain.pth\n"
            f"{line}",
            flush=True,
        )
        return load_model(encoder="texture")


def _show(dataset: Any, picture: Path, heading: str) -> None:
    """A table of what was found, and a picture of it."""
    import numpy as np

    from promerge_fo.dataset.labels import masks_of
    from promerge_fo.figures import overview_figure, save
    from promerge_fo.images import load_image

    images, drawn, titles = [], [], []
    print(f"\n{'photograph':<14}{'size':>12}{'masks':>7}{'scores':>16}{'covered':>9}  status")
    for sample in dataset.sort_by("filepath"):
        image = load_image(sample.filepath)
        labels = sample["promerge"]
        masks = masks_of(labels, (image.shape[0], image.shape[1]))
        scores = np.array([d.confidence for d in labels.detections])
        name = Path(sample.filepath).stem
        span = f"{scores.min():.2f} to {scores.max():.2f}" if len(scores) else "-"
        covered = masks.any(axis=0).mean() if len(masks) else 0.0
        size = f"{image.shape[1]} x {image.shape[0]}"
        print(f"{name:<14}{size:>12}{len(masks):>7}{span:>16}{covered:>9.0%}  {labels.status}")
        images.append(image)
        drawn.append(masks)
        titles.append(f"{name}: {len(masks)} mask{'s' * (len(masks) != 1)}")
    print()
    save(overview_figure(images, drawn, titles, heading), picture)
