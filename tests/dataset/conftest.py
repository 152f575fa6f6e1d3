from __future__ import annotations

import pytest

from promerge_fo import ProMergeConfig
from promerge_fo import dataset as pfo


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
