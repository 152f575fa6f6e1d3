"""The base of all encoders: resizing, batches, less memory on demand, and an identity."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from promerge_fo.images import as_rgb

if TYPE_CHECKING:
    import torch

__all__ = ["MAX_ASPECT", "Encoder", "Facet", "PerImage", "Precision", "Resize", "ResizeMode"]

Facet: TypeAlias = Literal["key", "query", "value", "token", "normed_token"]
Precision: TypeAlias = Literal["fp32", "bf16", "auto"]
ResizeMode: TypeAlias = Literal["square", "aspect"]
PerImage: TypeAlias = "torch.Tensor | list[torch.Tensor]"
"""One tensor (B, ...) if all images have one size ("square"), else a list of B tensors."""

MAX_ASPECT = 8.0
"""The largest ratio of an image's sides that "aspect" keeps; longer images are squeezed to it."""


@dataclass(frozen=True)
class Resize:
    """Images to whole patches; picklable, for DataLoader workers.

    ``"square"`` makes every image ``image_size`` x ``image_size``, as the paper does (Sec. 4.1).
    ``"aspect"`` keeps the aspect ratio, up to :data:`MAX_ASPECT`, and about the same number of
    patches: rows = image_size / patch_size * sqrt(H / W), rounded, and columns accordingly.

    Args:
        image_size: pixels; rounded down to whole patches.
        patch_size: pixels.
        resize: ``"square"`` or ``"aspect"``.

    Raises:
        ValueError: an unknown ``resize``, or an ``image_size`` under one patch or over 8192.

    Examples:
        >>> Resize(480, 14).image_size
        476
        >>> Resize(480, 8, "aspect").grid(300, 600)
        (42, 85)
    """

    image_size: int = 480
    patch_size: int = 8
    resize: ResizeMode = "square"

    def __post_init__(self) -> None:
        if self.resize not in get_args(ResizeMode):
            raise ValueError(f"resize is {self.resize!r}, but must be 'square' or 'aspect'")
        if (
            self.image_size != int(self.image_size)
            or not self.patch_size <= self.image_size <= 8192
        ):
            raise ValueError(
                f"image_size is {self.image_size}, but must be a whole number of pixels in "
                f"[{self.patch_size}, 8192] (one patch is {self.patch_size} pixels)"
            )
        whole = int(self.image_size) // self.patch_size * self.patch_size
        object.__setattr__(self, "image_size", whole)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches that an image of this size (pixels) gets."""
        side = self.image_size // self.patch_size
        if self.resize == "square":
            return side, side
        ratio = float(np.clip(height / width, 1 / MAX_ASPECT, MAX_ASPECT))
        return max(1, round(side * ratio**0.5)), max(1, round(side / ratio**0.5))

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 to (h * patch_size, w * patch_size, 3) uint8, by Pillow's LANCZOS."""
        h, w = self.grid(*image.shape[:2])
        size = w * self.patch_size, h * self.patch_size
        return np.array(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


class Encoder(ABC):
    """Images to patch features.

    Attributes:
        name: the encoder's name, as :func:`promerge_fo.load_encoder` takes it.
        facet: which features: ``"key"``, ``"query"``, ``"value"``, ``"token"`` or
            ``"normed_token"``; the texture encoder has ``"texture"``.
        precision: ``"fp32"`` or ``"bf16"``: of the calculation. Features are always float32.
        image_size: side in pixels of a square image, in whole patches.
        resize: ``"square"`` or ``"aspect"``.
        device: of the calculation.
        facets: the facets that a calibration may choose of; :attr:`facet` alone if it was named.
        patch_size: side of a patch in pixels.
        weights_sha256: SHA-256 of the weights' file; None without weights.
        weights_source: where the weights came from, as text.
        transform: turns an image (H, W, 3) uint8 into one for :meth:`encode`; picklable.
    """

    def __init__(
        self,
        *,
        name: str,
        facet: str,
        precision: str,
        transform: Resize,
        device: torch.device,
        weights_sha256: str | None,
        weights_source: str,
    ) -> None:
        self.name = name
        self.facet = facet
        self.facets: tuple[str, ...] = (facet,)
        self.precision = precision
        self.transform = transform
        self.image_size = transform.image_size
        self.patch_size = transform.patch_size
        self.resize = transform.resize
        self.device = device
        self.weights_sha256 = weights_sha256
        self.weights_source = weights_source
        self._fits: int | None = None  # largest batch after memory ran out once

    @abstractmethod
    def _encode(
        self, pixels: torch.Tensor, with_prompt_scores: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Features (B, C, h, w) and prompt scores (B, h, w), new, on :attr:`features_device`.

        ``pixels`` (B, H, W, 3) uint8 are in the host's memory, which is pinned for a CUDA device.
        """

    def _encode_for_both(
        self, pixels: torch.Tensor, with_prompt_scores: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """As :meth:`_encode`, and the features of embeddings: the same, unless told otherwise."""
        features, scores = self._encode(pixels, with_prompt_scores)
        return features, scores, features

    @property
    def features_device(self) -> torch.device:
        """Where the features are: on CUDA where they are calculated, else on the CPU."""
        from promerge_fo.encoder.device import features_device

        return features_device(self.device)

    @property
    def has_prompt_scores(self) -> bool:
        """Whether :meth:`encode` can give prompt scores, which takes a class token."""
        return False

    @property
    def wants_calibration(self) -> bool:
        """Whether the paper's thresholds may not suit the features; see :mod:`..calibration`."""
        return True

    def with_facet(self, facet: str) -> Encoder:
        """The same encoder with one of :attr:`facets`.

        Raises:
            ValueError: it is none of them.
        """
        if facet != self.facet:
            raise ValueError(
                f"facet is {facet!r}, but {self.name} has {' or '.join(map(repr, self.facets))}"
            )
        return self

    def facets_of(self, pixels: NDArray[np.uint8]) -> dict[str, torch.Tensor]:
        """All :attr:`facets` of one image that :attr:`transform` has resized: (C, h, w) each."""
        return {self.facet: self.encode([pixels])[0]}

    def identity(self) -> dict[str, Any]:
        """Everything that decides the features, in types that JSON has: for the run hash."""
        return {
            "name": self.name,
            "facet": self.facet,
            "weights_sha256": self.weights_sha256,
            "precision": self.precision,
            "image_size": self.image_size,
            "resize": self.resize,
        }

    def embedding_identity(self) -> dict[str, Any]:
        """What decides the features that :meth:`encode_for_both` gives for embeddings."""
        return self.identity()

    def __call__(self, images: Sequence[Image.Image | NDArray[Any]]) -> PerImage:
        """Features of images of any size.

        Args:
            images: PIL images or arrays, usually uint8 (H, W, 3); see
                :func:`promerge_fo.images.as_rgb`.

        Returns:
            (B, C, h, w) float32 on :attr:`features_device`; with ``resize="aspect"`` a list
            of B tensors (C, h, w).

        Raises:
            ImageError: an array of a type or shape that is no image.
            ValueError: no images.
        """
        if isinstance(images, (Image.Image, str)):
            raise TypeError(f"images is one {type(images).__name__}; give a list: encoder([image])")
        return self.encode([self.transform(as_rgb(image)) for image in images])

    @overload
    def encode(
        self, batch: Sequence[NDArray[np.uint8]], with_prompt_scores: Literal[False] = False
    ) -> PerImage: ...

    @overload
    def encode(
        self, batch: Sequence[NDArray[np.uint8]], with_prompt_scores: Literal[True]
    ) -> tuple[PerImage, PerImage]: ...

    def encode(
        self, batch: Sequence[NDArray[np.uint8]], with_prompt_scores: bool = False
    ) -> PerImage | tuple[PerImage, PerImage]:
        """Features of images that :attr:`transform` has resized.

        Images of equal shape are encoded together. If the device's memory does not hold them,
        the batch is halved and tried again, down to single images, and later batches stay as
        small.

        Args:
            batch: uint8 arrays (h * patch_size, w * patch_size, 3).
            with_prompt_scores: also return prompt scores, for attention prompting (App. C).

        Returns:
            Features (B, C, h, w) float32 on :attr:`features_device`; with ``resize="aspect"`` a
            list of B tensors (C, h, w), each with its own memory. With prompt scores a pair: these
            features, and (B, h, w) float32 scores, or a list of (h, w): the sum over heads of the
            cosine between the class token's query and the patch's, in [-heads, heads]. On CUDA
            the calculation may still be going on.

        Raises:
            ValueError: no images, an image that ``transform`` has not resized, or prompt scores
                from an encoder that has none.
            torch.OutOfMemoryError: not even one image fits.
        """
        features, scores, _ = self._encode_groups(batch, with_prompt_scores, False)
        if scores is None:
            return features
        return features, scores

    def encode_for_both(
        self,
        batch: Sequence[NDArray[np.uint8]],
        with_prompt_scores: bool = False,
    ) -> tuple[PerImage, PerImage | None, PerImage]:
        """As :meth:`encode`, for masks and for embeddings, in one pass.

        Returns:
            Features; prompt scores, if they are wanted; and the features of which embeddings are
            made: the same tensors as the features, unless the encoder was told otherwise.
        """
        features, scores, embeddings = self._encode_groups(batch, with_prompt_scores, True)
        return features, scores, features if embeddings is None else embeddings

    def _encode_groups(
        self, batch: Sequence[NDArray[np.uint8]], with_prompt_scores: bool, with_embeddings: bool
    ) -> tuple[PerImage, PerImage | None, PerImage | None]:
        """Features, prompt scores, and the features of embeddings if they are others."""
        import torch

        if len(batch) == 0:
            raise ValueError("the batch is empty; give at least one image")
        if with_prompt_scores and not self.has_prompt_scores:
            raise ValueError(
                f"{self.name} has no class token, so it gives no prompt scores; "
                "use another prompting than 'attention', or a DINO model"
            )
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, image in enumerate(batch):
            self._check(image)
            groups.setdefault(image.shape, []).append(i)

        order: list[int] = []
        features: list[torch.Tensor] = []
        scores: list[torch.Tensor] = []
        embeddings: list[torch.Tensor] = []
        for members in groups.values():
            while members:
                pixels = self._on_host([batch[i] for i in members[: self._fits]], torch.uint8)
                encoded = self._encode_or_halve(pixels, with_prompt_scores, with_embeddings)
                if encoded is None:
                    continue
                order += members[: len(pixels)]
                members = members[len(pixels) :]
                features.append(encoded[0])
                if encoded[1] is not None:
                    scores.append(encoded[1])
                if encoded[2] is not None and encoded[2] is not encoded[0]:
                    embeddings.append(encoded[2])
        return (
            self._gather(order, features),
            self._gather(order, scores) if scores else None,
            self._gather(order, embeddings) if embeddings else None,
        )

    def _on_host(self, arrays: Sequence[NDArray[Any]], dtype: torch.dtype) -> torch.Tensor:
        """Arrays of one shape and of this type, stacked in the host's memory.

        For a CUDA device the memory is pinned, so that a copy to the device does not block. torch
        does not reuse pinned memory before the copies from it are done.
        """
        import torch

        shape = len(arrays), *arrays[0].shape
        stacked = torch.empty(shape, dtype=dtype, pin_memory=self.device.type == "cuda")
        np.stack(arrays, out=stacked.numpy())
        return stacked

    def _encode_or_halve(
        self, pixels: torch.Tensor, with_prompt_scores: bool, with_embeddings: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None] | None:
        """Like :meth:`_encode`; None if memory ran out: then :attr:`_fits` is half the batch."""
        from promerge_fo.encoder.device import empty_cache, out_of_memory

        try:
            if with_embeddings:
                return self._encode_for_both(pixels, with_prompt_scores)
            return *self._encode(pixels, with_prompt_scores), None
        except RuntimeError as error:
            if len(pixels) == 1 or not out_of_memory(error):
                raise
        if self._fits is None:
            warnings.warn(
                f"the memory of {self.device} does not hold {len(pixels)} images of {self.name} "
                "at once; smaller batches are used from here on. A smaller batch_size or "
                "image_size, or precision='bf16', avoids the detour",
                stacklevel=4,
            )
        self._fits = len(pixels) // 2
        empty_cache(self.device)
        return None

    def _check(self, image: NDArray[np.uint8]) -> None:
        p = self.patch_size
        given = f"an image of the batch is a {image.dtype} array {image.shape}"
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"{given}, but must be uint8 (H, W, 3); call encoder(images) instead")
        square = (self.image_size, self.image_size)
        if self.resize == "square" and image.shape[:2] != square:
            raise ValueError(f"{given}, but must be {square}; use encoder.transform")
        if image.shape[0] % p or image.shape[1] % p or image.size == 0:
            raise ValueError(
                f"{given}, but must have whole patches of {p} pixels; use encoder.transform"
            )

    def _gather(self, order: Sequence[int], parts: Sequence[torch.Tensor]) -> PerImage:
        """The images of all parts in the order of the batch.

        Args:
            order: index in the batch of each image of the parts.
            parts: (b, ...) each. With ``"square"`` they are in order already, and a single part
                is returned without a copy.
        """
        import torch

        if self.resize == "square":
            return parts[0] if len(parts) == 1 else torch.cat([*parts])
        # Copies, so that one image's features do not keep the memory of the others.
        rows = (row.clone() if len(part) > 1 else row for part in parts for row in part)
        return [row for _, row in sorted(zip(order, rows, strict=True), key=lambda pair: pair[0])]
