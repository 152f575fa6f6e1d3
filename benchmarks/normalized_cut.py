"""MaskCut's cuts, against the same with scipy's dense eigh, on the same cores.

Only the solver differs: the graph, the choice of the foreground and all else are the same code.
"""

from __future__ import annotations

import os
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from scipy.linalg import eigh

from benchmarks.settings import Settings
from benchmarks.subjects import golden_features, photographs
from benchmarks.timing import quartiles, take_turns
from promerge_fo import MaskCutConfig, load_encoder
from promerge_fo.segment import CutTrace, normalized_cut, trace_segmentation
from promerge_fo.segment.eigenvector import Eigenvector, second_eigenvector
from promerge_fo.segment.patch_graph import PatchGraph
from promerge_fo.segment.prompting import UnitFeatures

CONFIG = MaskCutConfig.preset("official")


def run(settings: Settings) -> dict[str, Any]:
    side = settings.pick(60, 20)
    subjects = dict(list(_subjects(side).items())[: settings.pick(None, 1)])
    repetitions = settings.pick(3, 1)
    images = [_image(name, stored, repetitions, settings) for name, stored in subjects.items()]
    parts = take_turns(
        {
            name: lambda f=function: [f(stored.to(settings.device)) for stored in subjects.values()]
            for name, function in {"graph": _graph, "one_cut": _one_cut}.items()
        },
        settings.pick(7, 1),
        settings.device,
    )
    return {
        "cuts": CONFIG.cuts,
        "patches": side**2,
        "load_average_before": round(os.getloadavg()[0], 2),
        "images": images,
        "times_faster": round(float(np.median([image["times_faster"] for image in images])), 1),
        "min_iou": min(iou for image in images for iou in image["ious"]),
        "parts": {
            name: quartiles([seconds / len(subjects) for seconds in values])
            for name, values in parts.items()
        },
    }


def _subjects(side: int) -> dict[str, torch.Tensor]:
    """Features (768, side, side): of COCO images by DINO, and of photographs without weights."""
    subjects = {f"coco {name}": stored for name, stored in golden_features(side=side).items()}
    encoder = load_encoder("texture", image_size=8 * side)
    channels = None
    for name, image in photographs((8 * side, 8 * side)).items():
        features = encoder.encode([image])[0]
        if channels is None:
            rng = np.random.default_rng(0)
            channels = np.linalg.qr(rng.standard_normal((768, len(features))))[0]
        dense = np.einsum("dc,chw->dhw", channels, features.numpy().astype(np.float64))
        subjects[name] = torch.from_numpy(dense.astype(np.float32))
    return subjects


def _image(name: str, stored: torch.Tensor, repetitions: int, settings: Settings) -> dict[str, Any]:
    features = stored.to(settings.device)
    seconds = take_turns(
        {"lanczos": lambda: _cuts(features), "dense": lambda: _dense_cuts(features)},
        repetitions,
        settings.device,
    )
    found, wanted = _cuts(features), _dense_cuts(features)
    faster = np.median(seconds["dense"]) / np.median(seconds["lanczos"])
    return {
        "image": name,
        **{solver: quartiles(values) for solver, values in seconds.items()},
        "times_faster": round(float(faster), 1),
        "ious": [
            _iou(a, b) for a, b in zip(found.instances.masks, wanted.instances.masks, strict=True)
        ],
        "products": [cut.eigenvector.products for cut in found.cuts if cut.eigenvector],
        "eigenvalues": [
            float(f"{cut.eigenvector.eigenvalue:.4g}") for cut in found.cuts if cut.eigenvector
        ],
        "verdicts": [cut.verdict for cut in found.cuts],
    }


def _cuts(features: torch.Tensor) -> CutTrace:
    return trace_segmentation(features, CONFIG)


def _dense_cuts(features: torch.Tensor) -> CutTrace:
    with patch.object(normalized_cut, "second_eigenvector", _dense):
        return _cuts(features)


def _dense(graph: PatchGraph) -> Eigenvector:
    """As the papers have it: the generalised problem, for its second eigenvector alone."""
    affinity = graph.dense()
    degrees = np.diag(affinity.sum(axis=1))
    values, vectors = eigh(degrees - affinity, degrees, subset_by_index=[1, 1])
    return Eigenvector(vectors[:, 0], float(values[0]), 0.0, 0)


def _graph(features: torch.Tensor) -> PatchGraph:
    return PatchGraph.of(UnitFeatures(features, 0.0), CONFIG.tau, CONFIG.eps)


def _one_cut(features: torch.Tensor) -> Eigenvector | None:
    return second_eigenvector(_graph(features))


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    """Of two masks; 1 where both are empty."""
    either = (a | b).sum()
    return float((a & b).sum() / either) if either else 1.0
