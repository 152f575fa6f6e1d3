"""Make the pictures of the guides: python docs/make_figures.py, in a checkout.

The photographs are scikit-image's; the encoder is the weight-free one unless another is named.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import fiftyone as fo
from PIL import Image

from promerge_fo.config import MaskCutConfig, ProMergeConfig
from promerge_fo.demo import DATASET
from promerge_fo.demo import run as run_demo
from promerge_fo.encoder import load_encoder
from promerge_fo.figures import explain_image, save
from promerge_fo.pipeline import Pipeline

IMAGES = Path(__file__).parent / "images"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--encoder", default="texture")
    encoder = parser.parse_args().encoder
    with tempfile.TemporaryDirectory() as folder:
        run_demo(Path(folder), encoder)
        coffee = Path(folder) / "photographs" / "coffee.png"
        for name, config in (("coffee", ProMergeConfig()), ("maskcut", MaskCutConfig())):
            path = IMAGES / f"explain-{name}.png"
            save(explain_image(coffee, Pipeline(load_encoder(encoder), config)), path)
            shrink(path, 1200)
        picture = Path(folder) / "promerge-demo.png"
        picture.replace(IMAGES / "demo.png")
        shrink(IMAGES / "demo.png", 1200)
        fo.delete_dataset(DATASET)


def shrink(path: Path, width: int) -> None:
    """A picture of 256 colours: these pages have few, and small files."""
    image = Image.open(path).convert("RGB")
    size = (width, round(image.height * width / image.width))
    image.resize(size, Image.Resampling.LANCZOS).quantize(256).save(path, optimize=True)


if __name__ == "__main__":
    main()
