"""Calibration and proposals with any encoder, against what a search with labels finds.

python -m benchmarks encoders --annotations ANNOTATIONS.json --images IMAGES \\
    --encoder NAME --checkpoint FILE

Each facet of the encoder, and the texture encoder, is measured on images with COCO annotations,
without regard to classes: the calibrated default, the preset "proposals", the default with the
paper's thresholds, and MaskCut. Then come the 200 settings of :func:`search_space`, on the masks
before refinement; the best twenty are refined. What the best of them reaches is what could be had
with labels, and more, since it is chosen on the images that it is measured on.

A run that was stopped goes on where it was; with another version of the code it starts anew.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

import promerge_fo
from benchmarks.database import start
from benchmarks.settings import Settings, UsageError
from promerge_fo.calibration import Calibration, calibrate
from promerge_fo.config import MaskCutConfig, ProMergeConfig, Refine, Score, run_hash
from promerge_fo.encoder import load_encoder
from promerge_fo.encoder.base import Encoder, Facet
from promerge_fo.pipeline import Pipeline

FACETS: tuple[Facet, ...] = ("key", "query", "value", "token")
SEED, DRAWN, REFINED = 2026, 200, 20
METRICS = ("AP", "AP50", "AR10", "AR100")

_FULL = {"min_mask_area": 0.003, "duplicate_iou": 0.75, "part_penalty": 0.5, "max_masks": 100}
_FEW = {"stride": 3, "tau_b": 0.2, "tau_f_bg": 0.4, "tau_f_merge": 0.7, "tau_overlap_merge": 0.7,
        "tau_ioa_merge": 0.3, "split_components": "all"}  # fmt: skip
#: Settings that were found by hand, on other images.
KNOWN: dict[str, Mapping[str, Any]] = {
    "default": {},
    "proposals": dict(ProMergeConfig.presets["proposals"]),
    "few": _FEW,
    "unmerged": {"stride": 2, "tau_b": 0.6, "tau_f_bg": 0.3, "merge_rule": "none"},
    "unmerged, lower": {"tau_b": 0.5, "merge_rule": "none"},
    "three levels": {"levels": 3, "low_tau_b": 0.5, "high_tau_b": 0.8, **_FULL,
                     "duplicate_iou": 0.8},
    "few, three levels": {**_FEW, "stride": 2, "levels": 4, "low_tau_b": 0.4, "high_tau_b": 0.75,
                          **_FULL},
}  # fmt: skip


def search_space() -> dict[str, tuple[ProMergeConfig, bool]]:
    """200 settings by name, and whether the mean feature is subtracted.

    Those that are known, with and without it; the others are drawn with a fixed seed from wide
    ranges around them.
    """
    space = {
        f"{name}{', centred' * centred}": (_named(**changes), centred)
        for name, changes in KNOWN.items()
        for centred in (False, True)
    }
    rng = np.random.default_rng(SEED)

    def between(low: float, high: float) -> float:
        return round(float(rng.uniform(low, high)), 2)

    while len(space) < DRAWN:
        levels = int(rng.choice([1, 1, 4]))
        changes: dict[str, Any] = {
            "stride": int(rng.choice([2, 3, 4])),
            "tau_b": between(0, 0.8),
            "tau_f_bg": between(-0.1, 0.7),
            "tau_ioa_bg": float(rng.choice([0.5, 0.7, 0.8, 0.9])),
            "min_background_area": float(rng.choice([0, 0.1])),
            "split_components": str(rng.choice(["relative", "all"])),
            "merge_rule": str(rng.choice(["official", "official", "either", "none"])),
            "tau_overlap_merge": between(0.3, 0.95),
            "tau_ioa_merge": between(0.05, 0.5),
            "tau_f_merge": between(0, 0.9),
        }
        if levels > 1:
            changes |= {"levels": levels, "low_tau_b": between(0.2, 0.5),
                        "high_tau_b": between(0.55, 0.85), **_FULL}  # fmt: skip
        space[f"drawn {len(space)}"] = (_named(**changes), bool(rng.choice([False, True])))
    return space


def _named(**changes: Any) -> ProMergeConfig:
    """A configuration all of whose parameters are named, so that no calibration changes them."""
    return ProMergeConfig.from_dict(ProMergeConfig(**changes).to_dict())


def run(settings: Settings) -> dict[str, Any]:
    if settings.annotations is None or settings.images is None:
        raise UsageError("it needs images: --annotations ANNOTATIONS.json --images FOLDER")
    start()
    from promerge_fo.dataset import load_coco

    dataset = load_coco(settings.annotations, settings.images, limit=settings.pick(None, 4))
    folder = Path(tempfile.gettempdir()) / f"promerge-encoders-{_source()}"
    subjects = {"texture": load_encoder("texture", device=settings.device)}
    if settings.encoder != "texture":
        for facet in FACETS:
            subjects[facet] = load_encoder(
                settings.encoder, settings.checkpoint, facet, settings.device
            )
    paths = dataset.values("filepath")
    calibrations = {name: calibrate(encoder, paths) for name, encoder in subjects.items()}
    found = {
        name: of_encoder(dataset, encoder, calibrations[name], folder, settings)
        for name, encoder in subjects.items()
    }
    for name, encoder in subjects.items():  # last, as it takes longest
        best = search(dataset, encoder, calibrations[name], folder, settings)
        first = found[name]["calibrated default"]["AP"]
        found[name]["best of the search"] = best
        found[name]["share of the best AP"] = round(first / max(best["AP"], 1e-9), 3)
    return {
        "images": len(dataset),
        "search": {"settings": DRAWN, "seed": SEED, "refined": REFINED},
        **found,
    }


def of_encoder(
    dataset: Any, encoder: Encoder, calibration: Calibration, folder: Path, settings: Settings
) -> dict[str, Any]:
    own = calibration if encoder.wants_calibration else None
    compared = {
        "calibrated default": Pipeline(encoder, calibration=own),
        "proposals": Pipeline(encoder, ProMergeConfig.preset("proposals"), calibration=own),
        "paper's thresholds": Pipeline(encoder),
        "MaskCut": Pipeline(encoder, MaskCutConfig()),
    }
    measured = _measure(dataset, compared, folder, settings)
    first = measured["calibrated default"]
    return {
        "encoder": encoder.identity(),
        "calibration": None if own is None else {
            "before": own.before, "after": own.after, "parameters": dict(own.parameters),
        },
        **measured,
        "proposals' share of the default's AP": round(
            measured["proposals"]["AP"] / max(first["AP"], 1e-9), 3
        ),
        "proposals' share of the default's CPU time": round(
            measured["proposals"]["cpu_s"] / first["cpu_s"], 2
        ),
        "rank correlation of score and best IoU": _correlations(dataset, encoder, own),
    }  # fmt: skip


def _measure(
    dataset: Any, pipelines: Mapping[str, Pipeline], folder: Path, settings: Settings
) -> dict[str, Any]:
    """Metrics of each, with the interval of the difference to the first; one thread, for times."""
    from promerge_fo.dataset import ablate

    ablation = ablate(
        dataset, pipelines, encoder=next(iter(pipelines.values())).encoder, folder=folder,
        threads=1, resamples=settings.pick(1000, 10),
    )  # fmt: skip
    found = {}
    for name, outcome in ablation.outcomes.items():
        metrics = outcome.scores["segm"].metrics
        found[name] = {
            **{metric: round(metrics[metric], 2) for metric in METRICS},
            "AP_over_the_first": [round(v, 2) for v in ablation.difference(name, "AP")],
            "AR100_over_the_first": [round(v, 2) for v in ablation.difference(name, "AR100")],
            "masks_per_image": round(outcome.masks, 1),
            "images_without_masks": sum(n for s, n in outcome.statuses.items() if s != "ok"),
            "cpu_s": round(outcome.seconds, 4),
        }
    return found


def search(
    dataset: Any, encoder: Encoder, calibration: Calibration, folder: Path, settings: Settings
) -> dict[str, Any]:
    """The best refined setting of the search space."""
    from promerge_fo.dataset import ablate

    space = dict(list(search_space().items())[: settings.pick(DRAWN, 4)])
    asked = run_hash({"encoder": encoder.identity(), "space": repr(space)})
    kept = folder / f"search-{asked}.json"
    if kept.is_file():  # a run that was stopped goes on where it was
        return dict(json.loads(kept.read_text()))

    mean = replace(calibration, is_centred=True)

    def of(names: Sequence[str], refine: Refine) -> dict[str, float]:
        pipelines = {}
        for name in names:
            config, centred = space[name]
            pipelines[name] = Pipeline(
                encoder, config.replace(refine=refine), calibration=mean if centred else None
            )
        ablation = ablate(dataset, pipelines, encoder=encoder, folder=folder, resamples=1)
        return {n: o.scores["segm"].metrics["AP"] for n, o in ablation.outcomes.items()}

    before = of(list(space), Refine.NONE)
    ranked = sorted(before, key=lambda name: -before[name])[: settings.pick(REFINED, 2)]
    after = of(ranked, Refine.CRF)
    best = max(after, key=lambda name: after[name])
    config, centred = space[best]
    changes = {k: v for k, v in config.to_dict().items() if v != ProMergeConfig().to_dict()[k]}
    result = {
        "AP": round(after[best], 2),
        "setting": best,
        "centred": centred,
        "parameters": changes,
        "refined": {name: [round(before[name], 2), round(after[name], 2)] for name in ranked},
    }
    kept.write_text(json.dumps(result))
    return result


def _correlations(
    dataset: Any, encoder: Encoder, calibration: Calibration | None
) -> dict[str, dict[str, float]]:
    """Spearman's of the score of a mask and its best IoU with an object, for each score."""
    from pycocotools import mask as coco

    from promerge_fo.annotations.rle import records_of
    from promerge_fo.dataset.stored_labels import read_labels

    truth = [
        [record["segmentation"] for record in each.records["ground_truth"]]
        for each in read_labels(dataset, ("ground_truth",), progress=False)
    ]
    pipelines = {
        (preset, score.value): Pipeline(
            encoder, ProMergeConfig.preset(preset).replace(score=score), calibration=calibration
        )
        for preset in ("default", "proposals")
        for score in (Score.QUALITY, Score.OBJECTNESS)
    }
    first = next(iter(pipelines.values()))
    pairs: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in pipelines}
    for path, objects in zip(dataset.values("filepath"), truth, strict=True):
        prepared = first.prepare(path)
        encoded = first.encode([prepared])[0]
        for key, pipeline in pipelines.items():
            records = records_of(pipeline.finish(prepared, encoded))
            if records and objects:
                masks = [record["segmentation"] for record in records]
                ious = coco.iou(masks, objects, [0] * len(objects)).max(axis=1)
                scores = [record["score"] for record in records]
                pairs[key] += zip(scores, ious.tolist(), strict=True)
    found: dict[str, dict[str, float]] = {}
    for (preset, score), listed in pairs.items():
        rho = spearmanr(*zip(*listed, strict=True)).statistic if len(listed) > 2 else float("nan")
        found.setdefault(preset, {})[score] = round(float(rho), 2)
    return found


def _source() -> str:
    """A digest of the code that is measured."""
    digest = hashlib.sha256()
    for path in sorted(Path(promerge_fo.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
