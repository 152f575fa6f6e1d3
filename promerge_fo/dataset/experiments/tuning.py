"""Settings chosen on a user's own labelled images, and how sure the choice is."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promerge_fo.config import Config, MaskCutConfig, ProMergeConfig, TokenCutConfig
from promerge_fo.dataset.evaluation.coco_metrics import METRICS, Sweep, bootstrap
from promerge_fo.dataset.experiments.ablation import ablate
from promerge_fo.dataset.experiments.settings import grid
from promerge_fo.dataset.experiments.tuning_result import Tuning, mean_interval
from promerge_fo.encoder.base import Encoder
from promerge_fo.progress import ShowProgress

__all__ = ["SEARCH", "search_space", "tune"]

SEARCH: dict[type[Config], dict[str, list[float]]] = {
    ProMergeConfig: {"stride": [2, 4], "tau_b": [0.1, 0.2, 0.3, 0.4], "tau_f_merge": [0, 0.1, 0.3]},
    MaskCutConfig: {"cuts": [1, 2, 3, 5], "tau": [0.1, 0.15, 0.2, 0.3]},
    TokenCutConfig: {"tau": [0.05, 0.1, 0.2, 0.3, 0.4]},
}
"""What is tried where nothing else is said: of ProMerge what the paper's Fig. 6 shows to matter."""


def search_space(config: Config, **values: Any) -> dict[str, Config]:
    """Settings to choose from: a configuration as it is, and a grid around it.

    Args:
        config: comes first, under the name ``"as given"``.
        values: of each parameter, those to try; by default those of :data:`SEARCH`.

    Raises:
        TypeError, ValueError: no parameter of the method, or no value of it; no values.

    Examples:
        >>> list(search_space(TokenCutConfig(), tau=[0.1, 0.2, 0.3]))
        ['as given', 'tau=0.1', 'tau=0.3']
    """
    around = grid(config, **(values or SEARCH[type(config)]))
    return {"as given": config, **{name: c for name, c in around.items() if c != config}}


def tune(
    samples: Any,
    settings: Mapping[str, Config] | None = None,
    gt_field: str = "ground_truth",
    *,
    encoder: Encoder,
    folder: str | os.PathLike[str],
    metric: str = "AP",
    folds: int = 5,
    repeats: int = 20,
    confidence: float = 0.95,
    threads: int | None = None,
    seed: int = 0,
    progress: ShowProgress = None,
) -> Tuning:
    """Choose among settings by AP on images with ground truth; some 50 will do.

    The highest AP on the very images that it was chosen by promises too much. What the choice is
    worth is therefore measured by repeated cross-validation: the images are dealt into folds, the
    setting that is best on all folds but one is measured on that one, beside the first setting.
    Where the gain's interval holds 0, the data cannot tell: :attr:`Tuning.choice` is then the first
    setting, and the page says so.

    Args:
        samples: a dataset or a view of images.
        settings: configurations by name, of any methods; the first is what is used without better
            knowledge. By default :func:`search_space` of ``ProMergeConfig()``.
        gt_field: the field with the ground truth.
        encoder: of all settings.
        folder: keeps features and results, as :func:`~promerge_fo.dataset.ablate` does; what is
            there is not calculated again.
        metric: what is chosen by: a name of COCO's ("AP", "AP50", "AR100", ...).
        folds: of the cross-validation.
        repeats: how often the images are dealt anew.
        confidence: of the intervals, in (0, 1).
        threads: as in :func:`~promerge_fo.dataset.ablate`.
        seed: of the dealing and of the bootstrap.
        progress: whether to show a bar (None: as FiftyOne's config says), or what makes one; see
            :data:`promerge_fo.progress.ShowProgress`.

    Raises:
        ValueError: another metric; one setting alone; fewer images with objects than two a fold;
            and what :func:`~promerge_fo.dataset.ablate` raises.

    Examples:
        >>> tuning = tune(dataset, encoder=encoder, folder="tuning/")  # doctest: +SKIP
        >>> print(tuning)  # doctest: +SKIP
        >>> model = load_model(config=tuning.config, encoder=encoder)  # doctest: +SKIP
    """
    if metric not in METRICS:
        raise ValueError(f"there is no metric {metric!r}; the metrics are: {', '.join(METRICS)}")
    if folds < 2 or repeats < 1:
        raise ValueError(
            f"cross-validation wants 2 folds and 1 repeat at least, got {folds} and {repeats}"
        )
    chosen_from = search_space(ProMergeConfig()) if settings is None else dict(settings)
    if len(chosen_from) < 2:
        raise ValueError("there is nothing to choose from; give two settings or more")
    labelled = sum(bool(each) for each in samples.values(f"{gt_field}.detections"))
    if labelled < 2 * folds:
        raise ValueError(
            f"{labelled} images have objects in {gt_field}, but cross-validation with {folds} "
            f"folds wants {2 * folds} at least; label more images, or take fewer folds"
        )
    ablation = ablate(
        samples, chosen_from, gt_field, encoder=encoder, folder=folder, threads=threads,
        confidence=confidence, seed=seed, progress=progress,
    )  # fmt: skip
    sweeps = [outcome.scores[ablation.kind].sweeps for outcome in ablation.outcomes.values()]
    held_out = deal(sweeps[0]["all"].objects > 0, folds, repeats, seed)
    picks, worth, before = cross_validate(sweeps, held_out, metric)
    if not len(picks):
        raise ValueError(
            f"{metric} cannot be measured on parts of these images, as objects for it are missing; "
            "choose by AP, or label more images"
        )
    shares = np.bincount(picks, minlength=len(sweeps)) / len(picks)
    return Tuning(
        ablation,
        metric,
        folds,
        repeats,
        dict(zip(chosen_from, shares.tolist(), strict=True)),
        mean_interval(worth, folds, confidence),
        mean_interval(before, folds, confidence),
        mean_interval(worth - before, folds, confidence),
    )


def cross_validate(
    sweeps: Sequence[dict[str, Sweep]], held_out: NDArray[np.int64], metric: str
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Choose a setting without each fold, and measure it on that fold.

    Args:
        sweeps: of each setting, :attr:`~promerge_fo.dataset.evaluation.coco_metrics.Scores.sweeps`.
        held_out: (n, images): 1 for the images of each fold, 0 for the others.
        metric: to choose by.

    Returns:
        Of the m folds on which and without which the metric can be measured: the setting that was
        chosen, the first of equal ones; its figure on the fold; that of the first setting.
    """
    learnt = np.array([bootstrap(each, 1 - held_out)[metric] for each in sweeps])
    tested = np.array([bootstrap(each, held_out)[metric] for each in sweeps])
    known = np.isfinite(learnt).all(axis=0) & np.isfinite(tested).all(axis=0)
    picks = learnt[:, known].argmax(axis=0)
    tested = tested[:, known]
    return picks, tested[picks, np.arange(len(picks))], tested[0]


def deal(has_objects: NDArray[np.bool_], folds: int, repeats: int, seed: int) -> NDArray[np.int64]:
    """Deal images into folds of equal size, those with objects evenly among them.

    Args:
        has_objects: (images,) bool.
        folds: how many.
        repeats: how often; each time in another order.
        seed: of the orders.

    Returns:
        (repeats * folds, images): 1 for the images of each fold, 0 for the others.
    """
    rng = np.random.default_rng(seed)
    dealt = np.zeros((repeats, folds, len(has_objects)), dtype=np.int64)
    for times in dealt:
        order = rng.permutation(len(has_objects))
        order = order[np.argsort(~has_objects[order], kind="stable")]
        times[np.arange(len(order)) % folds, order] = 1
    return dealt.reshape(repeats * folds, len(has_objects))
