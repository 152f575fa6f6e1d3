"""Groups and names of 200,000 masks; and what groups have to do with COCO's classes, where given.

python -m benchmarks groups --annotations ANNOTATIONS.json --images IMAGES \
    --encoder NAME --checkpoint FILE
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score

from benchmarks.database import start
from benchmarks.dataset.review import FIELD, fill
from benchmarks.memory import apart, peak_mb
from benchmarks.settings import Settings
from promerge_fo.encoder import load_encoder

MATCH = 0.5  # IoU from which a mask is that of an object
OBJECTS = "objects"  # the field with COCO's own masks and their classes
LARGEST = 20  # groups that are named
FEATURES = (
    {"facet": "token", "block": 12},
    {"facet": "query", "block": 12},
    {"facet": "value", "block": 12},
    {"facet": "key", "block": 12},
    {"facet": "token", "block": 10},
    {"facet": "token", "block": 8},
)


def run(settings: Settings) -> dict[str, Any]:
    images = settings.pick(20_000, 40)
    results = {
        "load_average_before": round(os.getloadavg()[0], 1),
        "scale": apart(f"{__name__}:of_many", images=images, dims=settings.pick(384, 16)),
    }
    if settings.annotations is not None and settings.images is not None:
        settings.save(results)
        results["coco"] = of_coco(settings, settings.annotations, settings.images)
    return results


def of_many(images: int, dims: int) -> dict[str, Any]:
    """Seconds and memory of grouping and naming many masks of thirty kinds."""
    start()
    from promerge_fo import dataset as pfo
    from promerge_fo.dataset.classes.stored_vectors import Embedded, write_embeddings
    from promerge_fo.dataset.database import documents

    dataset = fill(images)
    rng = np.random.default_rng(0)
    kinds = rng.standard_normal((30, dims))

    def embedded() -> Iterator[Embedded]:
        for each in documents(dataset, {}, FIELD):
            labels = each[FIELD]["detections"]
            given = kinds[rng.integers(30, size=len(labels))]
            noise = rng.standard_normal((len(labels), dims))
            yield Embedded(each["_id"], labels, (given + noise).astype(np.float32))

    before = peak_mb()
    seconds: dict[str, float] = {}
    groups: list[Any] = []
    found: list[Any] = []
    steps: dict[str, Callable[[], object]] = {
        "write_embeddings": lambda: write_embeddings(dataset, FIELD, {"name": "n"}, embedded()),
        "read_embeddings": lambda: pfo.read_embeddings(dataset, FIELD),
        "group_instances": lambda: groups.extend(pfo.group_instances(dataset, FIELD)),
        "list_groups": lambda: pfo.list_groups(dataset, FIELD),
        "view_group": lambda: pfo.view_group(dataset, FIELD, groups[0].name, limit=48),
        "name_groups": lambda: pfo.name_groups(dataset, FIELD, "cat", [groups[0].name]),
        "nearest_unnamed": lambda: found.append(pfo.nearest_unnamed(dataset, FIELD)),
        "propagate_names": lambda: pfo.propagate_names(dataset, FIELD, found[0]),
        "undo_names": lambda: pfo.undo_names(dataset, FIELD),
    }
    for name, step in steps.items():
        started = time.perf_counter()
        step()
        seconds[name] = round(time.perf_counter() - started, 2)
    return {
        "masks": dataset.count(f"{FIELD}.detections"),
        "dims": dims,
        "groups": len(groups),
        "largest_group": groups[0].size,
        "seconds": seconds,
        "peak_mb_before": before,
        "peak_mb": peak_mb(),
    }


def of_coco(settings: Settings, annotations: Path, images: Path) -> dict[str, Any]:
    """How groups, and names for the largest of them, agree with COCO's classes."""
    start()
    from promerge_fo.dataset import (
        embed_instances,
        import_predictions,
        load_coco,
        load_model,
        segment_dataset,
    )

    dataset = load_coco(annotations, images)
    import_predictions(dataset, annotations, OBJECTS, class_names="annotations")
    if settings.quick:
        dataset = dataset.limit(4).clone()
    base: dict[str, Any] = {"checkpoint": settings.checkpoint, "device": settings.device}
    encoder = load_encoder(settings.encoder, **base)
    segment_dataset(dataset, load_model(encoder=encoder), "promerge")
    features: Sequence[dict[str, Any]] = [{}]
    if settings.encoder != "texture":
        features = settings.pick(FEATURES, FEATURES[:1])
    truths = {field: _truth(dataset, field) for field in ("promerge", OBJECTS)}
    colours = {field: _colours(dataset, field) for field in truths}
    results: dict[str, Any] = {"images": len(dataset), "encoder": encoder.identity()}
    for given in features:
        loaded = load_encoder(settings.encoder, **base, **given)
        name = f"{given['facet']} of block {given['block']}" if given else loaded.facet
        for field in truths:
            embed_instances(dataset, field, encoder=loaded, overwrite=True)
            measured = _measure(dataset, field, truths[field], colours[field], settings)
            results.setdefault(field, []).append({"features": name, **measured})
            print(name, field, measured, flush=True)
    return results


def _measure(
    dataset: Any,
    field: str,
    truth: dict[str, str],
    colours: dict[str, NDArray[np.float64]],
    settings: Settings,
) -> dict[str, Any]:
    from promerge_fo.dataset import group_instances
    from promerge_fo.dataset.classes.masks import read_masks

    started = time.perf_counter()
    groups = group_instances(dataset, field)
    seconds = time.perf_counter() - started
    masks = read_masks(dataset, field)
    group_of = dict(zip(masks.ids.tolist(), masks.groups.tolist(), strict=True))
    matched = list(truth)  # as the images come: ids, which are random, order nothing
    classes = np.array([truth[i] for i in matched])
    found = np.array([str(group_of[i]) for i in matched])
    usable = list(colours)
    clusters = KMeans(len(groups), n_init=10, random_state=0).fit_predict(
        np.array([colours[i] for i in usable])
    )
    colour_of = dict(zip(usable, clusters.tolist(), strict=True))
    by_colour = np.array([colour_of[i] for i in matched])
    rng = np.random.default_rng(0)
    permuted = [
        adjusted_mutual_info_score(classes, rng.permutation(found))
        for _ in range(settings.pick(1000, 10))
    ]
    largest = {each.name for each in groups[:LARGEST]}
    named = np.isin(found, sorted(largest))
    return {
        "masks": len(masks),
        "matched": len(matched),
        "classes": len(set(classes.tolist())),
        "groups": len(groups),
        "ungrouped": int(sum(group is None for group in masks.groups)),
        "ami": round(float(adjusted_mutual_info_score(classes, found)), 4),
        "ami_mean_colour": round(float(adjusted_mutual_info_score(classes, by_colour)), 4),
        "ami_permutations_highest": round(float(max(permuted)), 4),
        "right_by_majority": round(_majority(classes[named], found[named]), 4),
        "right_by_most_frequent": round(_majority(classes[named], np.zeros(named.sum())), 4),
        "grouping_s": round(seconds, 2),
    }


def _majority(classes: NDArray[Any], groups: NDArray[Any]) -> float:
    """The share of masks that are of the most frequent class of their group."""
    right = 0
    for group in np.unique(groups):
        _, counts = np.unique(classes[groups == group], return_counts=True)
        right += int(counts.max())
    return right / max(len(classes), 1)


def _truth(dataset: Any, field: str) -> dict[str, str]:
    """The class of the object that each mask matches best, by the ids of the labels."""
    from pycocotools import mask as coco_mask

    from promerge_fo.dataset.stored_labels import read_labels

    classes = {
        label.id: label.label
        for sample in dataset
        if sample[OBJECTS] is not None
        for label in sample[OBJECTS].detections
    }
    if field == OBJECTS:
        return classes
    found = {}
    for image in read_labels(dataset, [field, OBJECTS], progress=False):
        masks, objects = (
            [record["segmentation"] for record in image.records[each]] for each in (field, OBJECTS)
        )
        if masks and objects:
            ious = coco_mask.iou(masks, objects, [0] * len(objects))
            for i, j in enumerate(ious.argmax(axis=1).tolist()):
                if ious[i, j] >= MATCH:
                    found[image.ids[field][i]] = classes[image.ids[OBJECTS][j]]
    return found


def _colours(dataset: Any, field: str) -> dict[str, NDArray[np.float64]]:
    """The mean colour of each mask, by the ids of the labels."""
    from promerge_fo.dataset.labels import masks_of
    from promerge_fo.images import load_image

    colours = {}
    for sample in dataset:
        pixels = load_image(sample.filepath)
        labels = [] if sample[field] is None else sample[field].detections
        masks = masks_of(sample[field], pixels.shape[:2])
        for label, mask in zip(labels, masks, strict=True):
            if mask.any():
                colours[label.id] = pixels[mask].mean(axis=0)
    return colours
