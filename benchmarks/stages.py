"""Segmentation and refinement on one thread, against what bounds them and what they replace.

    python -m benchmarks.stages --output benchmarks/results/stages.json

- Features to merged masks, against the one product that the method cannot do without: prompts x
  channels x patches, in float32. The features are stored COCO ones, turned into 768 dense channels
  by a random rotation, which changes no cosine.
- ``refine_masks`` as a whole, against the inference alone of pydensecrf, which does one mask at a
  time: its time for n masks is n times that for one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data

from benchmarks.record import write
from benchmarks.timing import quartiles, take_turns
from promerge_fo import ProMergeConfig, refine_masks, segment_features
from promerge_fo.refine.pydensecrf import pydensecrf
from promerge_fo.refine.resize import upsample_nearest

GOLDEN = Path(__file__).parents[1] / "tests" / "data" / "golden"
PHOTOGRAPHS = ("coffee", "astronaut", "chelsea", "rocket")
COUNTS = (1, 4, 8, 16, 32)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--output")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = {
        "segmentation": segmentation(arguments.repetitions),
        "refinement": refinement(max(3, arguments.repetitions // 3)),
    }
    print(json.dumps(results, indent=2))
    if arguments.output:
        write(arguments.output, results)


def segmentation(repetitions: int) -> dict[str, object]:
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((768, 30)))[0]
    results: dict[str, object] = {}
    ratios = []
    for stride in (4, 2):
        config = ProMergeConfig.preset("official").replace(stride=stride)
        for path in sorted(GOLDEN.glob("coco_*.npz")):
            stored = np.load(path)["features"].astype(np.float64)
            dense = np.einsum("dc,chw->dhw", rotation, stored).astype(np.float32)
            features = torch.from_numpy(dense)
            flat = features.reshape(768, -1)
            prompts = features[:, ::stride, ::stride].reshape(768, -1).T.contiguous()
            out = torch.empty(len(prompts), flat.shape[1])
            seconds = take_turns(
                {
                    "product": lambda p=prompts, f=flat, o=out: torch.mm(p, f, out=o),
                    "segment": lambda f=features, c=config: segment_features(f, c),
                },
                repetitions,
            )
            ratio = np.median(seconds["segment"]) / np.median(seconds["product"])
            ratios.append((stride, ratio))
            results[f"{path.stem}, stride {stride}"] = {
                **{name: quartiles(values) for name, values in seconds.items()},
                "segment_over_product": round(float(ratio), 2),
            }
    for stride in (4, 2):
        middle = np.median([ratio for s, ratio in ratios if s == stride])
        results[f"median ratio at stride {stride}"] = round(float(middle), 2)
    return results


def refinement(repetitions: int) -> dict[str, object]:
    rng = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {}
    for name in PHOTOGRAPHS:
        image = Image.fromarray(getattr(data, name)()).resize((480, 480), Image.Resampling.LANCZOS)
        pixels = np.array(image)
        masks = np.stack([blob(rng) for _ in range(max(COUNTS))])
        one = upsample_nearest(masks[:1], (480, 480))
        functions = {"pydensecrf, 1 mask": lambda p=pixels, m=one: pydensecrf(p, m)}
        for n in COUNTS:
            functions[f"refine_masks, {n}"] = lambda p=pixels, m=masks[:n]: refine_masks(p, m)
        for key, values in take_turns(functions, repetitions).items():
            seconds.setdefault(key, []).extend(values)
    reference = np.median(seconds["pydensecrf, 1 mask"])
    return {
        **{name: quartiles(values) for name, values in seconds.items()},
        "times_faster": {
            n: round(float(n * reference / np.median(seconds[f"refine_masks, {n}"])), 1)
            for n in COUNTS
        },
    }


def blob(rng: np.random.Generator) -> np.ndarray:
    """An ellipse of patches on a 60 x 60 grid."""
    rows, columns = np.mgrid[:60, :60]
    centre, radii = rng.uniform(10, 50, 2), rng.uniform(4, 20, 2)
    inside = ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2
    return inside < 1


if __name__ == "__main__":
    main()
