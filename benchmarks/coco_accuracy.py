"""Class-agnostic COCO mask AP and AR of a run of ProMerge on images with a COCO annotation file.

python -m benchmarks.coco_accuracy ANNOTATIONS.json IMAGES --encoder texture --output r.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tqdm import tqdm

from benchmarks.record import write
from promerge_fo.config import ProMergeConfig
from promerge_fo.encoder import load_encoder
from promerge_fo.pipeline import Pipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("annotations")
    parser.add_argument("images")
    parser.add_argument("--encoder", default="texture")
    parser.add_argument("--checkpoint")
    parser.add_argument("--presets", nargs="+", default=["default", "official", "paper"])
    parser.add_argument("--output")
    arguments = parser.parse_args()

    coco = COCO(arguments.annotations)
    encoder = load_encoder(arguments.encoder, checkpoint=arguments.checkpoint)
    results = {
        preset: evaluate(
            coco, Path(arguments.images), Pipeline(encoder, ProMergeConfig.preset(preset))
        )
        for preset in arguments.presets
    }
    print(json.dumps(results, indent=2))
    if arguments.output:
        write(arguments.output, {"encoder": encoder.identity(), "results": results})


def evaluate(coco: COCO, folder: Path, pipeline: Pipeline) -> dict[str, object]:
    ids = sorted(coco.imgs)
    paths = [folder / coco.imgs[i]["file_name"] for i in ids]
    found, statuses, started = [], Counter(), time.perf_counter()
    for image_id, result in zip(ids, tqdm(pipeline.run(paths), total=len(ids)), strict=True):
        statuses[result.status] += 1
        for mask, score in zip(result.masks, result.scores, strict=True):
            segmentation = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
            segmentation["counts"] = segmentation["counts"].decode()
            found.append(
                {
                    "image_id": image_id,
                    "category_id": 1,
                    "segmentation": segmentation,
                    "score": float(score),
                }
            )
    seconds = time.perf_counter() - started
    evaluation = COCOeval(coco, coco.loadRes(found), "segm")
    evaluation.params.useCats = 0
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    ap, ap50, _, aps, apm, apl, ar1, ar10, ar100 = (100 * v for v in evaluation.stats[:9])
    return {
        "images": len(ids),
        "masks": len(found),
        "statuses": dict(statuses),
        "seconds": round(seconds, 1),
        **{
            name: round(float(value), 2)
            for name, value in {
                "AP": ap, "AP50": ap50, "APs": aps, "APm": apm, "APl": apl,
                "AR1": ar1, "AR10": ar10, "AR100": ar100,
            }.items()
        },
    }  # fmt: skip


if __name__ == "__main__":
    main()
