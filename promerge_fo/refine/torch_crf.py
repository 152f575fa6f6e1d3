"""The dense CRF of :mod:`.dense_crf` in torch: for masks on a GPU, batched over images.

Mean field (Krähenbühl and Koltun, 2011) for all masks of a batch, on the same lattices (Adams,
Baek and Davis, 2010), whose vertices are found by sorting keys instead of hashing. Each pixel or
vertex has a row of float32 with one value for each mask of its image. The colour lattices and the
spatial lattices of all images are parts of one lattice, so that an iteration is one splat (in two
steps), six blurs and one slice. Each of these is an ``embedding_bag``: weighted sums of rows,
without intermediate arrays and atomics, in a fixed order. So results repeat, and those of an image
do not depend on the other images.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from promerge_fo.refine.dense_crf import (
    BILATERAL_COMPATIBILITY,
    BILATERAL_CORNERS,
    BILATERAL_DEVIATION,
    COLOUR_DEVIATION,
    ITERATIONS,
    SPATIAL_COMPATIBILITY,
    SPATIAL_CORNERS,
    SPATIAL_DEVIATION,
)
from promerge_fo.refine.permutohedral import key_strides, lattice_scale

__all__ = ["dense_crf_batch"]

# About the bytes that a call takes besides its arguments and its result. Images, and then masks,
# are processed in parts that need no more, down to one image with one mask.
WORKING_SET = 2 * 2**30

_RUN = 64  # pixels that one thread sums
_CORNERS = BILATERAL_CORNERS + SPATIAL_CORNERS  # the vertices around a pixel, on both lattices
_LATTICE_BYTES = 1500  # memory for a pixel in a lattice of noise, which is the largest
_MAX_IMAGES = 2**16  # in one lattice, so that keys stay far below 2^63
_MAX_PIXELS = (2**31 - 1) // _CORNERS  # in one lattice: the corners are numbered by int32


def dense_crf_batch(
    images: torch.Tensor, masks: torch.Tensor, image_of: torch.Tensor, scale: float = 1.0
) -> torch.Tensor:
    """Fit masks to the edges of their images.

    The result is that of :func:`promerge_fo.refine.dense_crf.dense_crf` for each image, up to the
    rounding of float32.

    Args:
        images: (B, H, W, 3) uint8, RGB, H and W at least 1.
        masks: (N, H, W) bool; N may be 0.
        image_of: (N,) int64, ascending: the image that each mask belongs to. Images without masks
            cost nothing.
        scale: that the filters' deviations in pixels are multiplied with, over 0.

    Returns:
        (N, H, W) bool, on the device of the arguments.

    Raises:
        TypeError: arguments that are no tensors, or of another dtype.
        ValueError: shapes or devices that do not fit together; ``image_of`` not ascending, or out
            of range; images of more than 238 megapixels.
    """
    _check(images, masks, image_of)
    owners = np.array(image_of.tolist(), dtype=np.int64)
    _check_owners(owners, len(images))
    refined = torch.empty_like(masks)
    with torch.no_grad():
        for start, stop in _parts(owners, images.shape[1] * images.shape[2]):
            used, slots = np.unique(owners[start:stop], return_inverse=True)
            part = images[torch.from_numpy(used).to(images.device)]
            refined[start:stop] = _refine(part, masks[start:stop], slots, scale)
    return refined


def _check(images: Tensor, masks: Tensor, image_of: Tensor) -> None:
    for name, tensor, dtype, wanted in (
        ("images", images, torch.uint8, "a uint8 tensor (B, H, W, 3), H and W at least 1"),
        ("masks", masks, torch.bool, "a bool tensor (N, H, W), of the images' H and W"),
        ("image_of", image_of, torch.int64, "an int64 tensor (N,), a number for each mask"),
    ):
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"{name} is of type {type(tensor).__name__}, but must be {wanted}: "
                "torch.from_numpy makes one of an array"
            )
        if tensor.dtype != dtype:
            raise TypeError(
                f"{name} is {tensor.dtype}, but must be {wanted}: use {name}.to({dtype})"
            )
        if tensor.device != images.device:
            raise ValueError(
                f"{name} is on {tensor.device} and images on {images.device}, but all must be on "
                f"one device: use {name}.to(images.device)"
            )
    if images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape[1:3]:
        raise ValueError(
            f"images are {tuple(images.shape)}, but must be (B, H, W, 3), H and W at least 1; "
            "a single image is images[None]"
        )
    if masks.shape[1:] != images.shape[1:3] or image_of.shape != masks.shape[:1]:
        raise ValueError(
            f"masks are {tuple(masks.shape)} and image_of is {tuple(image_of.shape)} for images "
            f"{tuple(images.shape)}, but they must be (N, H, W) and (N,) for images (B, H, W, 3); "
            "crf_batch takes masks of another size"
        )
    pixels = images.shape[1] * images.shape[2]
    if pixels > _MAX_PIXELS:
        raise ValueError(
            f"images have {pixels} pixels, more than {_MAX_PIXELS}; use smaller ones (image_size)"
        )


def _check_owners(owners: NDArray[np.int64], count: int) -> None:
    if (np.diff(owners) < 0).any():
        raise ValueError("image_of must be ascending: sort the masks by the images they belong to")
    if len(owners) and (owners[0] < 0 or owners[-1] >= count):
        raise ValueError(
            f"image_of holds numbers from {owners[0]} to {owners[-1]}, but must number "
            f"{count} images, from 0"
        )


def _parts(owners: NDArray[np.int64], pixels: int) -> Iterator[tuple[int, int]]:
    """Start and stop of the masks whose images share a lattice."""
    most = min(max(WORKING_SET // (_LATTICE_BYTES * pixels), 1), _MAX_PIXELS // pixels, _MAX_IMAGES)
    starts = np.flatnonzero(np.diff(owners, prepend=-1))[::most].tolist()
    return zip(starts, [*starts[1:], len(owners)], strict=False)


def _refine(images: Tensor, masks: Tensor, slots: NDArray[np.int64], scale: float) -> Tensor:
    """(n, H, W) bool: masks refined; mask i belongs to image ``slots[i]``, ascending."""
    count, height, width = images.shape[:3]
    lattice = _build_lattice(images, scale)
    # A mask's channel is its place among the masks of its image.
    channels = np.arange(len(slots)) - np.searchsorted(slots, slots)
    # A step reads and writes float32, the unary energies are int8.
    pixels = count * height * width
    lane_bytes = 2 * 4 * (max(len(step.starts) for step in lattice.steps) + pixels) + pixels
    most = max((WORKING_SET - lattice.bytes) // lane_bytes, 1)
    refined = torch.empty_like(masks)
    for start in range(0, int(channels.max()) + 1, most):
        chosen = np.flatnonzero((channels >= start) & (channels < start + most))
        lanes = int(channels[chosen].max()) + 1 - start
        of_mask, of_image, of_channel = (
            torch.from_numpy(index).to(masks.device)
            for index in (chosen, slots[chosen], channels[chosen] - start)
        )
        unary = images.new_zeros((count, height * width, lanes), dtype=torch.int8)
        unary.mT[of_image, of_channel] = 2 * masks[of_mask].flatten(1).to(torch.int8) - 1
        foreground = _mean_field(unary.flatten(0, 1), lattice).view(unary.shape)
        refined[of_mask] = foreground.mT[of_image, of_channel].view(-1, height, width)
    return refined


def _mean_field(unary: Tensor, lattice: _Lattice) -> Tensor:
    """Ten iterations of mean field (Algorithm 1 of the paper).

    Args:
        unary: (p, c) int8: u_bg - u_fg.
        lattice: of the p pixels.

    Returns:
        (p, c) bool: foreground.
    """
    half_logit = unary * 0.5
    for _ in range(ITERATIONS):
        values = half_logit.tanh_()
        for step in lattice.steps:
            values = step(values)
        half_logit = lattice.slice(values).add_(unary, alpha=0.5)
    return half_logit > 0


class _Sums(NamedTuple):
    """Weighted sums of rows: sum i is of ``rows[starts[i]:starts[i + 1]]``.

    Attributes:
        rows: (k,) int32.
        weights: (k,) float32.
        starts: (n,) int32.
    """

    rows: Tensor
    weights: Tensor
    starts: Tensor

    def __call__(self, values: Tensor) -> Tensor:
        """(n, c) float32 sums of rows of ``values``, (m, c) float32."""
        return F.embedding_bag(
            self.rows, values, self.starts, mode="sum", per_sample_weights=self.weights
        )


class _Lattice(NamedTuple):
    """The lattices of all images, as the sums that make up the steps of the filters.

    The last row of the vertices is no vertex: it is always 0, and stands for missing neighbours.

    Attributes:
        steps: from p pixels to m vertices and the last row: splat, and a blur for each axis.
        slice: from these to p pixels. Half of the filters' results, for tanh(d / 2).
    """

    steps: list[_Sums]
    slice: _Sums

    @property
    def bytes(self) -> int:
        """The memory of the sums, with embedding_bag's own for the largest of them."""
        sums = [*self.steps, self.slice]
        entries = [len(part.rows) for part in sums]
        return 4 * (2 * sum(entries) + max(entries)) + 4 * sum(len(part.starts) for part in sums)


def _build_lattice(images: Tensor, scale: float = 1.0) -> _Lattice:
    """The lattices of images (B, H, W, 3), with weights normalised for the CRF."""
    count, height, width = images.shape[:3]
    device = images.device
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float32, device=device),
        torch.arange(width, dtype=torch.float32, device=device),
        indexing="ij",
    )
    positions = torch.stack([x.flatten(), y.flatten()])
    position_span = np.array([width - 1.0, height - 1.0])

    features = torch.cat(
        [
            (positions / (BILATERAL_DEVIATION * scale)).repeat(1, count),
            images.permute(3, 0, 1, 2).flatten(1) / COLOUR_DEVIATION,
        ]
    )
    colour_span = np.full(3, 255 / COLOUR_DEVIATION)
    span = np.concatenate([position_span / (BILATERAL_DEVIATION * scale), colour_span])
    keys, weights, steps, reach = _find_simplices(features, span)
    # The keys of each image lie above those of the one before it.
    image = torch.arange(count, device=device)
    keys += (image * reach).repeat_interleave(height * width)
    spatial_start = count * reach

    # The spatial lattices are copies of one; their keys lie above all of the others.
    deviation = SPATIAL_DEVIATION * scale
    spatial = _find_simplices(positions / deviation, position_span / deviation)
    shifts = spatial_start + (image + 1) * spatial.reach
    spatial_keys = (spatial.keys[:, None] + shifts[:, None]).flatten(1)
    return _join(
        torch.cat([keys, spatial_keys]).T.flatten(),
        torch.cat([weights, spatial.weights.repeat(1, count)]).T.contiguous(),
        steps,
        spatial.steps,
        spatial_start,
    )


class _Simplices(NamedTuple):
    """The simplices around n points in d dimensions.

    Attributes:
        keys: (d + 1, n) int64: numbers of the lattice vertices at the corners.
        weights: (d + 1, n) float32: the point's barycentric coordinates.
        steps: what a step along each of the d + 1 axes adds to a key.
        reach: keys, and those of neighbours, are above -reach and differ by less than it.
    """

    keys: Tensor
    weights: Tensor
    steps: list[int]
    reach: int


def _find_simplices(features: Tensor, span: NDArray[np.float64]) -> _Simplices:
    """Sec. 3.1 of the lattice's paper (splat), as :mod:`.permutohedral` does it.

    Args:
        features: (d, n) float32: coordinates from 0, in standard deviations.
        span: (d,): the highest that each may be.
    """
    d, n = features.shape
    unit = d + 1
    scale = lattice_scale(d)
    strides, reach = key_strides(span, scale)
    # Onto the hyperplane of coordinates with sum 0, by the basis of the paper's Eq. 2.
    offset = features.new_empty((unit, n))
    above = torch.zeros_like(features[0])
    for j in range(d, 0, -1):
        x = features[j - 1] * float(scale[j - 1])
        offset[j] = above - j * x
        above += x
    offset[0] = above
    # The nearest point whose coordinates are multiples of d + 1, if their sum is 0; else the
    # coordinates that were rounded furthest go one step back. Rank 0 is the largest offset.
    origin = torch.floor(offset / unit + 0.5)
    offset -= origin * unit
    rank = origin.sum(dim=0).long().repeat(unit, 1)
    for i in range(unit):
        rank[i] += (offset[:i] >= offset[i]).sum(dim=0) + (offset[i + 1 :] > offset[i]).sum(dim=0)
    turn = (rank < 0).long() - (rank > d).long()
    rank += turn * unit
    origin += turn
    offset = offset / unit - turn
    # From the origin, vertex k is one step along the axis of the coordinate of rank d + 1 - k
    # away from vertex k - 1; the differences of the sorted offsets weigh them.
    place = d - rank
    ordered = torch.empty_like(offset).scatter_(0, place, offset)
    weights = torch.diff(ordered, dim=0, prepend=torch.zeros_like(ordered[:1]))
    weights[0] += 1 - ordered[-1]
    steps = [sum(strides) - unit * stride for stride in strides]
    step = torch.tensor(steps, device=features.device)[:, None].expand(unit, n)
    walk = torch.empty_like(place).scatter_(0, place, step)
    keys = walk.cumsum(dim=0) - walk
    for j in range(unit):
        keys += origin[j].long() * (unit * strides[j])
    return _Simplices(keys, weights, steps, reach)


def _join(
    keys: Tensor, weights: Tensor, steps: list[int], spatial_steps: list[int], spatial_start: int
) -> _Lattice:
    """Number the vertices in the order of their keys, and find their neighbours.

    Args:
        keys: (p corners,) int64: the corners of each pixel's simplices, bilateral, then spatial.
        weights: (p, corners) float32: the barycentric coordinates.
        steps: what a step along each axis adds to a bilateral key.
        spatial_steps: to a spatial key, along the first axes.
        spatial_start: no spatial key is lower, no bilateral key is as high.
    """
    corners = weights.shape[1]
    keys, order = torch.sort(keys, stable=True)  # the pixels of a vertex in their own order
    first = torch.ones_like(keys, dtype=torch.bool)
    torch.ne(keys[1:], keys[:-1], out=first[1:])
    starts = first.nonzero().flatten()
    keys = keys[starts]
    number = first.cumsum(dim=0, dtype=torch.int32) - 1
    vertices = torch.empty_like(number)
    vertices[order] = number
    starts = F.pad(starts, (0, 1), value=len(order)).int()
    rows = (order // corners).int()
    # A vertex of an even surface has thousands of pixels, most have few: so it sums sums of runs.
    places = torch.arange(len(rows), dtype=torch.int32, device=keys.device)
    run_starts = ((places - starts[number]) % _RUN == 0).nonzero().flatten().int()
    splat = _Sums(
        torch.arange(len(run_starts), dtype=torch.int32, device=keys.device),
        weights.new_ones(len(run_starts)),
        torch.searchsorted(run_starts, starts, out_int32=True),
    )

    size = len(starts)
    blur_weights = weights.new_tensor([1, 0.5, 0.5]).repeat(size)
    blur_starts = torch.arange(0, 3 * size, 3, dtype=torch.int32, device=keys.device)
    missing = [0] * (len(steps) - len(spatial_steps))
    blurs = [
        _Sums(
            _find_neighbours(keys, torch.where(keys < spatial_start, axis_step, spatial_step)),
            blur_weights,
            blur_starts,
        )
        for axis_step, spatial_step in zip(steps, [*spatial_steps, *missing], strict=True)
    ]

    # The filter of each lattice is compatibility * N a S B S^T N: slice, blur, splat. With a, the
    # blur preserves sums; N = (a S B S^T 1)^(-1/2) is the symmetric normalisation. Every weight is
    # used on both sides, hence the square roots.
    values = torch.ones_like(weights[:, :1])
    for step in (_Sums(rows, weights.flatten()[order], run_starts), splat, *blurs):
        values = step(values)
    pixel_starts = torch.arange(0, len(rows), corners, dtype=torch.int32, device=keys.device)
    both_starts = torch.stack([pixel_starts, pixel_starts + BILATERAL_CORNERS], dim=1).flatten()
    totals = _Sums(vertices, weights.flatten(), both_starts)(values).view(-1, 2)
    for columns, total, compatibility in (
        (weights[:, :BILATERAL_CORNERS], totals[:, :1], BILATERAL_COMPATIBILITY),
        (weights[:, BILATERAL_CORNERS:], totals[:, 1:], SPATIAL_COMPATIBILITY),
    ):
        gain = 1 / (1 + 2.0 ** (1 - columns.shape[1]))
        columns *= torch.sqrt(compatibility * gain / (gain * total + 1e-20))
    return _Lattice(
        [_Sums(rows, weights.flatten()[order], run_starts), splat, *blurs],
        _Sums(vertices, weights.flatten() / 2, pixel_starts),
    )


def _find_neighbours(keys: Tensor, step: Tensor) -> Tensor:
    """For each vertex and the last row: itself, the one before and the one after it, flat.

    Args:
        keys: (m,) int64, ascending.
        step: (m,) int64: how much higher the key of the one after is; 0 where there is no axis.
    """
    last = len(keys)
    found = torch.full((last + 1, 3), last, dtype=torch.int32, device=keys.device)
    found[:, 0] = torch.arange(last + 1, dtype=torch.int32, device=keys.device)
    for column, key in ((1, keys - step), (2, keys + step)):
        place = torch.searchsorted(keys, key).clamp_(max=last - 1)
        there = (keys[place] == key) & (step != 0)
        found[:-1, column] = torch.where(there, place, last)
    return found.flatten()
