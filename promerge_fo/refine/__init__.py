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
    "refine_masks",
    "refine_resized",
]

_DEFAULT: Config = ProMergeConfig()


def refine_masks(
    image: NDArray[np.uint8], masks: NDArray[np.bool_], config: Config = _DEFAULT
) -> Refined:
    """Refine the patch masks of an image to masks of its pixels.

    The masks are enlarged to ``config.image_size`` pixels, times ``crf_scale``, and fitted to the
    edges of the image by a fully connected CRF (Krähenbühl and Koltun, 2011), their holes are
    filled, masks that have changed too much are dropped, and the others are resized to the image's
    size.

    Args:
        image: (H, W, 3) uint8, RGB, at any size.
        masks: (n, h, w) bool patches that cover the whole image; n may be 0.
        config: of any method: ``image_size``, ``crf_scale``, ``refine``, ``fill_holes`` and
            ``min_refined_iou`` are used. With ``refine="none"`` the patches are only enlarged.

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
    """Like :func:`refine_masks`, with an image that was resized before.

    Args:
        resized: (H', W', 3) uint8, RGB; at :func:`crf_size`, or it is resized to that.
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
        after = dense_crf.dense_crf(image, before, config.crf_scale)
    else:
        after = pydensecrf.pydensecrf(image, before, config.crf_scale)
    return _complete(before, after, size, config)


def crf_batch(
    images: Sequence[NDArray[np.uint8]],
    masks: Sequence[NDArray[np.bool_]],
    config: Config = _DEFAULT,
    device: torch.device | str = "cpu",
) -> list[NDArray[np.bool_]]:
    """The CRF for several images on a device, together: their masks, enlarged and refined.

    Images whose grids of patches have one shape go through the CRF together; images without masks
    cost nothing. :func:`complete` then finishes each image, several in threads side by side. The
    result is that of :func:`refine_resized`, which is faster on a CPU, up to float32's rounding.

    Args:
        images: (H', W', 3) uint8 each, RGB; at :func:`crf_size`, or they are resized to that.
        masks: (n, h, w) bool patches of each image; n may be 0.
        config: ``refine`` must be "crf"; ``image_size`` and ``crf_scale`` are used.
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
            f'refine is "{config.refine.value}", but crf_batch is only for "crf"; use '
            "refine_resized"
        )
    if len(images) != len(masks):
        raise ValueError(f"there are {len(images)} images, but {len(masks)} arrays of masks")
    refined: list[NDArray[np.bool_]] = []
    groups: dict[tuple[int, int], list[int]] = {}
    for i, (image, patches) in enumerate(zip(images, masks, strict=True)):
        _check_image(image)
        _check_masks(patches)
        grid = patches.shape[1], patches.shape[2]
        refined.append(np.zeros((0, *crf_size(grid, config)), dtype=bool))
        if len(patches):
            groups.setdefault(grid, []).append(i)
    for members in groups.values():
        pixels = np.stack([_at_crf_size(images[i], masks[i], config) for i in members])
        together = _crf_on_device(pixels, [masks[i] for i in members], device, config.crf_scale)
        stops = np.cumsum([len(masks[i]) for i in members])
        for i, part in zip(members, np.split(together, stops[:-1]), strict=True):
            refined[i] = part
    return refined


def _crf_on_device(
    images: NDArray[np.uint8],
    masks: list[NDArray[np.bool_]],
    device: torch.device | str,
    scale: float,
) -> NDArray[np.bool_]:
    """(N, H, W) bool: the patch masks of all images (B, H, W, 3), enlarged and refined."""
    import torch

    from promerge_fo.refine.torch_crf import dense_crf_batch

    owners = np.repeat(np.arange(len(masks)), [len(patches) for patches in masks])
    patches = np.concatenate(masks)
    # Enlarged on the device, because patches are quicker to copy.
    rows, columns = map(nearest_index, patches.shape[1:], images.shape[1:3])
    enlarged = torch.from_numpy(patches).to(device)
    for axis, index in ((2, columns), (1, rows)):
        enlarged = enlarged.index_select(axis, torch.from_numpy(index).to(device))
    refined = dense_crf_batch(
        torch.from_numpy(images).to(device), enlarged, torch.from_numpy(owners).to(device), scale
    )
    return np.asarray(refined.cpu().numpy(), dtype=bool)


def complete(
    masks: NDArray[np.bool_],
    after: NDArray[np.bool_],
    size: tuple[int, int],
    config: Config = _DEFAULT,
) -> Refined:
    """The steps after the CRF, for one image whose masks have gone through :func:`crf_batch`.

    Holes are filled, masks that have changed too much are dropped, the others are resized to the
    image's size. Most of it runs without the GIL, so that threads help.

    Args:
        masks: (n, h, w) bool patches of the image.
        after: (n, height, width) bool of the image, from :func:`crf_batch`.
        size: (H, W) of the image, in pixels: the size of the masks that are returned.
        config: ``fill_holes`` and ``min_refined_iou`` are used.

    Returns:
        As :func:`refine_masks`.

    Raises:
        TypeError, ValueError: masks as :func:`refine_masks`; a size below 1; not as many masks
            after the CRF as before it.
    """
    _check_masks(masks)
    _check_masks(after)
    if len(masks) != len(after):
        raise ValueError(f"there are {len(masks)} masks, but {len(after)} after the CRF")
    before = upsample_nearest(masks, (after.shape[1], after.shape[2]))
    return _complete(before, after, _checked_size(size), config)


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
        config: ``image_size`` and ``crf_scale`` are used.

    Returns:
        (height, width) in pixels: their product squared for a square grid; else the grid's
        shape with as many pixels, up to rounding.

    Examples:
        >>> crf_size((60, 60)), crf_size((45, 80))
        ((480, 480), (360, 640))
    """
    scale = config.image_size * config.crf_scale / math.sqrt(grid[0] * grid[1])
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
