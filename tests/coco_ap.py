"""AP and AR of masks by pycocotools, from arrays: the tests' yardstick."""

from __future__ import annotations

import contextlib
import io

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def encode(mask: np.ndarray) -> dict:
    encoded = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def average_precision(
    images: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> tuple[float, float]:
    """Class-agnostic mask (AP, AR at 100), 0 to 1, of [(truths, predictions, scores)] by image."""
    truth: dict = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "fg"}]}
    found = []
    for number, (truths, predictions, scores) in enumerate(images, 1):
        h, w = truths.shape[1:]
        truth["images"].append({"id": number, "height": h, "width": w})
        for mask in truths:
            segmentation = encode(mask)
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "segmentation": segmentation,
                    "area": float(mask.sum()),
                    "bbox": rle.toBbox(segmentation).tolist(),
                    "iscrowd": 0,
                }
            )
        for mask, score in zip(predictions, scores, strict=True):
            found.append(
                {
                    "image_id": number,
                    "category_id": 1,
                    "segmentation": encode(mask),
                    "score": float(score),
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[8])
