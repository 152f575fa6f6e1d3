from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from promerge_fo import dataset as pfo
from promerge_fo.config import ProMergeConfig
from promerge_fo.instances import Instances


@pytest.fixture(scope="session")
def model(fo):
    """The texture encoder's model at a small size, which keeps every mask that it finds."""
    config = ProMergeConfig(image_size=160, min_refined_iou=0)
    return pfo.load_model(encoder="texture", config=config)


@pytest.fixture(scope="session")
def expected(model, photographs):
    """The masks of each photograph when it is segmented alone."""
    results = [model.pipeline([path])[0] for path in photographs]
    assert all(r.status == "ok" and len(r) > 0 for r in results)
    return [r.masks for r in results]


@pytest.fixture
def filled(fo, dataset, model, photographs):
    """A dataset with the photographs' masks in the field "promerge"."""
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    dataset.apply_model(model, label_field="promerge", batch_size=4, num_workers=0)
    return dataset


SIZES = ((40, 60), (50, 30), (24, 24))


@pytest.fixture
def scenes(fo, dataset, tmp_path):
    """Nine images of three sizes in three folders, whose files share names, with seeded masks.

    The field "promerge" has two to four ragged masks an image, each with a hole or in two parts
    now and then, in the order of falling confidence.
    """
    rng = np.random.default_rng(7)
    for folder in ("a", "b", "b/c"):
        (tmp_path / "photos" / folder).mkdir(parents=True, exist_ok=True)
        for number, (height, width) in enumerate(SIZES):
            path = tmp_path / "photos" / folder / f"{number}.png"
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
            count = int(rng.integers(2, 5))
            masks = np.zeros((count, height, width), dtype=bool)
            for mask in masks:
                for _ in range(2):
                    y, x = rng.integers(0, height - 8), rng.integers(0, width - 8)
                    h, w = rng.integers(4, height - y + 1), rng.integers(4, width - x + 1)
                    mask[y : y + h, x : x + w] = rng.random((h, w)) < 0.9
            scores = np.sort(rng.random(count).astype(np.float32))[::-1]
            labels = pfo.to_detections(Instances(masks, scores), run="0123456789abcdef")
            metadata = fo.ImageMetadata(width=width, height=height)
            dataset.add_sample(fo.Sample(filepath=str(path), metadata=metadata, promerge=labels))
    return dataset
