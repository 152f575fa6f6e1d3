"""What precision="bf16" does to features, to masks and to the time, against fp32.

- Features of ViT-S/8 and ViT-B/8 in DINO's layout, with seeded random weights: timm's
  initialisation ("timm"), and weights so large that every block counts ("scaled"). Relative L2
  error of the features; absolute error of the cosines between prompts and patches at stride 4.
- Masks of stored COCO features, turned into 768 dense channels by a random rotation, which changes
  no cosine: with these features as they are, rounded to bfloat16, and with Gaussian noise of the
  largest relative error found above, of three times that, and of 1e-5, which is about what two
  implementations in fp32 differ by. For each mask, the best IoU with one of the changed masks.
- Time to encode a photograph in both precisions, with and without compile=True, taking turns.

Nothing is downloaded. DINO's weights have activations that random ones lack: the errors are to be
taken again with them, by --checkpoint, which takes the place of the random weights of one model.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray

from benchmarks.settings import Settings, UsageError
from benchmarks.subjects import TINY, golden_features, photographs
from benchmarks.timing import summarise, take_turns
from promerge_fo.config import ProMergeConfig
from promerge_fo.encoder import load_encoder
from promerge_fo.encoder.base import Encoder
from promerge_fo.instances import Instances
from promerge_fo.segment import segment_features

CONFIG = ProMergeConfig.preset("official")
FP32_NOISE = 1e-5
ENCODERS: dict[str, dict[str, Any]] = {
    name + suffix: {"precision": name, "compile": compile}
    for suffix, compile in (("", False), (", compiled", True))
    for name in ("fp32", "bf16")
}


def run(settings: Settings) -> dict[str, Any]:
    models = settings.pick(settings.models, (TINY,))
    if settings.checkpoint and len(models) != 1:
        raise UsageError("--checkpoint needs --models with the name of one model")
    images = dict(list(photographs().items())[: settings.pick(settings.photographs, 1)])
    features: dict[str, dict[str, Any]] = {}
    times: dict[str, Any] = {}
    for name in models:
        for kind in ("given",) if settings.checkpoint else ("timm", "scaled"):
            encoders = load(name, kind, settings)
            exact, rough = encoders["fp32"], encoders["bf16"]
            features[f"{name}, weights: {kind}"] = feature_errors(exact, rough, images)
            if name not in times:  # which does not depend on the weights
                times[name] = encode_times(encoders, images["coffee"], settings)
    error = max(found["relative_l2"] for found in features.values())
    return {
        "features": features,
        "masks": mask_changes(error, settings.pick(settings.seeds, 1)),
        "encode": {"threads": torch.get_num_threads(), "device": settings.device, **times},
    }


def load(name: str, kind: str, settings: Settings) -> dict[str, Encoder]:
    """The model in both precisions, and the same compiled."""
    with tempfile.TemporaryDirectory() as folder:
        path = settings.checkpoint or Path(folder) / "weights.pth"
        if settings.checkpoint is None:
            torch.save(seeded(name, kind), path)
        return {
            title: load_encoder(name, path, device=settings.device, **options)
            for title, options in ENCODERS.items()
        }


def seeded(name: str, kind: str) -> dict[str, torch.Tensor]:
    """Random weights: timm's, or ones that keep the size of what goes through each layer."""
    torch.manual_seed(0)
    state: dict[str, torch.Tensor] = timm.create_model(name, num_classes=0).state_dict()
    if kind == "timm":
        return state
    for key, tensor in state.items():
        if key.endswith(("norm1.weight", "norm2.weight")):
            tensor += 0.1 * torch.randn_like(tensor)
        elif key.endswith("bias"):
            tensor.normal_(std=0.05)
        elif key in ("pos_embed", "cls_token"):
            tensor.normal_(std=0.3)
        elif tensor.ndim > 1:
            tensor.normal_(std=1.2 / tensor[0].numel() ** 0.5)
    return state


def feature_errors(
    exact: Encoder, rough: Encoder, images: dict[str, NDArray[np.uint8]]
) -> dict[str, Any]:
    """Errors of bf16 on whole photographs; the largest over them, where not said otherwise."""
    pairs = [(exact([image])[0], rough([image])[0]) for image in images.values()]
    differences = [(cosines(theirs) - cosines(ours)).abs() for ours, theirs in pairs]
    return {
        "photographs": list(images),
        "relative_l2": significant(
            max(float((theirs - ours).norm() / ours.norm()) for ours, theirs in pairs)
        ),
        "cosine_mean_error": significant(max(float(each.mean()) for each in differences)),
        "cosine_max_error": significant(max(float(each.max()) for each in differences)),
        "cosine_standard_deviation": significant(
            float(np.median([float(cosines(ours).std()) for ours, _ in pairs]))
        ),
        "masks": compare([(segment(ours), segment(theirs)) for ours, theirs in pairs]),
    }


segment = partial(segment_features, config=CONFIG)


def cosines(features: torch.Tensor) -> torch.Tensor:
    """(prompts, patches), the prompts at the preset's stride."""
    unit = torch.nn.functional.normalize(features, dim=0)
    prompts = unit[:, :: CONFIG.stride, :: CONFIG.stride].flatten(1)
    similar: torch.Tensor = prompts.T @ unit.flatten(1)
    return similar


def mask_changes(error: float, seeds: int) -> dict[str, Any]:
    """What disturbed features do to masks of stored COCO features."""
    originals = list(golden_features().values())
    generator = torch.Generator().manual_seed(0)

    def noisy(size: float, features: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(features.shape, generator=generator)
        return features + noise * float(size * features.norm() / noise.norm())

    def after(change: Callable[[torch.Tensor], torch.Tensor], times: int) -> dict[str, Any]:
        pairs = [(features, change(features)) for features in originals for _ in range(times)]
        mean = max(float((cosines(b) - cosines(a)).abs().mean()) for a, b in pairs)
        masks = compare([(segment(a), segment(b)) for a, b in pairs])
        return {"cosine_mean_error": significant(mean), **masks}

    return {
        "rounded to bfloat16": after(lambda features: features.bfloat16().float(), 1),
        **{
            f"noise of {size:.2g}": after(partial(noisy, size), seeds)
            for size in (FP32_NOISE, error, 3 * error)
        },
    }


def compare(pairs: Sequence[tuple[Instances, Instances]]) -> dict[str, Any]:
    """How well the masks before are found again after, over all pairs (before, after)."""
    best = np.concatenate([best_ious(a.masks, b.masks) for a, b in pairs])
    other = [(len(a), a.status) != (len(b), b.status) for a, b in pairs]
    found: dict[str, Any] = {
        "images": len(pairs),
        "masks": len(best),
        "images_with_another_count_or_status": round(float(np.mean(other)), 3),
    }
    if len(best):
        found |= {
            "iou_mean": round(float(best.mean()), 4),
            "iou_5th_percentile": round(float(np.percentile(best, 5)), 4),
            "iou_from_0.9": round(float((best >= 0.9).mean()), 3),
            "iou_from_0.5": round(float((best >= 0.5).mean()), 3),
        }
    return found


def best_ious(masks: NDArray[np.bool_], others: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n,): the best IoU of each mask (n, h, w) with one of the others (m, h, w); 0 for none."""
    if len(masks) == 0 or len(others) == 0:
        return np.zeros(len(masks))
    a, b = (each.reshape(len(each), -1).astype(np.float64) for each in (masks, others))
    shared = a @ b.T
    ious: NDArray[np.float64] = shared / (a.sum(axis=1)[:, None] + b.sum(axis=1) - shared)
    return np.asarray(ious.max(axis=1))


def encode_times(
    encoders: dict[str, Encoder], image: NDArray[np.uint8], settings: Settings
) -> dict[str, Any]:
    """Seconds to encode one photograph."""
    pixels = encoders["fp32"].transform(image)
    functions = {name: partial(encoder.encode, [pixels]) for name, encoder in encoders.items()}
    repetitions = settings.pick(settings.repetitions, 1)
    seconds = summarise(take_turns(functions, repetitions, settings.device))
    reference = seconds["fp32"]["median_s"]
    return {
        name: {**found, "of_fp32": round(found["median_s"] / reference, 3)}
        for name, found in seconds.items()
    }


def significant(value: float) -> float:
    return float(f"{value:.3g}")
