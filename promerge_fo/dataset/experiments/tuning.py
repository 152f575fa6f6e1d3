"""Tuning: choose settings on a user's own labelled images, and estimate the gain."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promerge_fo.calibration import Calibration
from promerge_fo.config import Config, ProMergeConfig
from promerge_fo.dataset.evaluation.coco_metrics import METRICS, RankedPredictions, bootstrap
from promerge_fo.dataset.experiments.ablation import ablate
from promerge_fo.dataset.experiments.settings import search_space
from promerge_fo.dataset.experiments.tuning_result import Tuning, mean_interval
from promerge_fo.dataset.samples import images_of, require_objects
from promerge_fo.encoder.base import Encoder
from promerge_fo.pipeline import Pipeline
from promerge_fo.progress import ShowProgress

__all__ = ["tune"]


def tune(
    samples: Any,
    settings: Mapping[str, Config | Pipeline] | None = None,
    gt_field: str = "ground_truth",
    *,
    encoder: Encoder,
    calibration: Calibration | None = None,
    folder: str | os.PathLike[str],
    metric: str = "AP",
    folds: int = 5,
    repeats: int = 20,
    confidence: float = 0.95,
    threads: int | None = None,
    seed: int = 0,
    progress: ShowProgress = None,
) -> Tuning:
    """Choose the setting with the highest AP on images with ground truth; some 50 are enough.

    On the images on which a setting was chosen, its AP is too optimistic. So its gain is measured
    by repeated cross-validation. The images are divided into folds. For each fold, the setting that
    is best on all other folds is measured on this fold, and so is the first setting. If the
    interval of the gain contains 0, these images cannot show that the best setting is better: then
    :attr:`Tuning.choice` is the first setting, and the report says so.

    Args:
        samples: a dataset or a view of images.
        settings: configurations by name, of any methods. The first one is kept unless another one
            is shown to be better. By default, :func:`search_space` of ``ProMergeConfig()``.
            Pipelines compare facets and blocks of an encoder, too.
        gt_field: the field with the ground truth.
        encoder: the encoder for all settings that are configurations.
        calibration: as in :func:`~promerge_fo.dataset.ablate`.
        folder: a folder for features and results, as in :func:`~promerge_fo.dataset.ablate`;
            those that it holds already are not computed again.
        metric: the metric to choose by ("AP", "AP50", "AR100", ...).
        folds: the number of folds of the cross-validation.
        repeats: how often the images are divided into folds, differently each time.
        confidence: the confidence of the intervals, in (0, 1).
        threads: as in :func:`~promerge_fo.dataset.ablate`.
        seed: the seed of the division into folds and of the bootstrap.
        progress: whether to show a progress bar (None: as FiftyOne's config says), or a function
            that makes one; see :data:`promerge_fo.progress.ShowProgress`.

    Raises:
        ValueError: the metric is unknown, there is only one setting, or there are fewer than two
            images with objects for each fold. Also the errors of
            :func:`~promerge_fo.dataset.ablate`.

    Examples:
        >>> from promerge_fo import load_encoder, load_model
        >>> encoder = load_encoder()
        >>> settings = search_space(ProMergeConfig(), tau_b=[0.1, 0.2])
        >>> tuning = tune(dataset, settings, encoder=encoder, folder="tuning/", folds=2)
        >>> print(tuning)
        >>> model = load_model(config=tuning.config, encoder=encoder)
    """
    if metric not in METRICS:
        raise ValueError(f"there is no metric {metric!r}; the metrics are: {', '.join(METRICS)}")
    if folds < 2 or repeats < 1:
        raise ValueError(
            f"cross-validation wants 2 folds and 1 repeat at least, got {folds} and {repeats}"
        )
    candidates: dict[str, Config | Pipeline] = (
        {**search_space(ProMergeConfig())} if settings is None else dict(settings)
    )
    if len(candidates) < 2:
        raise ValueError(
            f"the settings to choose from are {len(candidates)}; give two settings or more"
        )
    samples = images_of(samples)
    require_objects(samples, gt_field)
    labelled = sum(bool(each) for each in samples.values(f"{gt_field}.detections"))
    if labelled < 2 * folds:
        raise ValueError(
            f"{labelled} images have objects in {gt_field}, but cross-validation with {folds} "
            f"folds wants {2 * folds} at least; label more images, or take fewer folds"
        )
    ablation = ablate(
        samples, candidates, gt_field, encoder=encoder, calibration=calibration, folder=folder,
        threads=threads, confidence=confidence, seed=seed, progress=progress,
    )  # fmt: skip
    ranked = [outcome.scores[ablation.kind].ranked for outcome in ablation.outcomes.values()]
    held_out = assign_folds(ranked[0]["all"].objects > 0, folds, repeats, seed)
    picks, worth, before = cross_validate(ranked, held_out, metric)
    if not len(picks):
        raise ValueError(
            f"{metric} cannot be measured on every fold, because some have no objects for it; "
            "choose by AP, or label more images"
        )
    shares = np.bincount(picks, minlength=len(ranked)) / len(picks)
    return Tuning(
        ablation,
        metric,
        folds,
        repeats,
        dict(zip(candidates, shares.tolist(), strict=True)),
        mean_interval(worth, folds, confidence),
        mean_interval(before, folds, confidence),
        mean_interval(worth - before, folds, confidence),
    )


def cross_validate(
    ranked: Sequence[dict[str, RankedPredictions]], held_out: NDArray[np.int64], metric: str
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """For each fold, choose the setting that is best on the other images, and measure it there.

    Args:
        ranked: for each setting, the predictions from
            :attr:`~promerge_fo.dataset.evaluation.coco_metrics.Scores.ranked`.
        held_out: (n, images) int64: for each of n folds, 1 for its images and 0 for the others.
        metric: the metric to choose by.

    Returns:
        Three arrays (m,), for the m folds for which the metric is defined both on the fold and on
        the other images: the index of the chosen setting (the first one, if several are equal), its
        metric on the fold, and the metric of the first setting on the fold.
    """
    training = np.array([bootstrap(each, 1 - held_out)[metric] for each in ranked])
    test = np.array([bootstrap(each, held_out)[metric] for each in ranked])
    is_defined = np.isfinite(training).all(axis=0) & np.isfinite(test).all(axis=0)
    training, test = training[:, is_defined], test[:, is_defined]
    picks = training.argmax(axis=0)
    return picks, test[picks, np.arange(len(picks))], test[0]


def assign_folds(
    has_objects: NDArray[np.bool_], folds: int, repeats: int, seed: int
) -> NDArray[np.int64]:
    """Divide images at random into folds of equal size, with equally many that have objects.

    Args:
        has_objects: (images,) bool: whether an image has objects.
        folds: the number of folds.
        repeats: how often to divide the images, differently each time.
        seed: the seed of the random numbers.

    Returns:
        (repeats * folds, images) int64: for each fold, 1 for its images and 0 for the others.
    """
    rng = np.random.default_rng(seed)
    members = np.zeros((repeats, folds, len(has_objects)), dtype=np.int64)
    for repeat in members:
        order = rng.permutation(len(has_objects))
        order = order[np.argsort(~has_objects[order], kind="stable")]  # those with objects first
        repeat[np.arange(len(order)) % folds, order] = 1
    return members.reshape(repeats * folds, len(has_objects))
