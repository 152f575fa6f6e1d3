"""Patch masks to pixel masks: enlarge, dense CRF, fill holes, check, resize (Sec. 4.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from promerge_fo.config import Config, ProMergeConfig, Refine
from promerge_fo.instances import Refined
from promerge_fo.refine import dense_crf, pydensecrf
from promerge_fo.refine.resize import fill_holes, nearest_index, resize_bicubic, upsample_nearest

if TYPE_CHECKING:
    import torch

__all__ = [
    "complete",
    "crf_batch",
    "crf_size",
    "refine_batch",
    "refine_masks",
    "refine_resized",
]

_DEFAULT: Config = ProMergeConfig()


def refine_masks(
    image: NDArray[np.uint8], masks: NDArray[np.bool_], config: Config = _DEFAULT
) -> Refined:
    """Refine the patch masks of an image to masks of its pixels.

    The masks are enlarged to ``config.image_size`` pixels and snapped to the edges of the image
    there by a fully connected CRF (Krähenbühl and Koltun, 2011), their holes are filled, masks
    that agree too little with what they were are dropped, and the others take the image's size.

    Args:
        image: (H, W, 3) uint8, RGB, at any size.
        masks: (n, h, w) bool patches that cover the whole image; n may be 0.
        config: of any method: ``image_size``, ``refine``, ``fill_holes`` and ``min_refined_iou``
            matter. With ``refine="none"`` the patches are only enlarged.

    Returns:
        Masks (m, H, W) at the image's size, their indices into ``masks``, and their agreement:
        the IoU before and after refinement, at the CRF's size. Empty masks are never among them.

    Raises:
        TypeError: an image or masks of another type.
        ValueError: an image or masks of another shape.
        ImportError: ``refine="pydensecrf"`` without the package ``pydensecrf2``.

    Examples:
        >>> image = np.full((90, 120, 3), 255, dtype=np.uint8)
        >>> image[20:70, 30:95] = [200, 30, 30]
        >>> patches = np.zeros((1, 12, 12), dtype=bool)
        >>> patches[0, 3:9, 3:9] = True  # rows 22 to 67, columns 30 to 90
        >>> refined = refine_masks(image, patches)
        >>> refined.masks.shape, refined.kept.tolist()
        ((1, 90, 120), [0])
        >>> bool((refined.masks[0] == (image[..., 1] == 30)).mean() > 0.98)
        True
    """
    _check_image(image)
    return refine_resized(image, masks, (image.shape[0], image.shape[1]), config)


def refine_resized(
    resized: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    size: tuple[int, int],
    config: Config = _DEFAULT,
) -> Refined:
    """Like :func:`refine_masks`, with an image that was made smaller before.

    Args:
        resized: (H', W', 3) uint8, RGB; best at :func:`crf_size`, else it is resized to that.
        masks: (n, h, w) bool patches.
        size: (H, W) of the image, in pixels: the size of the masks that are returned.
        config: as for :func:`refine_masks`.

    Returns:
        As :func:`refine_masks`.

    Raises:
        TypeError, ValueError, ImportError: as :func:`refine_masks`.
    """
    _check_image(resized)
    _check_masks(masks)
    size = _checked_size(size)
    if config.refine is Refine.NONE:
        enlarged = upsample_nearest(masks, size)
        return _non_empty(enlarged, np.arange(len(masks)), np.ones(len(masks), np.float32))

    image = _at_crf_size(resized, masks, config)
    before = upsample_nearest(masks, (image.shape[0], image.shape[1]))
    if config.refine is Refine.CRF:
        after = dense_crf.dense_crf(image, before)
    else:
        after = pydensecrf.pydensecrf(image, before)
    return _complete(before, after, size, config)


def refine_batch(
    images: Sequence[NDArray[np.uint8]],
    masks: Sequence[NDArray[np.bool_]],
    sizes: Sequence[tuple[int, int]],
    config: Config = _DEFAULT,
    device: torch.device | str = "cpu",
) -> list[Refined]:
    """:func:`refine_resized` for several images, with their CRF on a device, together.

    On a CPU, :func:`refine_resized` is faster. The steps after the CRF are the CPU's in any case;
    to spread them over threads, call :func:`crf_batch`, and :func:`complete` for each image.

    Args:
        images: (H', W', 3) uint8 each, RGB, best at :func:`crf_size`.
        masks: (n, h, w) bool patches of each image; n may be 0.
        sizes: (H, W) of each image.
        config: as for :func:`refine_masks`. The device only matters with ``refine="crf"``.
        device: where the CRF runs.

    Returns:
        What :func:`refine_resized` gives for each image, up to the rounding of float32.

    Raises:
        TypeError, ValueError, ImportError: as :func:`refine_masks`; sequences of different lengths.
    """
    if not len(images) == len(masks) == len(sizes):
        raise ValueError(
            f"there are {len(images)} images, {len(masks)} arrays of masks and {len(sizes)} sizes, "
            "but there must be one of each for each image"
        )
    if config.refine is not Refine.CRF:
        return [refine_resized(*each, config) for each in zip(images, masks, sizes, strict=True)]
    sizes = [_checked_size(size) for size in sizes]
    snapped = crf_batch(images, masks, config, device)
    return [complete(*each, config) for each in zip(masks, snapped, sizes, strict=True)]


def crf_batch(
    images: Sequence[NDArray[np.uint8]],
    masks: Sequence[NDArray[np.bool_]],
    config: Config = _DEFAULT,
    device: torch.device | str = "cpu",
) -> list[NDArray[np.bool_]]:
    """The first step of :func:`refine_batch`: enlarge the masks and snap them to the edges.

    Images whose grids of patches have one shape go through the CRF together. Images without masks
    cost nothing.

    Args:
        images: (H', W', 3) uint8 each, RGB, best at :func:`crf_size`.
        masks: (n, h, w) bool patches of each image; n may be 0.
        config: ``refine`` must be "crf"; ``image_size`` matters.
        device: where the CRF runs.

    Returns:
        (n, height, width) bool for each image, at its :func:`crf_size`: what :func:`complete`
        takes. Images of one grid share the memory.

    Raises:
        TypeError, ValueError: as :func:`refine_masks`; another ``refine``; not as many arrays of
            masks as images.
    """
    if config.refine is not Refine.CRF:
        raise ValueError(
            f'refine is "{config.refine.value}", but crf_batch is only for "crf"; refine_batch '
            "takes all"
        )
    if len(images) != len(masks):
        raise ValueError(f"there are {len(images)} images, but {len(masks)} arrays of masks")
    groups: dict[tuple[int, int], list[int]] = {}
    for i, (image, patches) in enumerate(zip(images, masks, strict=True)):
        _check_image(image)
        _check_masks(patches)
        groups.setdefault((patches.shape[1], patches.shape[2]), []).append(i)
    snapped: list[NDArray[np.bool_]] = [np.empty(0, dtype=bool)] * len(images)
    for grid, members in groups.items():
        some = [i for i in members if len(masks[i])]
        for i in set(members).difference(some):
            snapped[i] = np.zeros((0, *crf_size(grid, config)), dtype=bool)
        if some:
            pixels = np.stack([_at_crf_size(images[i], masks[i], config) for i in some])
            after = _crf_on_device(pixels, [masks[i] for i in some], device)
            stops = np.cumsum([len(masks[i]) for i in some])
            for i, part in zip(some, np.split(after, stops[:-1]), strict=True):
                snapped[i] = part
    return snapped


def _crf_on_device(
    images: NDArray[np.uint8], masks: list[NDArray[np.bool_]], device: torch.device | str
) -> NDArray[np.bool_]:
    """(N, H, W) bool: the patch masks of all images (B, H, W, 3), enlarged and refined."""
    import torch

    from promerge_fo.refine.torch_crf import dense_crf_batch

    owners = np.repeat(np.arange(len(masks)), [len(patches) for patches in masks])
    patches = np.concatenate(masks)
    # Enlarged there, because patches are the smaller ones to copy.
    rows, columns = map(nearest_index, patches.shape[1:], images.shape[1:3])
    enlarged = torch.from_numpy(patches).to(device)
    for axis, index in ((2, columns), (1, rows)):
        enlarged = enlarged.index_select(axis, torch.from_numpy(index).to(device))
    refined = dense_crf_batch(
        torch.from_numpy(images).to(device), enlarged, torch.from_numpy(owners).to(device)
    )
    return np.asarray(refined.cpu().numpy(), dtype=bool)


def complete(
    masks: NDArray[np.bool_],
    snapped: NDArray[np.bool_],
    size: tuple[int, int],
    config: Config = _DEFAULT,
) -> Refined:
    """The second step of :func:`refine_batch`, for one image: what is done after the CRF.

    Holes are filled, masks that agree too little with what they were are dropped, the others take
    the image's size. Runs without the GIL for the most part, so that threads help.

    Args:
        masks: (n, h, w) bool patches of the image.
        snapped: (n, height, width) bool of the image, from :func:`crf_batch`.
        size: (H, W) of the image, in pixels: the size of the masks that are returned.
        config: ``fill_holes`` and ``min_refined_iou`` matter.

    Returns:
        As :func:`refine_masks`.

    Raises:
        TypeError, ValueError: masks as :func:`refine_masks`; a size below 1; not as many masks
            after the CRF as before it.
    """
    _check_masks(masks)
    _check_masks(snapped)
    if len(masks) != len(snapped):
        raise ValueError(f"there are {len(masks)} masks, but {len(snapped)} after the CRF")
    before = upsample_nearest(masks, (snapped.shape[1], snapped.shape[2]))
    return _complete(before, snapped, _checked_size(size), config)


def _complete(
    before: NDArray[np.bool_],
    after: NDArray[np.bool_],
    size: tuple[int, int],
    config: Config,
) -> Refined:
    if config.fill_holes:
        after = fill_holes(after)
    agreement = _iou(before, after)
    kept = np.flatnonzero(agreement >= config.min_refined_iou)
    return _non_empty(resize_bicubic(after[kept], size), kept, agreement[kept])


def crf_size(grid: tuple[int, int], config: Config = _DEFAULT) -> tuple[int, int]:
    """The size at which the CRF works for a grid of patches.

    Args:
        grid: (h, w) patches.
        config: ``image_size`` matters.

    Returns:
        (height, width) in pixels: ``image_size`` squared for a square grid; else the grid's
        shape with as many pixels, up to rounding.

    Examples:
        >>> crf_size((60, 60)), crf_size((45, 80))
        ((480, 480), (360, 640))
    """
    scale = config.image_size / math.sqrt(grid[0] * grid[1])
    return max(round(grid[0] * scale), 1), max(round(grid[1] * scale), 1)


def _at_crf_size(
    image: NDArray[np.uint8], masks: NDArray[np.bool_], config: Config
) -> NDArray[np.uint8]:
    """The image at the size at which the CRF works for these patches."""
    height, width = crf_size((masks.shape[1], masks.shape[2]), config)
    if image.shape[:2] == (height, width):
        return image
    lanczos = Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(image).resize((width, height), lanczos))


def _iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(n,) IoU of masks (n, H, W) pairwise; 0 for two empty masks."""
    pairs = list(zip(a, b, strict=True))
    common = np.array([np.count_nonzero(x & y) for x, y in pairs], dtype=np.float64)
    either = np.array([np.count_nonzero(x | y) for x, y in pairs], dtype=np.float64)
    return (common / np.maximum(either, 1.0)).astype(np.float32)


def _non_empty(
    masks: NDArray[np.bool_], kept: NDArray[np.int64], agreement: NDArray[np.float32]
) -> Refined:
    some = masks.any(axis=(1, 2))
    if not some.all():
        masks, kept, agreement = masks[some], kept[some], agreement[some]
    return Refined(masks, kept, agreement)


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    height, width = int(size[0]), int(size[1])
    if min(height, width) < 1:
        raise ValueError(
            f"size is {(height, width)}, but must be the image's (height, width), at least 1"
        )
    return height, width


def _check_image(image: Any) -> None:
    how = "np.asarray(PIL.Image.open(path).convert('RGB')) gives one"
    wanted = f"a uint8 array (H, W, 3), RGB, with H and W at least 1; {how}"
    if not isinstance(image, np.ndarray):
        raise TypeError(f"the image is of type {type(image).__name__}, but must be {wanted}")
    if image.dtype != np.uint8:
        raise TypeError(f"the image is {image.dtype} {image.shape}, but must be {wanted}")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"the image has the shape {image.shape}, but must be {wanted}")


def _check_masks(masks: Any) -> None:
    wanted = "a boolean array (n, h, w) of patches, with h and w at least 1"
    if not isinstance(masks, np.ndarray):
        raise TypeError(
            f"the masks are of type {type(masks).__name__}, but must be {wanted}; "
            "np.asarray(masks, dtype=bool) makes one of lists and tensors"
        )
    if masks.dtype != np.bool_:
        raise TypeError(
            f"the masks are {masks.dtype} {masks.shape}, but must be {wanted}: "
            "use masks.astype(bool)"
        )
    if masks.ndim != 3 or 0 in masks.shape[1:]:
        raise ValueError(
            f"the masks have the shape {masks.shape}, but must be {wanted}; "
            "for a single mask use masks[None]"
        )
