"""Embeddings in FiftyOne's own tools: the Embeddings panel's map, and sorting by similarity."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import fiftyone.brain as fob
import numpy as np

from promerge_fo.dataset.classes.embeddings import read_embeddings
from promerge_fo.dataset.classes.similarity import InstanceSimilarityConfig
from promerge_fo.dataset.database import root_dataset
from promerge_fo.dataset.samples import whole_images_of

__all__ = ["map_instances"]

_FEWEST = 2  # masks that a plane has a direction for
_TSNE = {"perplexity": 30.0, "pca_dims": 50}  # Brain's, for masks enough


def map_instances(
    samples: Any,
    label_field: str = "promerge",
    *,
    brain_key: str | None = None,
    method: str | None = None,
    seed: int | None = 51,
    **kwargs: Any,
) -> Any:
    """Hand the embeddings of masks to FiftyOne Brain, for the App's own tools.

    ``compute_visualization`` makes a map in the plane: the App's Embeddings panel shows it, and a
    lasso around points selects these masks in the grid. ``compute_similarity`` makes an index: the
    App then sorts the patches by how much they are like one of them. Both runs replace those of an
    earlier call.

    Args:
        samples: a dataset, or a view whose masks are to be mapped; the index is always that of all
            masks of the field.
        label_field: a field of detections with embeddings.
        brain_key: of the map, ``FIELD_map`` by default; the index has ``_similarity`` after it.
        method: of ``compute_visualization``: ``"umap"``, ``"tsne"`` or ``"pca"``, of which the
            first needs the package umap-learn. None takes it where it is installed, else ``"pca"``.
        seed: of the method.
        kwargs: further arguments of ``compute_visualization``.

    Returns:
        The map, a ``fiftyone.brain.VisualizationResults``.

    Raises:
        ValueError: as :func:`~promerge_fo.dataset.read_embeddings`; fewer than two masks; or the
            dataset has another brain run with one of the keys.
        ImportError: ``"umap"`` without umap-learn.
    """
    samples = whole_images_of(samples)
    found = read_embeddings(samples, label_field)
    if len(found) < _FEWEST:
        raise ValueError(f"one mask of {label_field!r} makes no map; at least {_FEWEST} are wanted")
    method = method or ("umap" if find_spec("umap") else "pca")
    if method == "tsne":  # scikit-learn wants fewer neighbours and axes than Brain asks for
        most = {"perplexity": (len(found) - 1) / 3, "pca_dims": min(found.vectors.shape)}
        kwargs = {name: min(value, most[name]) for name, value in _TSNE.items()} | kwargs
    key = brain_key or f"{label_field}_map"
    similarity = f"{key}_similarity"
    _make_room(samples, label_field, {key: "visualization", similarity: "similarity"})
    starts = np.flatnonzero(found.sample_ids[1:] != found.sample_ids[:-1]) + 1
    of_samples = np.split(found.vectors, starts)
    by_sample = dict(zip(found.sample_ids[[0, *starts]].tolist(), of_samples, strict=True))
    results = fob.compute_visualization(
        _with_embeddings_only(samples, label_field, set(found.label_ids.tolist())),
        patches_field=label_field,
        embeddings=by_sample,
        brain_key=key,
        method=method,
        seed=seed,
        **kwargs,
    )
    fob.compute_similarity(
        root_dataset(samples),
        patches_field=label_field,
        embeddings=False,  # the index reads them itself
        brain_key=similarity,
        backend=InstanceSimilarityConfig,
    )
    return results


def _make_room(samples: Any, label_field: str, kinds: Mapping[str, str]) -> None:
    """Delete earlier runs of ours with these keys, and no others."""
    dataset = root_dataset(samples)
    there = [key for key in kinds if dataset.has_brain_run(key)]
    for key in there:
        config = dataset.get_brain_info(key).config
        if (config.type, getattr(config, "patches_field", None)) != (kinds[key], label_field):
            raise ValueError(
                f"{dataset.name!r} has another brain run {key!r}; give another brain_key, or "
                "delete it"
            )
    for key in there:
        dataset.delete_brain_run(key)


def _with_embeddings_only(samples: Any, label_field: str, labels: set[str]) -> Any:
    """The samples without the labels that have no embedding, if there are such labels."""
    ids = samples.values(f"{label_field}.detections.id", unwind=True)
    without = [label for label in ids if label not in labels]
    if not without:
        return samples
    return samples.exclude_labels(ids=without, fields=label_field, omit_empty=False)
