# mypy: disable-error-code="untyped-decorator"
"""The permutohedral lattice of a set of points (Adams, Baek and Davis, 2010).

Gaussian filtering of n values at points in d dimensions takes O(n d) on this lattice: every point
lies in a simplex of d + 1 lattice vertices; its value is *splatted* to them, the vertices are
*blurred* along each of the d + 1 lattice axes, and the result is *sliced* back with the weights
of the splat. All of this depends only on the points, not on their values: a :class:`Lattice` is
built once and then filters any number of channels.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from promerge_fo.kernels import kernel

__all__ = ["Lattice", "build_lattice", "key_strides", "lattice_scale"]

_MAX_VERTICES = 2**31 - 2  # vertices are numbered by int32
_MAX_KEY = 2**62
_BLOCK = 256  # points whose simplices are found together
_HASH = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Fibonacci hashing


class Lattice(NamedTuple):
    """The lattice vertices around each of n points in d dimensions, and their neighbours.

    Attributes:
        vertices: (n, d + 1) int32: the corners of each point's simplex, of m vertices in all.
        weights: (n, d + 1) float32: the point's barycentric coordinates; a row sums to 1.
        chains: (c,) int32: for one axis after the other, the vertices that follow each other
            along it, chain by chain. The number m, which is no vertex, is between two chains, at
            the start and at the end. Vertices without neighbours along an axis are left out,
            since a blur along it does not change them.
    """

    vertices: NDArray[np.int32]
    weights: NDArray[np.float32]
    chains: NDArray[np.int32]

    @property
    def size(self) -> int:
        """The number m of vertices."""
        return int(self.chains[0])


def build_lattice(features: NDArray[np.float32]) -> Lattice:
    """The lattice of points whose coordinates are in units of the Gaussian's standard deviation.

    Args:
        features: (d, n) float32, d and n at least 1: the finite coordinates of n points.

    Raises:
        ValueError: too many points, or points too far apart, to number the vertices.
    """
    d, n = features.shape
    if n * (d + 1) > _MAX_VERTICES:
        raise ValueError(
            f"{n} points in {d} dimensions may touch {n * (d + 1)} lattice vertices, more than "
            f"{_MAX_VERTICES}; use a smaller image (image_size)"
        )
    scale = lattice_scale(d)
    span = features.max(axis=1).astype(np.float64) - features.min(axis=1)
    strides, _ = key_strides(span, scale)
    vertices, weights, keys, table = _find_vertices(
        features, tuple(np.float32(s) for s in scale), strides
    )
    return Lattice(vertices, weights, _find_chains(keys, table, strides))


def lattice_scale(d: int) -> NDArray[np.float64]:
    """(d,): splat, blur and slice are a Gaussian of deviation 1 at this scale (Sec. 3.1)."""
    return (d + 1) * math.sqrt(2 / 3) / np.sqrt(np.arange(1.0, d + 1) * np.arange(2.0, d + 2))


def key_strides(
    span: NDArray[np.float64], scale: NDArray[np.float64]
) -> tuple[tuple[int, ...], int]:
    """Strides that give every vertex around the points, and its neighbours, a unique key.

    The d + 1 coordinates of a vertex sum to zero: coordinates 1 to d identify it, and coordinate 0
    has stride 0. Keys are linear in the coordinates, so that a step along an axis adds the same
    number to every key.

    Args:
        span: (d,) the extent of the points in each dimension, in standard deviations.
        scale: (d,) from :func:`lattice_scale`.

    Returns:
        The d + 1 strides, and a number that is larger than the difference of any two keys.

    Raises:
        ValueError: points too far apart for keys in int64.
    """
    d = len(scale)
    extent = span * scale
    strides, stride = [0], 1
    for j in range(1, d + 1):
        strides.append(stride)
        # The extent of coordinate j (see _find_vertices); the simplex around a point is up to
        # d + 1 larger on either side, and a neighbour another d + 1.
        stride *= math.ceil(j * extent[j - 1] + extent[j:].sum()) + 4 * (d + 1)
    if stride > _MAX_KEY:
        raise ValueError(
            f"points that span {np.array2string(span, precision=0)} standard "
            f"deviations need {stride:.1e} lattice keys, more than {_MAX_KEY:.1e}; "
            "use a smaller image (image_size)"
        )
    return tuple(strides), stride


@kernel
def _find_vertices(features: Any, scale: Any, strides: Any) -> Any:
    """Sec. 3.1 of the paper (splat): the simplex around each point, vertices numbered as found.

    Returns:
        ``vertices`` and ``weights`` of the lattice, the vertices' keys, and the hash table
        (open addressing, linear probing) from keys to vertices; -1 is a free slot.
    """
    d, n = features.shape
    up = sum(strides)  # the change of a key if all coordinates grow by 1
    vertices = np.empty((n, d + 1), np.int32)
    weights = np.empty((n, d + 1), np.float32)
    bits = 10
    table = np.full(1 << bits, -1, np.int32)
    keys = np.empty(len(table) // 4, np.int64)
    m = 0

    origin = np.empty((d + 1, _BLOCK), np.float32)
    offset = np.empty((d + 1, _BLOCK), np.float32)
    rank = np.empty((d + 1, _BLOCK), np.int32)
    order = np.empty(d + 1, np.int64)
    for p in range(n):
        q = p % _BLOCK
        if q == 0:
            _enclose(features, p, min(_BLOCK, n - p), scale, origin, offset, rank)
        # From the origin, vertex k of the simplex is one step along the axis of the coordinate of
        # rank d + 1 - k away from vertex k - 1; the differences of the sorted offsets weigh them.
        key = 0
        for j in range(d + 1):
            key += np.int64(origin[j, q]) * strides[j]
            order[d - rank[j, q]] = j
        previous = np.float32(0)
        for k in range(d + 1):
            j = order[k]
            weights[p, k] = offset[j, q] - previous
            previous = offset[j, q]
            # Look the vertex up, or number it.
            slot = _slot(keys, table, bits, key)
            if table[slot] < 0:
                if m == len(keys):
                    bits += 1
                    table, keys = _grown(keys, bits)
                    slot = _slot(keys, table, bits, key)
                table[slot] = m
                keys[m] = key
                m += 1
            vertices[p, k] = table[slot]
            key += up - (d + 1) * strides[j]
        weights[p, 0] += np.float32(1) - previous
    return vertices, weights, keys[:m].copy(), table


@kernel
def _enclose(
    features: Any, start: int, count: int, scale: Any, origin: Any, offset: Any, rank: Any
) -> None:
    """The simplices of a block of points; the inner loops, over points, are vectorised.

    For each coordinate and point: ``origin``, the simplex' vertex whose coordinates are multiples
    of d + 1; ``offset``, that of the point from it in units of d + 1; and the offset's ``rank``,
    0 for the largest.
    """
    d = len(scale)
    unit = np.float32(d + 1)
    above = np.zeros(count, np.float32)
    excess = np.zeros(count, np.int32)
    # Onto the hyperplane of coordinates with sum 0, by the basis of the paper's Eq. 2.
    for j in range(d, 0, -1):
        for q in range(count):
            x = features[j - 1, start + q] * scale[j - 1]
            offset[j, q] = above[q] - np.float32(j) * x
            above[q] += x
    offset[0, :count] = above
    # The nearest point whose coordinates are multiples of d + 1, if their sum is 0 ...
    for j in range(d + 1):
        for q in range(count):
            multiple = np.floor(offset[j, q] / unit + np.float32(0.5))
            excess[q] += np.int32(multiple)
            origin[j, q] = multiple * unit
            offset[j, q] -= multiple * unit
    # ... else the coordinates with the largest rounding go one step back.
    for i in range(d + 1):
        rank[i, :count] = excess
        for j in range(d + 1):
            for q in range(count):
                more = offset[j, q] > offset[i, q] or (j < i and offset[j, q] == offset[i, q])
                rank[i, q] += np.int32(more)
    for j in range(d + 1):
        for q in range(count):
            turn = np.int32(rank[j, q] < 0) - np.int32(rank[j, q] > d)
            rank[j, q] += turn * np.int32(d + 1)
            origin[j, q] += np.float32(turn) * unit
            offset[j, q] = offset[j, q] / unit - np.float32(turn)


@kernel
def _slot(keys: Any, table: Any, bits: int, key: int) -> Any:
    """The slot of the hash table with the key's vertex, or the free slot for it."""
    slot = np.int64((np.uint64(key) * _HASH) >> np.uint64(64 - bits))
    while table[slot] >= 0 and keys[table[slot]] != key:
        slot = (slot + 1) & (len(table) - 1)
    return slot


@kernel
def _grown(keys: Any, bits: int) -> Any:
    """A table with 2^bits slots for the same keys, and the keys with room for a quarter as many."""
    table = np.full(1 << bits, -1, np.int32)
    room = np.empty(len(table) // 4, np.int64)
    room[: len(keys)] = keys
    for i in range(len(keys)):
        table[_slot(keys, table, bits, keys[i])] = i
    return table, room


@kernel
def _find_chains(keys: Any, table: Any, strides: Any) -> Any:
    """Sec. 3.2 of the paper (blur): along axis j, all coordinates grow by 1 but j falls by d."""
    m = len(keys)
    bits = 0
    while (1 << bits) < len(table):
        bits += 1
    chains = np.empty(len(strides) * (m + m // 2) + 1, np.int32)
    after = np.empty(m, np.int32)
    n = 0
    for j in range(len(strides)):
        step = sum(strides) - len(strides) * strides[j]
        first = np.ones(m, np.bool_)
        for i in range(m):
            other = table[_slot(keys, table, bits, keys[i] + step)]
            after[i] = other
            if other >= 0:
                first[other] = False
        for i in range(m):
            if first[i] and after[i] >= 0:
                chains[n] = m
                n += 1
                vertex = i
                while vertex >= 0:
                    chains[n] = vertex
                    n += 1
                    vertex = after[vertex]
    chains[n] = m
    return chains[: n + 1].copy()
