"""Calibration: ProMerge's thresholds for the features of any encoder, from images without labels.

The paper's thresholds are cosines of DINO's keys, which lie about zero. The features of other
encoders have another floor and spread: where nearly all patches are alike, one mask is the whole
image, and nothing is left. So the thresholds are put at fixed quantiles of the cosines of an
image's patches. Where the median cosine is over 0.7, patches have too much in common: the mean
feature of the images is subtracted before.

The stride gives any grid of patches about as many prompts.

Even so, no one threshold suits all images. So masks of several levels (see
:mod:`.segment.proposals`) are united and ranked; the default keeps the forty best of an image, the
preset "proposals" up to a hundred. A small background is one, too: with levels, an image without
masks is worse than a doubtful one.

Where no facet was named, it is the one whose ten best masks of an image the other facets confirm
most, by IoU. (Scores of masks do not compare facets: they rise where features are centred.)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from promerge_fo.config import PRESETS, Config, ProMergeConfig
from promerge_fo.encoder.base import Encoder
from promerge_fo.images import ImageError, ImageLike, as_rgb, load_image
from promerge_fo.progress import ShowProgress, progress_bar
from promerge_fo.segment import trace_segmentation

__all__ = ["IMAGES", "SHOWN", "Calibration", "calibrate"]

IMAGES = 32  #: that are measured, evenly spaced among those that are given
COMPARED_IMAGES = 16  #: of them, on which facets are compared by their masks
SHOWN = (5, 25, 50, 75, 95)  #: percentiles of the cosines that are reported
PATCHES = 512  #: of an image, at most, whose cosines are measured
PROMPTS = 18  #: on a side of the image
COMPARED_MASKS = 10  #: of an image, the best ones, by which facets are compared
ALIKE = 0.7  #: median cosine above which features are centred

#: Quantiles of the cosines at which the thresholds are put: of features as they are, or centred.
QUANTILES = {"tau_b": 0.42, "tau_f_bg": 0.48, "low_tau_b": 0.52, "high_tau_b": 0.82}
CENTRED_QUANTILES = {"tau_b": 0.52, "tau_f_bg": 0.55, "low_tau_b": 0.58, "high_tau_b": 0.84}
#: What makes one level into several, and keeps the best masks.
_LEVELS = {
    **{k: v for k, v in PRESETS["proposals"].items() if k not in QUANTILES},
    "max_masks": 40,
}


@dataclass(frozen=True)
class Calibration:
    """How the features of one encoder are centred, and the thresholds for them.

    Attributes:
        encoder: the identity of the encoder, with its facet.
        images: the number of images measured.
        before: the 5, 25, 50, 75 and 95 % percentiles of the cosines of an image's patches.
        after: the same of the centred features; those of ``before`` where they are not centred.
        is_centred: whether the mean feature is subtracted.
        centre: (C,) the mean feature.
        parameters: of :class:`~promerge_fo.ProMergeConfig`: thresholds, and the stride.
        reasons: what was measured and chosen, in words.
    """

    encoder: Mapping[str, Any]
    images: int
    before: Sequence[float]
    after: Sequence[float]
    is_centred: bool
    centre: Sequence[float]
    parameters: Mapping[str, float]
    reasons: Sequence[str]

    @property
    def facet(self) -> str:
        """The facet that was chosen, or named by the user."""
        return str(self.encoder["facet"])

    def __str__(self) -> str:
        return "; ".join(self.reasons)

    def configure(self, config: Config) -> Config:
        """The configuration with the thresholds, but for the parameters that the user named.

        Args:
            config: of ProMerge, with scores that rank masks.

        Raises:
            ValueError: a configuration whose thresholds must stay: of MaskCut or TokenCut, or with
                the constant scores of the paper's presets.
        """
        if not isinstance(config, ProMergeConfig) or not config.can_calibrate:
            raise ValueError(
                f"a calibration is given for {config.method} with the score "
                f"{config.score.value!r}, but it is only for ProMerge with a score that ranks "
                "masks; leave the calibration out, or take another preset"
            )
        levels = {} if config.levels > 1 else _LEVELS
        return config.suggest(**{**levels, "min_background_area": 0.0, **self.parameters})

    def to_dict(self) -> dict[str, Any]:
        """A dictionary for JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """The inverse of :meth:`to_dict`."""
        return cls(**values)


def calibrate(
    encoder: Encoder, images: Sequence[ImageLike], *, progress: ShowProgress = False
) -> Calibration:
    """Measure an encoder's features on some images, and choose centre, thresholds and facet.

    Args:
        encoder: an encoder, such as :func:`promerge_fo.load_encoder` gives. If its facet was not
            named, it is chosen.
        images: paths, PIL images or arrays (H, W, 3) uint8 of the kind that will be segmented.
            :data:`IMAGES` of them are measured, evenly spaced, so that the choice is the same each
            time; those that cannot be read are left out.
        progress: see :data:`promerge_fo.progress.ShowProgress`.

    Raises:
        ValueError: no image, none that can be read, or features that are not finite.

    Examples:
        >>> from promerge_fo import load_encoder
        >>> from skimage.data import astronaut, coffee
        >>> calibration = calibrate(load_encoder("texture"), [astronaut(), coffee()])
        >>> calibration.images, len(calibration.centre), sorted(calibration.parameters)
        (2, 15, ['high_tau_b', 'low_tau_b', 'stride', 'tau_b', 'tau_f_bg'])
    """
    measured = {facet: _Features() for facet in encoder.facets}
    for count, pixels in enumerate(_readable(encoder, images, progress)):
        for facet, features in encoder.facets_of(pixels).items():
            measured[facet].add(features, keep=count % (IMAGES // COMPARED_IMAGES) == 0)
    found = {facet: _calibration(encoder, facet, features) for facet, features in measured.items()}
    if len(found) == 1:
        return next(iter(found.values()))
    masks = {facet: measured[facet].best_masks(c) for facet, c in found.items()}
    shares = {facet: _confirmed(masks, facet) for facet in masks}
    best = max(shares, key=lambda facet: shares[facet])
    others = ", ".join(f"{facet} {share:.2f}" for facet, share in shares.items() if facet != best)
    why = (
        f"facet {best!r}: the others confirm its {COMPARED_MASKS} best masks most (mean "
        f"IoU {shares[best]:.2f}; {others})"
    )
    return replace(found[best], reasons=[*found[best].reasons, why])


def _confirmed(masks: Mapping[str, Sequence[NDArray[np.bool_]]], facet: str) -> float:
    """The mean IoU of a facet's masks with the nearest masks of each other facet.

    ``masks`` of each facet: (n, h, w) for each image; those that an image lacks count as 0.
    """
    shares = []
    for other in masks.keys() - {facet}:
        for own, theirs in zip(masks[facet], masks[other], strict=True):
            a, b = (m.reshape(len(m), prod(m.shape[1:])).astype(np.float32) for m in (own, theirs))
            shared = a @ b.T
            iou = shared / np.maximum(a.sum(1)[:, None] + b.sum(1) - shared, 1)
            shares.append(iou.max(axis=1, initial=0).sum() / COMPARED_MASKS)
    return float(np.mean(shares))


def _readable(
    encoder: Encoder, images: Sequence[ImageLike], progress: ShowProgress
) -> Iterator[NDArray[np.uint8]]:
    """The images that are measured, as the encoder takes them."""
    if len(images) == 0:
        raise ValueError("there are no images to calibrate on; give some that will be segmented")
    chosen = np.unique(np.linspace(0, len(images) - 1, IMAGES).round().astype(int))
    good, error = 0, ""
    with progress_bar(progress, len(chosen)) as bar:
        for i in chosen:
            image = images[i]
            try:
                pixels = as_rgb(image) if isinstance(image, np.ndarray) else load_image(image)
                yield encoder.transform(pixels)
                good += 1
            except (ImageError, OSError) as problem:
                error = str(problem)
            bar.update(1)
    if good == 0:
        raise ValueError(
            f"none of {len(chosen)} images that a calibration would measure can be read ({error}); "
            "give others, or do without (calibrate=False)"
        )


class _Features:
    """What is kept of the features of one facet: their mean, some patches, some images."""

    def __init__(self) -> None:
        self.images = 0
        self.side = 0.0  # of the grid, in patches
        self._total: NDArray[np.float64] = np.zeros(0)
        self._patches: list[torch.Tensor] = []
        self._compared: list[torch.Tensor] = []

    def add(self, features: torch.Tensor, keep: bool) -> None:
        """Add one image's (C, h, w)."""
        flat = features.flatten(1)
        if not bool(torch.isfinite(flat).all()):
            raise ValueError("an image has features that are NaN or infinite; try precision='fp32'")
        mean = flat.mean(dim=1).cpu().double().numpy()
        self._total = mean + (self._total if self.images else 0)
        self._patches.append(flat[:, :: -(-flat.shape[1] // PATCHES)].cpu())
        self.side = flat.shape[1] ** 0.5
        if keep:
            self._compared.append(features.half().cpu())
        self.images += 1

    @property
    def centre(self) -> list[float]:
        """The mean feature: of four digits, so that it does not depend on the machine."""
        return [float(f"{value:.4g}") for value in self._total / self.images]

    def cosines(self, centre: Sequence[float]) -> NDArray[np.float32]:
        """All cosines of patches of the same image."""
        subtracted = torch.tensor(centre, dtype=torch.float32)[:, None]
        units = (torch.nn.functional.normalize(x - subtracted, dim=0) for x in self._patches)
        return np.concatenate([(unit.T @ unit).flatten().numpy() for unit in units])

    def best_masks(self, calibration: Calibration) -> list[NDArray[np.bool_]]:
        """The best masks (n, h, w) of each image that was kept."""
        config = calibration.configure(ProMergeConfig())
        features = [each.float() for each in self._compared]
        if calibration.is_centred:
            centre = torch.tensor(calibration.centre, dtype=torch.float32)[:, None, None]
            features = [each - centre for each in features]
        found = [trace_segmentation(each, config).instances.masks for each in features]
        return [masks[:COMPARED_MASKS] for masks in found]


def _calibration(encoder: Encoder, facet: str, features: _Features) -> Calibration:
    """The calibration for one facet."""
    centre, quantiles = features.centre, QUANTILES
    before = cosines = features.cosines([0.0] * len(centre))
    is_centred = bool(np.median(before) > ALIKE)
    if is_centred:
        cosines, quantiles = features.cosines(centre), CENTRED_QUANTILES
    values = np.quantile(cosines, list(quantiles.values()))
    thresholds = {
        name: round(float(value), 3) for name, value in zip(quantiles, values, strict=True)
    }
    shown = [np.percentile(c, SHOWN).round(3).tolist() for c in (before, cosines)]
    put = ", ".join(f"{name} {value:g}" for name, value in thresholds.items())
    stride = max(1, round(features.side / PROMPTS))
    centred = (
        f"their median is over {ALIKE}, so the mean feature is subtracted: {_listed(shown[1])}"
        if is_centred
        else f"their median is at most {ALIKE}, so the features stay as they are"
    )
    reasons = [
        f"{features.images} images measured with {encoder.name}, facet {facet!r}",
        f"cosines of patches are {_listed(shown[0])} (5, 25, 50, 75, 95 %)",
        centred,
        f"thresholds at fixed quantiles of them: {put}",
        f"stride {stride}, for about {PROMPTS} x {PROMPTS} prompts",
    ]
    identity = {**encoder.identity(), "facet": facet}
    return Calibration(
        identity,
        features.images,
        shown[0],
        shown[1],
        is_centred,
        centre,
        {**thresholds, "stride": stride},
        reasons,
    )


def _listed(values: Sequence[float]) -> str:
    return " ".join(f"{value:.2f}" for value in values)
