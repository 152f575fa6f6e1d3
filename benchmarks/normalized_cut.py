"""MaskCut's cuts, against the same with scipy's dense eigh, on the same cores.

Only the solver differs: the graph, the choice of the foreground and all else are the same code.
Both run on one thread, where the processor's time can be told as well, which other programs on the
machine change little; with --full also on all cores.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh

from benchmarks.memory import apart
from benchmarks.settings import Settings
from benchmarks.subjects import golden_features, photographs
from benchmarks.timing import quartiles, synchronise
from promerge_fo.config import MaskCutConfig
from promerge_fo.cpus import available_cpus
from promerge_fo.encoder import load_encoder
from promerge_fo.segment import CutTrace, normalized_cut, trace_segmentation
from promerge_fo.segment.eigenvector import Eigenvector, second_eigenvector
from promerge_fo.segment.patch_graph import PatchGraph
from promerge_fo.segment.prompting import UnitFeatures

CONFIG = MaskCutConfig.preset("official")
LIBRARIES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def run(settings: Settings) -> dict[str, Any]:
    counts = [1, available_cpus()] if settings.full else [1]
    return {
        "cuts": CONFIG.cuts,
        "patches": settings.pick(60, 20) ** 2,
        "threads": [
            apart(
                "benchmarks.normalized_cut:on_threads",
                dict.fromkeys(LIBRARIES, str(count)),
                count=count,
                device=settings.device,
                quick=settings.quick,
            )
            for count in dict.fromkeys(counts)
        ],
    }


def on_threads(count: int, device: str, quick: bool) -> dict[str, Any]:
    """All figures on so many threads; the libraries' own are limited by the environment."""
    torch.set_num_threads(count)
    settings = Settings(device, quick)
    busy = os.getloadavg()[0]
    side = settings.pick(60, 20)
    subjects = {name: f.to(device) for name, f in _subjects(side).items()}
    subjects = dict(list(subjects.items())[: settings.pick(None, 1)])
    images = [_image(name, features, settings) for name, features in subjects.items()]
    each = list(subjects.values())
    parts = _take_turns(
        {
            "graph": lambda: [_graph(features) for features in each],
            "one_cut": lambda: [second_eigenvector(_graph(features)) for features in each],
            "all_cuts": lambda: [_cuts(features) for features in each],
        },
        settings.pick(7, 1),
        device,
    )
    return {
        "threads": count,
        "load_average_before": round(busy, 2),
        "images": images,
        "times_faster": _middle(images, "times_faster"),
        "times_faster_by_processor_time": _middle(images, "times_faster_by_processor_time"),
        "min_iou": min(iou for image in images for iou in image["ious"]),
        "parts": {
            name: {kind: quartiles([s / len(each) for s in part]) for kind, part in found.items()}
            for name, found in parts.items()
        },
    }


def _subjects(side: int) -> dict[str, torch.Tensor]:
    """Features (768, side, side): of COCO images by DINO, and of photographs without weights."""
    subjects = {f"COCO image {n}, DINO": f for n, f in golden_features(side=side).items()}
    encoder = load_encoder("texture", image_size=8 * side)
    images = photographs((8 * side, 8 * side))
    for name in ("coffee", "chelsea"):
        features = encoder.encode([images[name]])[0].numpy().astype(np.float64)
        rng = np.random.default_rng(0)
        rotation = np.linalg.qr(rng.standard_normal((768, len(features))))[0]
        dense = np.einsum("dc,chw->dhw", rotation, features).astype(np.float32)
        subjects[f"{name}, texture"] = torch.from_numpy(dense)
    return subjects


def _image(name: str, features: torch.Tensor, settings: Settings) -> dict[str, Any]:
    found: dict[str, CutTrace] = {}

    def keep(solver: str, cuts: Callable[[torch.Tensor], CutTrace]) -> None:
        found[solver] = cuts(features)

    _cuts(features)  # dense solvers have nothing to warm up that counts beside their time
    seconds = _take_turns(
        {"lanczos": lambda: keep("lanczos", _cuts), "dense": lambda: keep("dense", _dense_cuts)},
        settings.pick(3, 1),
        settings.device,
    )
    lanczos, dense = found["lanczos"], found["dense"]
    solved = [cut.eigenvector for cut in lanczos.cuts if cut.eigenvector is not None]
    return {
        "image": name,
        **{
            solver: {kind: quartiles(values) for kind, values in kinds.items()}
            for solver, kinds in seconds.items()
        },
        "times_faster": _ratio(seconds, "wall"),
        "times_faster_by_processor_time": _ratio(seconds, "processor"),
        "ious": list(map(_iou, lanczos.instances.masks, dense.instances.masks)),
        "patches": lanczos.instances.areas.tolist(),
        "products": [vector.products for vector in solved],
        "eigenvalues": [float(f"{vector.eigenvalue:.4g}") for vector in solved],
        "verdicts": [cut.verdict for cut in lanczos.cuts],
    }


def _take_turns(
    functions: Mapping[str, Callable[[], object]], repetitions: int, device: str
) -> dict[str, dict[str, list[float]]]:
    """Seconds by the clock on the wall and by the processor's, of functions that take turns."""
    seconds: dict[str, dict[str, list[float]]] = {
        name: {"wall": [], "processor": []} for name in functions
    }
    for _ in range(repetitions):
        for name, function in functions.items():
            synchronise(device)
            wall, processor = time.perf_counter(), time.process_time()
            function()
            synchronise(device)
            seconds[name]["wall"].append(time.perf_counter() - wall)
            seconds[name]["processor"].append(time.process_time() - processor)
    return seconds


def _cuts(features: torch.Tensor) -> CutTrace:
    return trace_segmentation(features, CONFIG)


def _dense_cuts(features: torch.Tensor) -> CutTrace:
    """As the papers and their released code have it."""
    with (
        patch.object(normalized_cut, "second_eigenvector", _dense),
        patch.object(normalized_cut, "lapack_sign", lambda graph, x: 1),
    ):
        return _cuts(features)


def _dense(graph: PatchGraph) -> Eigenvector:
    """The generalised problem, for its second eigenvector alone, with the sign as it comes."""
    affinity = graph.dense()
    degrees = np.diag(affinity.sum(axis=1))
    values, vectors = eigh(degrees - affinity, degrees, subset_by_index=[1, 1])
    return Eigenvector(vectors[:, 0], float(values[0]), 0.0, 0)


def _graph(features: torch.Tensor) -> PatchGraph:
    return PatchGraph.of(UnitFeatures(features, 0.0), CONFIG.tau, CONFIG.eps)


def _ratio(seconds: dict[str, dict[str, list[float]]], kind: str) -> float:
    return round(float(np.median(seconds["dense"][kind]) / np.median(seconds["lanczos"][kind])), 1)


def _middle(images: list[dict[str, Any]], key: str) -> float:
    return round(float(np.median([image[key] for image in images])), 1)


def _iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Of two masks; 1 where both are empty."""
    either = (a | b).sum()
    return float((a & b).sum() / either) if either else 1.0
