"""Masks of known kinds with embeddings, made without images or an encoder."""

from __future__ import annotations

import numpy as np

from promerge_fo.dataset.classes.stored_vectors import Embedded, write_embeddings
from promerge_fo.dataset.database import documents
from promerge_fo.dataset.labels import to_detections
from promerge_fo.instances import Instances

FIELD = "promerge"
RUN = "0123456789abcdef"
KINDS = ("cat", "dog", "car")
IMAGES = 20


def fill(dataset, fo):
    """Add images of three masks, one of each kind in the order of :data:`KINDS`, to a dataset."""
    samples = []
    for number in range(IMAGES):
        masks = np.zeros((3, 12, 12), dtype=bool)
        for kind in range(3):
            masks[kind, 4 * kind : 4 * kind + 3, 2 : 4 + number % 5] = True
        labels = to_detections(Instances(masks, np.ones(3, np.float32)), RUN)
        metadata = fo.ImageMetadata(width=12, height=12)
        samples.append(
            fo.Sample(filepath=f"/images/{number}.png", metadata=metadata, promerge=labels)
        )
    dataset.add_samples(samples)


def vectors(noise=0.1, seed=0):
    """Vectors (images, masks, 8) about a direction for each kind."""
    rng = np.random.default_rng(seed)
    return np.eye(3, 8) + noise * rng.standard_normal((IMAGES, 3, 8))


def embed(dataset, given):
    """Store vectors (images, masks, d) as the embeddings of a dataset's masks."""
    stored = list(documents(dataset, {}, FIELD))
    images = [
        Embedded(each["_id"], each[FIELD]["detections"], np.asarray(vector, dtype=np.float32))
        for each, vector in zip(stored, given, strict=True)
    ]
    write_embeddings(dataset, FIELD, {"name": "double"}, images)


def labels_of(samples):
    """The labels by their ids, in stored order."""
    samples.reload()
    return {label.id: label for sample in samples for label in sample[FIELD].detections}


def kinds_of(samples):
    """The kind of each label, by its id."""
    return {i: KINDS[place % 3] for place, i in enumerate(labels_of(samples))}
