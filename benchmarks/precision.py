"""What precision="bf16" does to features, to masks and to the time, against fp32.

    python -m benchmarks.precision --output benchmarks/results/precision.json

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

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import timm
import torch
from skimage import data

from benchmarks.record import write
from benchmarks.subjects import PHOTOGRAPHS, golden_features
from benchmarks.timing import quartiles, take_turns
from promerge_fo.config import ProMergeConfig
from promerge_fo.encoder import Encoder, load_encoder
from promerge_fo.instances import Instances
from promerge_fo.segment import segment_features

MODELS = ("vit_small_patch8_224.dino", "vit_base_patch8_224.dino")
CONFIG = ProMergeConfig.preset("official")
FP32_NOISE = 1e-5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--checkpoint", help="weights of the model, where --models names one")
    parser.add_argument("--photographs", type=int, default=2, help="how many, up to 4")
    parser.add_argument("--seeds", type=int, default=10, help="of the noise")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--device")
    parser.add_argument("--output")
    arguments = parser.parse_args()
    if arguments.checkpoint and len(arguments.models) != 1:
        parser.error("--checkpoint needs --models with the name of one model")

    features, times = {}, {}
    for name in arguments.models:
        for kind in ("given",) if arguments.checkpoint else ("timm", "scaled"):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(arguments.checkpoint or Path(folder) / "weights.pth")
                if not arguments.checkpoint:
                    torch.save(seeded(name, kind), path)
                exact, rough, *compiled = (
                    load_encoder(
                        name, path, device=arguments.device, precision=precision, compile=compile
                    )
                    for compile in (False, True)
                    for precision in ("fp32", "bf16")
                )
            photographs = PHOTOGRAPHS[: arguments.photographs]
            features[f"{name}, weights: {kind}"] = feature_errors(exact, rough, photographs)
            if name not in times:  # which does not depend on the weights
                encoders = (exact, rough, *compiled)
                times[name] = encode_times(encoders, arguments.repetitions)
    error = max(float(found["relative_l2"]) for found in features.values())
    results = {
        "features": features,
        "masks": mask_changes(error, arguments.seeds),
        "encode": {"threads": torch.get_num_threads(), "device": str(exact.device), **times},
    }
    print(json.dumps(results, indent=2))
    if arguments.output:
        write(arguments.output, results)


def seeded(name: str, kind: str) -> dict[str, torch.Tensor]:
    """Random weights: timm's, or ones that keep the size of what goes through each layer."""
    torch.manual_seed(0)
    state = timm.create_model(name, pretrained=False, num_classes=0).state_dict()
    if kind == "timm":
        return state
    for key, tensor in state.items():
        if key.endswith("norm1.weight") or key.endswith("norm2.weight"):
            tensor += 0.1 * torch.randn_like(tensor)
        elif key.endswith("bias"):
            tensor.normal_(std=0.05)
        elif key in ("pos_embed", "cls_token"):
            tensor.normal_(std=0.3)
        elif tensor.ndim > 1:
            tensor.normal_(std=1.2 / tensor[0].numel() ** 0.5)
    return state


def feature_errors(exact: Encoder, rough: Encoder, photographs: Sequence[str]) -> dict[str, object]:
    """Errors of bf16 on whole photographs; the largest over them, where not said otherwise."""
    relative, mean, largest, spread, changes = [], [], [], [], []
    for name in photographs:
        image = getattr(data, name)()
        ours, theirs = exact([image])[0], rough([image])[0]
        relative.append(float((theirs - ours).norm() / ours.norm()))
        before, after = cosines(ours), cosines(theirs)
        difference = (after - before).abs()
        mean.append(float(difference.mean()))
        largest.append(float(difference.max()))
        spread.append(float(before.std()))
        changes.append((segment_features(ours, CONFIG), segment_features(theirs, CONFIG)))
    return {
        "photographs": list(photographs),
        "relative_l2": significant(max(relative)),
        "cosine_mean_error": significant(max(mean)),
        "cosine_max_error": significant(max(largest)),
        "cosine_standard_deviation": significant(float(np.median(spread))),
        "masks": compare(changes),
    }


def cosines(features: torch.Tensor) -> torch.Tensor:
    """(prompts, patches), the prompts at the preset's stride."""
    unit = torch.nn.functional.normalize(features, dim=0)
    prompts = unit[:, :: CONFIG.stride, :: CONFIG.stride].flatten(1)
    return prompts.T @ unit.flatten(1)


def mask_changes(error: float, seeds: int) -> dict[str, object]:
    """What disturbed features do to masks of stored COCO features."""
    originals = list(golden_features().values())
    expected = [segment_features(features, CONFIG) for features in originals]

    def after(change: Callable[[torch.Tensor], torch.Tensor], times: int) -> dict[str, object]:
        pairs, mean = [], []
        for features, before in zip(originals, expected, strict=True):
            for _ in range(times):
                changed = change(features)
                pairs.append((before, segment_features(changed, CONFIG)))
                mean.append(float((cosines(changed) - cosines(features)).abs().mean()))
        return {"cosine_mean_error": significant(max(mean)), **compare(pairs)}

    generator = torch.Generator().manual_seed(0)

    def noisy(features: torch.Tensor, size: float) -> torch.Tensor:
        noise = torch.randn(features.shape, generator=generator)
        return features + noise * (size * features.norm() / noise.norm())

    results: dict[str, object] = {"rounded to bfloat16": after(lambda f: f.bfloat16().float(), 1)}
    for size in (FP32_NOISE, error, 3 * error):
        results[f"noise of {size:.2g}"] = after(lambda f, size=size: noisy(f, size), seeds)
    return results


def compare(pairs: Sequence[tuple[Instances, Instances]]) -> dict[str, object]:
    """How well the masks before are found again after, over all pairs (before, after)."""
    best = np.concatenate([best_ious(a.masks, b.masks) for a, b in pairs])
    count_or_status = [(len(a.masks), a.status) != (len(b.masks), b.status) for a, b in pairs]
    found: dict[str, object] = {
        "images": len(pairs),
        "masks": len(best),
        "images_with_another_count_or_status": round(float(np.mean(count_or_status)), 3),
    }
    if len(best):
        found |= {
            "iou_mean": round(float(best.mean()), 4),
            "iou_5th_percentile": round(float(np.percentile(best, 5)), 4),
            "iou_from_0.9": round(float((best >= 0.9).mean()), 3),
            "iou_from_0.5": round(float((best >= 0.5).mean()), 3),
        }
    return found


def best_ious(masks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,): the best IoU of each mask (n, h, w) with one of the others (m, h, w); 0 for none."""
    if len(others) == 0:
        return np.zeros(len(masks))
    a = masks.reshape(len(masks), others[0].size).astype(np.float64)
    b = others.reshape(len(others), -1).astype(np.float64)
    shared = a @ b.T
    return (shared / (a.sum(axis=1)[:, None] + b.sum(axis=1) - shared)).max(axis=1)


def encode_times(encoders: Sequence[Encoder], repetitions: int) -> dict[str, object]:
    """Seconds to encode one photograph."""
    pixels = encoders[0].transform(data.coffee())
    names = ("fp32", "bf16", "fp32, compiled", "bf16, compiled")
    functions = {
        name: lambda e=encoder: e.encode([pixels])
        for name, encoder in zip(names, encoders, strict=True)
    }
    seconds = take_turns(functions, repetitions, encoders[0].device.type)
    reference = np.median(seconds["fp32"])
    return {
        name: {**quartiles(values), "of_fp32": round(float(np.median(values) / reference), 3)}
        for name, values in seconds.items()
    }


def significant(value: float) -> float:
    return float(f"{value:.3g}")


if __name__ == "__main__":
    main()
