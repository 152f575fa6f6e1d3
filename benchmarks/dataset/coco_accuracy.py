"""AP and AR of masks on images with a file of COCO annotations, without regard to classes.

python -m benchmarks coco_accuracy --annotations ANNOTATIONS.json --images IMAGES
"""

from __future__ import annotations

from typing import Any

from benchmarks.database import start
from benchmarks.settings import Settings, UsageError
from promerge_fo.encoder import load_encoder
from promerge_fo.encoder.base import Encoder

METRICS = ("AP", "AP50", "APs", "APm", "APl", "AR1", "AR10", "AR100")


def run(settings: Settings) -> dict[str, Any]:
    if settings.annotations is None or settings.images is None:
        raise UsageError("it needs images: --annotations ANNOTATIONS.json --images FOLDER")
    start()
    from promerge_fo.dataset import load_coco

    dataset = load_coco(settings.annotations, settings.images)
    encoder = load_encoder(settings.encoder, settings.checkpoint, device=settings.device)
    return {
        "encoder": encoder.identity(),
        "presets": {preset: evaluate(dataset, encoder, preset) for preset in settings.presets},
    }


def evaluate(dataset: Any, encoder: Encoder, preset: str) -> dict[str, Any]:
    from promerge_fo.dataset import evaluate_instances, load_model, segment_dataset

    report = segment_dataset(dataset, load_model(preset=preset, encoder=encoder), preset)
    metrics = evaluate_instances(dataset, preset).metrics()["segm"]
    return {
        "images": len(dataset),
        "masks": report.instances,
        "statuses": report.counts,
        "seconds": round(report.seconds, 1),
        **{name: round(metrics[name], 2) for name in METRICS},
    }
