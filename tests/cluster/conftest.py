"""A run on Ray and the same run without it."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def recipe(fo):
    """The texture encoder at a small size, which keeps every mask that it finds."""
    from promerge_fo.cluster import Recipe
    from promerge_fo.config import ProMergeConfig
    from promerge_fo.dataset.runs.model import load_model

    config = ProMergeConfig(image_size=96, min_refined_iou=0)
    return Recipe(load_model(encoder="texture", config=config).pipeline.identity())


@pytest.fixture(scope="session")
def run(recipe):
    """The run hash."""
    from promerge_fo.config import run_hash

    return run_hash(recipe.identity)


@pytest.fixture
def labels_of(fo):
    """All that a field says of each image, but for the ids of its labels."""

    def read(dataset, field):
        dataset.reload()
        found = {}
        for document in dataset._sample_collection.find({}):
            labels = document.get(field)
            for label in (labels or {}).get("detections", []):
                del label["_id"]
            assert document["filepath"] not in found
            found[document["filepath"]] = labels
        return found

    return read
