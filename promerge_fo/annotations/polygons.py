"""Masks as one polygon each, for formats that have no other shape.

A reader multiplies the points by the image's size, cuts them to whole numbers, and sets the pixels
in the polygon and on its sides (``cv2.fillPoly``), as ultralytics does. So the polygon goes through
the pixels at the mask's edge, and what is read is the mask, with its holes filled. The parts of a
mask are joined by lines of one pixel between their nearest points, there and back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

__all__ = ["Polygon", "least_iou", "polygon_of"]

_INSET = 1 / 16  # pixels from a point to the edges of its pixel, which readers of float32 need


class Polygon(NamedTuple):
    """One polygon for a mask.

    Attributes:
        points: (n, 2) float64, n >= 3: x and y in pixels, at least 1/16 pixel within the pixel that
            a reader finds by cutting them. Their box is that of the mask, but for this 1/16.
        holes: the number of holes of the mask, which are filled.
        parts_left_out: the number of parts that have no more pixels than the line to them would.
        iou: of what is read and the mask with its holes filled, in (0, 1].
    """

    points: NDArray[np.float64]
    holes: int
    parts_left_out: int
    iou: float


def least_iou(area: int) -> float:
    """The least IoU at which a polygon stands for a mask of so many pixels."""
    return 0.95 if area >= 400 else 0.85 if area >= 64 else 0.5


def polygon_of(mask: NDArray[np.bool_]) -> Polygon | None:
    """The polygon of a mask; None if the mask has no pixel.

    A part is a set of pixels that touch, also by corners; what it surrounds is its holes.

    Args:
        mask: (h, w) bool.

    Examples:
        >>> polygon_of(np.ones((2, 3), dtype=bool)).points.tolist()
        [[0.0625, 0.0625], [0.0625, 1.9375], [2.9375, 1.9375], [2.9375, 0.0625]]
    """
    pixels = np.pad(mask, 1).astype(np.uint8)
    if not pixels.any():
        return None
    cv2.floodFill(pixels, None, (0, 0), (2,), flags=4)
    filled = (pixels != 2).astype(np.uint8)
    holes = cv2.connectedComponents((pixels == 0).astype(np.uint8), connectivity=4)[0] - 1
    contours, _ = cv2.findContours(filled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    parts = [np.asarray(contour, np.int64).reshape(-1, 2) for contour in contours]
    kept = 1
    if len(parts) == 1:
        points = parts[0]
    else:
        _, names, stats, _ = cv2.connectedComponentsWithStats(filled, connectivity=8)
        named = [names[y, x] for x, y in (part[0] for part in parts)]
        region = np.full(len(parts) + 1, -1)
        region[named] = np.arange(len(parts))
        points, kept = _join(region[names], parts, stats[named, cv2.CC_STAT_AREA])
    points = _corners(points)
    read = np.zeros_like(filled)
    cv2.fillPoly(read, [points.astype(np.int32)], (1,))
    iou = np.count_nonzero(read & filled) / np.count_nonzero(read | filled)
    return Polygon(_spread(points - 1), holes, len(parts) - kept, float(iou))


def _join(
    region: NDArray[np.int64], parts: Sequence[NDArray[np.int64]], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], int]:
    """Go along the edges of all parts of a mask that are worth the lines to them.

    Args:
        region: (h, w) the part of each pixel, -1 for none.
        parts: for each of k parts the points of its edge in order, (n, 2).
        sizes: (k,) pixels of each part.

    Returns:
        (n, 2) points, and the number of parts they go around.
    """
    count = len(parts)
    points = np.concatenate(parts)
    owner = np.repeat(np.arange(count), [len(part) for part in parts])
    first = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    pairs = _neighbours(region, points, owner)
    length = np.abs(points[pairs[:, 0]] - points[pairs[:, 1]]).max(axis=1)
    order = np.argsort(length, kind="stable")
    keys, shortest = np.unique(owner[pairs[order]] @ [count, 1], return_index=True)
    pairs, length = pairs[order[shortest]], length[order[shortest]]
    tree = minimum_spanning_tree(csr_array((length, divmod(keys, count)), shape=(count, count)))
    line_of = {int(key): k for k, key in enumerate(keys)}
    root = int(sizes.argmax())
    reached, above = breadth_first_order(tree, root, directed=False)
    branches = []
    for part in reached[:0:-1].tolist():  # from the farthest to the root
        parent = int(above[part])
        branches.append((part, parent, line_of[min(part, parent) * count + max(part, parent)]))
    kept = _kept([(c, p, int(length[k]) - 1) for c, p, k in branches], sizes.tolist(), root)
    # for each part the points where lines leave it, and the ways along these lines and back
    ways: list[list[tuple[int, list[NDArray[np.int64]]]]] = [[] for _ in parts]
    for part, parent, line in branches:
        if part in kept:
            ends = sorted(pairs[line].tolist(), key=lambda point: owner[point] != part)
            here, there = ends[0] - first[part], ends[1] - first[parent]
            ways[parent].append((there, _around(parts[part], here, ways[part])))
    return np.concatenate(_around(parts[root], 0, ways[root])), len(kept)


def _kept(branches: Sequence[tuple[int, int, int]], sizes: Sequence[int], root: int) -> set[int]:
    """The parts of the subtree whose pixels and lines have the highest IoU with the mask.

    It is found by Dinkelbach's method (1967): for a ratio, what is worth its lines; with that, a
    higher ratio.

    Args:
        branches: each part, the one it is joined to, and the pixels of the line between them, with
            what is farther from the root first.
        sizes: pixels of each part.
        root: the part that is always kept.
    """
    ratio, kept = 0.0, {root}
    while True:
        worth = [float(size) for size in sizes]
        joined = {}
        for part, parent, line in branches:
            gain = worth[part] - ratio * line
            joined[part] = gain > 0
            worth[parent] += max(gain, 0)
        kept, covered, lines = {root}, sizes[root], 0
        for part, parent, line in reversed(branches):
            if parent in kept and joined[part]:
                kept.add(part)
                covered, lines = covered + sizes[part], lines + line
        better = covered / (sum(sizes) + lines)
        if better <= ratio:
            return kept
        ratio = better


def _around(
    edge: NDArray[np.int64], start: int, ways: Sequence[tuple[int, list[NDArray[np.int64]]]]
) -> list[NDArray[np.int64]]:
    """The way along an edge from a point back to it, with all ways that leave it."""
    closed = np.concatenate([edge[start:], edge[: start + 1]])
    pieces, at = [], 0
    for place, way in sorted((((p - start) % len(edge), w) for p, w in ways), key=lambda x: x[0]):
        pieces += [closed[at : place + 1], *way]
        at = place
    return [*pieces, closed[at:]]


def _neighbours(
    region: NDArray[np.int64], points: NDArray[np.int64], owner: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Points of different parts that are nearest to each other, where the parts face each other.

    Every pixel is given to the nearest part; parts face each other where what is theirs meets.

    Args:
        region: (h, w) the part of each pixel, -1 for none.
        points: (n, 2) points at the edges of the parts.
        owner: (n,) the part of each point, ascending.

    Returns:
        (m, 2) pairs of indices of points, ascending.
    """
    outside = region < 0
    _, labels = cv2.distanceTransformWithLabels(
        outside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    nearest = np.zeros(int(labels.max()) + 1, np.int64)  # the point of each label
    nearest[labels[points[:, 1], points[:, 0]]] = np.arange(len(points))
    region = np.where(outside, owner[nearest][labels], region)
    edges = []
    for here, there in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        meet = region[here] != region[there]
        edges.append(np.stack([nearest[labels[side][meet]] for side in (here, there)], axis=1))
    return np.unique(np.sort(np.concatenate(edges), axis=1), axis=0)


def _corners(points: NDArray[np.int64]) -> NDArray[np.int64]:
    """A closed way without the points that lie on straight stretches."""
    moved = (points != np.roll(points, 1, axis=0)).any(axis=1)
    if not moved.any():
        return points[:1]
    points = points[moved]
    come, go = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turns = come[:, 0] * go[:, 1] != come[:, 1] * go[:, 0]
    return np.asarray(points[turns | ((come * go).sum(axis=1) < 0)])


def _spread(points: NDArray[np.int64]) -> NDArray[np.float64]:
    """Points within pixels whose box is that of the pixels.

    Args:
        points: (n, 2) pixels.

    Returns:
        (n, 2) float64; n is at least 3.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    start, end = low + _INSET, high + 1 - _INSET
    if (low == high).any():  # one row, or one column
        (x0, y0), (x1, y1) = start, end
        return np.array([[x0, y0], [x0, y1], [x1, y1], [x1, y0]])
    spread: NDArray[Any] = start + (points - low) * (end - start) / (high - low)
    return np.concatenate([spread, spread[:1]]) if len(spread) < 3 else spread
