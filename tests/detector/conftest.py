"""Annotations of small images, and detectron2 where it is installed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask


def rle(mask: np.ndarray) -> dict:
    """COCO's compressed RLE of a mask, as JSON holds it."""
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode("ascii")}


def decoded(segmentation: dict) -> np.ndarray:
    """The mask (H, W) bool of an RLE."""
    return coco_mask.decode(segmentation).astype(bool)


def write_coco(path, images, masks, categories=(), of=None) -> None:
    """A COCO file of masks (image id, (H, W) bool), and categories (id, name); ``of`` has ids."""
    annotations = [
        {"id": k + 1, "image_id": i, "category_id": c, "iscrowd": 0, "segmentation": rle(m)}
        for k, ((i, m), c) in enumerate(zip(masks, of or [1] * len(masks), strict=True))
    ]
    named = [{"id": number, "name": name} for number, name in categories]
    content = {"images": images, "annotations": annotations, "categories": named}
    path.write_text(json.dumps(content))


@pytest.fixture(scope="session")
def detectron2():
    """The module; where it is missing, the test is skipped, in CI too, which does not build it."""
    reason = "detectron2 is not installed; docs/detector.md says how to build it"
    return pytest.importorskip("detectron2", reason=reason)


@pytest.fixture
def squares(tmp_path):
    """An annotation file of three images (48 x 64), each with a bright square or two."""
    images, masks = [], []
    for k in range(3):
        pixels = np.full((48, 64, 3), 40, dtype=np.uint8)
        for j in range(1 + k % 2):
            mask = np.zeros((48, 64), dtype=bool)
            mask[8 + 4 * k : 24 + 4 * k, 6 + 30 * j : 22 + 30 * j] = True
            pixels[mask] = [200, 80 + 40 * k, 60 * j]
            masks.append((10 * (k + 1), mask))
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
        images.append({"id": 10 * (k + 1), "file_name": f"{k}.png", "height": 48, "width": 64})
    path = tmp_path / "squares.json"
    write_coco(path, images, masks)
    return path
