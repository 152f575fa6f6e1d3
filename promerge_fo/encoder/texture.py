"""Patch features from colour and texture: no weights, nothing to download."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from promerge_fo.encoder.base import Encoder, Resize, ResizeMode
from promerge_fo.encoder.device import resolve_device
from promerge_fo.kernels import kernel

__all__ = ["TextureEncoder"]

VERSION = 1  #: raised with every change of the features: it is part of the run hash
DESCRIBED = 1  #: the same of what embeddings are made of
GRADIENT, CONTRAST = np.float32(0.5), np.float32(3)  #: their weights there; that of colours is 1
PATCH_SIZE = 8
ORIENTATIONS = 8
BORDER_WEIGHT = np.float32(3)  #: of the distance from the border, where the other groups have 1
SMOOTHINGS = 20  #: passes of the edge-preserving smoothing
EDGE = np.float32(0.5)  #: difference of two patches that counts as an edge, where lengths are ~1.7
REACH = 2  #: patches to each side that one pass looks at
Array = NDArray[np.float32]


class TextureEncoder(Encoder):
    """Features that describe the colour and texture of patches, for demonstrations and tests.

    This is a demonstration aid. It shows every step from images to masks on a machine without
    weights, in some tens of milliseconds for an image; it knows nothing of objects, and its masks
    are far worse than those of DINO's features. Judge the method by ``load_encoder()`` instead.

    A patch has 15 channels in four groups: colour (brightness and two opponent colours), gradient
    orientations, contrast within the patch, and distance from the colours and textures at the
    image's border, where background is more likely than objects. The first three groups have
    equal weight, and are smoothed within regions but not across their edges, so that the patches
    of a region become alike. Each channel is centred per image, so that cosines run from -1
    (unlike) to 1 (alike).

    It is deterministic, and always calculates on the CPU in float32; the features are then moved
    to the device.

    Args:
        device: that the features are for; None is CUDA if there is one, else the CPU.
        image_size: side in pixels of a square image, rounded down to patches of 8.
        resize: ``"square"`` or ``"aspect"``.

    Raises:
        ValueError: an argument out of its range.
    """

    def __init__(
        self,
        device: str | torch.device | None = None,
        image_size: int = 480,
        resize: ResizeMode = "square",
    ) -> None:
        if device is None and not torch.cuda.is_available():
            device = "cpu"  # Apple's GPU would have nothing to do
        super().__init__(
            name="texture",
            facet="texture",
            precision="fp32",
            transform=Resize(image_size, PATCH_SIZE, resize),
            device=resolve_device(device),
            weights_sha256=None,
            weights_source="none: texture features need no weights",
        )

    @property
    def wants_calibration(self) -> bool:
        """No: the features are made for the paper's thresholds, centred in each image."""
        return False

    def identity(self) -> dict[str, Any]:
        """Everything that decides the features, in types that JSON has: for the run hash."""
        return {**super().identity(), "version": VERSION}

    def embedding_identity(self) -> dict[str, Any]:
        """As :meth:`identity`, and the version of what embeddings are made of."""
        return {**self.identity(), "described": DESCRIBED}

    def _encode(
        self, pixels: torch.Tensor, with_prompt_scores: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        return self._encode_for_both(pixels, with_prompt_scores)[:2]

    def _encode_for_both(
        self, pixels: torch.Tensor, with_prompt_scores: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        measured = [_measure(image) for image in pixels.numpy()]
        features, described = (
            self._on_device([make(*each) for each in measured])
            for make in (_features, _description)
        )
        return features, None, described

    def _on_device(self, arrays: list[Array]) -> torch.Tensor:
        on_host = self._on_host(arrays, torch.float32)
        return on_host.to(self.features_device, non_blocking=True)


def texture_features(image: NDArray[np.uint8]) -> Array:
    """The features of one image.

    Args:
        image: (8 h, 8 w, 3) uint8 RGB.

    Returns:
        (15, h, w) float32, each channel of mean 0. All zero for an image of one colour.
    """
    return _features(*_measure(image))


def texture_description(image: NDArray[np.uint8]) -> Array:
    """What embeddings of masks are made of: colour and texture that do not depend on the image.

    The features say how a patch differs from the rest of its image, so an object would have others
    on another background. These channels are neither centred nor scaled by the image, nor smoothed,
    and do not tell where the border is.

    Args:
        image: (8 h, 8 w, 3) uint8 RGB.

    Returns:
        (14, h, w) float32: the mean colour (brightness in [0, 1] and two opponent colours), the
        gradients in 8 orientations, and the contrast of each colour, so weighted that the three
        groups differ about as much between objects.
    """
    return _description(*_measure(image))


def _measure(image: NDArray[np.uint8]) -> tuple[Array, Array, Array]:
    """Of each patch the mean colour (3, h, w), gradients (8, h, w) and contrast (3, h, w)."""
    opponent = _opponent_colours(image)
    blocks = _blocks(opponent)
    return blocks.mean(axis=(3, 4)), _orientations(opponent[0]), blocks.std(axis=(3, 4))


def _description(colours: Array, gradients: Array, contrast: Array) -> Array:
    described = [colours, np.sqrt(gradients) * GRADIENT, np.sqrt(contrast) * CONTRAST]
    return np.concatenate(described).astype(np.float32)


def _features(colours: Array, gradients: Array, contrast: Array) -> Array:
    appearance = np.concatenate(
        [
            _balanced(colours),
            _balanced(np.sqrt(_blur(gradients))),
            _balanced(np.sqrt(_blur(contrast))),
        ]
    )
    for _ in range(SMOOTHINGS):
        appearance = _smooth_regions(appearance)
    appearance -= appearance.mean(axis=(1, 2), keepdims=True)
    distance = _balanced(_border_distance(appearance)[None])
    return np.concatenate([appearance, BORDER_WEIGHT * distance])


def _opponent_colours(image: NDArray[np.uint8]) -> Array:
    """(3, H, W): brightness, red against green, yellow against blue."""
    r, g, b = np.moveaxis(image.astype(np.float32) / np.float32(255), 2, 0)
    colours: Array = np.stack([(r + g + b) / 3, r - g, (r + g) / 2 - b])
    return colours


def _blocks(channels: Array) -> Array:
    """(C, H, W) pixels to (C, h, w, 8, 8) patches."""
    C, H, W = channels.shape
    p = PATCH_SIZE
    return channels.reshape(C, H // p, p, W // p, p).transpose(0, 1, 3, 2, 4)


def _orientations(brightness: Array) -> Array:
    """(8, h, w): how much gradient each patch has in each of 8 orientations in [0, pi)."""
    dy, dx = np.gradient(brightness)
    angle = np.mod(np.arctan2(dy, dx) / np.pi, 1) * ORIENTATIONS
    lower = np.floor(angle)
    share = angle - lower  # a gradient counts for the two nearest bins
    lower = lower.astype(np.int64) % ORIENTATIONS
    h, w = (side // PATCH_SIZE for side in brightness.shape)
    patch = np.arange(h * w).reshape(h, w).repeat(PATCH_SIZE, 0).repeat(PATCH_SIZE, 1)
    magnitude, n = np.hypot(dx, dy), h * w * ORIENTATIONS

    def count(orientation: NDArray[np.int64], weight: Array) -> Array:
        bins = patch * ORIENTATIONS + orientation
        return np.bincount(bins.ravel(), weight.ravel(), n).astype(np.float32)

    histogram = count(lower, magnitude * (1 - share))
    histogram += count((lower + 1) % ORIENTATIONS, magnitude * share)
    return histogram.reshape(h, w, ORIENTATIONS).transpose(2, 0, 1)


def _blur(channels: Array) -> Array:
    """Gaussian smoothing over patches, with a standard deviation of one patch."""
    return cast(Array, ndimage.gaussian_filter(channels, (0, 1, 1), mode="nearest"))


@kernel(fastmath=True)
def _smooth_regions(channels):  # type: ignore[no-untyped-def]
    """Mean over neighbours, weighted by how alike they are: a bilateral filter of patches."""
    C, h, w = channels.shape
    out = np.empty_like(channels)
    total = np.empty(C, dtype=np.float32)
    for i in range(h):
        for j in range(w):
            total[:] = 0
            weights = np.float32(0)
            for y in range(max(i - REACH, 0), min(i + REACH + 1, h)):
                for x in range(max(j - REACH, 0), min(j + REACH + 1, w)):
                    squared = np.float32(0)
                    for c in range(C):
                        squared += (channels[c, y, x] - channels[c, i, j]) ** 2
                    weight = np.exp(-squared / (2 * EDGE * EDGE))
                    weights += weight
                    for c in range(C):
                        total[c] += weight * channels[c, y, x]
            for c in range(C):
                out[c, i, j] = total[c] / weights
    return out


def _balanced(group: Array) -> Array:
    """Centred, and scaled to mean squared length 1; zeros if all patches are equal."""
    group = group - group.mean(axis=(1, 2), keepdims=True)
    power = float((group**2).sum(axis=0).mean())
    return group / np.float32(np.sqrt(power)) if power > 1e-10 else np.zeros_like(group)


def _border_distance(appearance: Array) -> Array:
    """(h, w): Mahalanobis distance of each patch from the patches at the image's border."""
    C, h, w = appearance.shape
    at_border = np.ones((h, w), dtype=bool)
    at_border[1:-1, 1:-1] = False
    border = appearance[:, at_border].astype(np.float64)
    difference = appearance.reshape(C, -1) - border.mean(axis=1, keepdims=True)
    covariance = np.cov(border, bias=True)
    covariance += (0.05 * np.trace(covariance) / C + 1e-6) * np.eye(C)
    squared = (difference * np.linalg.solve(covariance, difference)).sum(axis=0)
    distance: Array = np.sqrt(np.maximum(squared, 0)).reshape(h, w).astype(np.float32)
    return distance
