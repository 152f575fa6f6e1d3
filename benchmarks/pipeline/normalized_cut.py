"""MaskCut's cuts, against the same with scipy's dense eigh, on the same cores.

Only the solver differs: the graph, the choice of the foreground and all else are the same code.
Both run on one thread, where the processor's time can be told as well, which other programs on the
machine change little; with --full also on all cores.
"""

from __future__ import annotations

import os
import time
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from scipy.linalg import eigh

from benchmarks.memory import apart
from benchmarks.settings import Settings
from benchmarks.subjects import golden_features, mask_ious, photographs, rotate
from benchmarks.timing import summarise, take_turns_by
from promerge_fo.config import MaskCutConfig
from promerge_fo.encoder import load_encoder
from promerge_fo.machine import available_cpus
from promerge_fo.segment import normalized_cut
from promerge_fo.segment.eigenvector import Eigenvector, second_eigenvector
from promerge_fo.segment.normalized_cut import CutTrace, trace_cuts
from promerge_fo.segment.patch_graph import PatchGraph
from promerge_fo.segment.prompting import UnitFeatures

CONFIG = MaskCutConfig.preset("official")
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
LIBRARIES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def run(settings: Settings) -> dict[str, Any]:
    counts = [1, available_cpus()] if settings.full else [1]
    return {
        "cuts": CONFIG.cuts,
        "patches": settings.pick(60, 20) ** 2,
        "threads": [
            apart(
                f"{__name__}:on_threads",
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
    parts = take_turns_by(
        CLOCKS,
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
        **{
            key: round(float(np.median([image[key] for image in images])), 1)
            for key in ("times_faster", "times_faster_by_processor_time")
        },
        "min_iou": min(iou for image in images for iou in image["ious"]),
        "parts": {
            name: {
                clock: {figure: round(s / len(each), 6) for figure, s in seconds.items()}
                for clock, seconds in summarise(by_clock).items()
            }
            for name, by_clock in parts.items()
        },
    }


def _subjects(side: int) -> dict[str, torch.Tensor]:
    """Features (768, side, side): of COCO images by DINO, and of photographs without weights."""
    subjects = {f"COCO image {n}, DINO": f for n, f in golden_features(side=side).items()}
    encoder = load_encoder("texture", image_size=8 * side)
    images = photographs((8 * side, 8 * side))
    for name in ("coffee", "chelsea"):
        subjects[f"{name}, texture"] = rotate(encoder.encode([images[name]])[0].numpy(), 768)
    return subjects


def _image(name: str, features: torch.Tensor, settings: Settings) -> dict[str, Any]:
    found: dict[str, CutTrace] = {}
    functions = {
        "lanczos": lambda: found.update(lanczos=_cuts(features)),
        "dense": lambda: found.update(dense=_dense_cuts(features)),
    }
    _cuts(features)  # dense solvers have nothing to warm up that counts beside their time
    taken = take_turns_by(CLOCKS, functions, settings.pick(3, 1), settings.device)
    seconds = {solver: summarise(by_clock) for solver, by_clock in taken.items()}
    lanczos, dense = found["lanczos"], found["dense"]
    solved = [cut.eigenvector for cut in lanczos.cuts if cut.eigenvector is not None]
    return {
        "image": name,
        **seconds,
        "times_faster": _ratio(seconds, "wall"),
        "times_faster_by_processor_time": _ratio(seconds, "processor"),
        "ious": mask_ious(lanczos.instances.masks, dense.instances.masks).tolist(),
        "patches": lanczos.instances.areas.tolist(),
        "products": [vector.products for vector in solved],
        "eigenvalues": [float(f"{vector.eigenvalue:.4g}") for vector in solved],
        "verdicts": [cut.verdict for cut in lanczos.cuts],
    }


def _cuts(features: torch.Tensor) -> CutTrace:
    return trace_cuts(features, CONFIG)


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


def _ratio(seconds: dict[str, dict[str, dict[str, float]]], clock: str) -> float:
    return round(seconds["dense"][clock]["median_s"] / seconds["lanczos"][clock]["median_s"], 1)
