"""The patches of an image as a graph: which of them are alike (TokenCut, Sec. 3)."""

from __future__ import annotations

from copy import copy

import numpy as np
import torch
from numpy.typing import NDArray

from promerge_fo.kernels import kernel
from promerge_fo.segment.bits import pack, popcount
from promerge_fo.segment.prompting import UnitFeatures

__all__ = ["PatchGraph"]


class PatchGraph:
    """A graph of n patches: affinity 1 between two that are alike, and eps between all others.

    With B the symmetric binary matrix of the patches that are alike, the affinity is
    W = eps + (1 - eps) B. On the CPU, B is stored as bits, 64 times smaller than a matrix of
    float64, and products with it look up sums of eight values; on CUDA it is a dense matrix. A
    patch that was taken out (:meth:`without`) is still a node of the graph, but no longer like any
    patch, not even itself: MaskCut masks out the features of its earlier masks in this way.

    Args:
        alike: (n, n) bool, symmetric, on any device.
        eps: affinity of patches that are not alike; over 0.

    Attributes:
        size: n.
        active: (n,) bool: the patches that were not taken out.
        device: of the calculations: CUDA if ``alike`` is there, else the CPU.
        degrees: (n,) float64 on the device: row sums of W.
    """

    def __init__(self, alike: torch.Tensor, eps: float) -> None:
        if alike.device.type != "cuda":  # others, as Apple's GPU, may have no float64
            alike = alike.cpu()
        self.size = len(alike)
        self.device = alike.device
        self._eps = eps
        if alike.is_cpu:
            self._matrix = None
            self._words = np.ascontiguousarray(pack(alike.numpy()).T)
        else:
            self._matrix = alike.to(torch.float64)
            self._words = np.ascontiguousarray(_pack_there(alike).T)
        self._take(np.ones(self.size, dtype=np.bool_))

    @classmethod
    def of(cls, unit: UnitFeatures, tau: float, eps: float) -> PatchGraph:
        """The graph in which patches are alike if the cosine of their features is over ``tau``."""
        return cls(unit.alike(tau), eps)

    def without(self, patches: NDArray[np.bool_]) -> PatchGraph:
        """The graph with more patches (n,) taken out; it shares the memory of this one."""
        other = copy(self)
        other._take(self.active & ~patches)
        return other

    def times(self, vector: torch.Tensor) -> torch.Tensor:
        """W times a vector (n,) float64 on the device."""
        product = self._alike_times(vector * self._weights).mul_(self._weights)
        return product.mul_(1 - self._eps).add_(vector.sum(), alpha=self._eps)

    def components(self) -> NDArray[np.int64]:
        """(n,) the connected component of each patch, along patches that are alike.

        Numbered in raster order; -1 for patches that were taken out.
        """
        return np.asarray(_components(self._words, self.active))

    def dense(self) -> NDArray[np.float64]:
        """(n, n) W."""
        bits = np.ascontiguousarray(self._words.T).view(np.uint8)
        alike = np.unpackbits(bits, axis=1, count=self.size)
        alike *= self.active
        alike *= self.active[:, None]
        return np.asarray(np.where(alike, 1.0, self._eps))

    def _take(self, active: NDArray[np.bool_]) -> None:
        self.active = active
        self._weights = torch.from_numpy(active).to(self.device, torch.float64)
        alike = self._alike_times(self._weights) * self._weights
        self.degrees = self._eps * self.size + (1 - self._eps) * alike

    def _alike_times(self, vector: torch.Tensor) -> torch.Tensor:
        if self._matrix is not None:
            return self._matrix @ vector
        return torch.from_numpy(_times(self._words, vector.numpy()))


def _pack_there(alike: torch.Tensor) -> NDArray[np.uint64]:
    """Like :func:`pack`, on the device of (n, n) bool, since bits are quick to copy."""
    padded = torch.nn.functional.pad(alike, (0, -len(alike) % 64))
    places = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=alike.device)
    octets = (padded.view(len(alike), -1, 8) * places).sum(dim=2, dtype=torch.uint8)
    return np.asarray(octets.cpu().numpy().view(np.uint64))


@kernel
def _times(words, vector):  # type: ignore[no-untyped-def]
    """B times a vector (n,) float64, B as words (ceil(n / 64), n) of the bits of its rows.

    For every eight columns, the sums of all 256 choices of their values are calculated first, so
    that a row takes one look-up for eight columns (the "method of the four Russians").
    """
    out = np.zeros(vector.size, dtype=np.float64)
    sums = np.zeros((8, 256), dtype=np.float64)
    octet = np.uint64(255)
    for w in range(words.shape[0]):
        for b in range(8):
            for bit in range(8):
                column = 64 * w + 8 * b + 7 - bit
                value = vector[column] if column < vector.size else 0.0
                count = 1 << bit
                for k in range(count):
                    sums[b, count + k] = sums[b, k] + value
        for i in range(vector.size):
            word = words[w, i]
            low = (
                sums[0, word & octet]
                + sums[1, (word >> np.uint64(8)) & octet]
                + (sums[2, (word >> np.uint64(16)) & octet])
                + sums[3, (word >> np.uint64(24)) & octet]
            )
            high = (
                sums[4, (word >> np.uint64(32)) & octet]
                + sums[5, (word >> np.uint64(40)) & octet]
                + sums[6, (word >> np.uint64(48)) & octet]
                + sums[7, word >> np.uint64(56)]
            )
            out[i] += low + high
    return out


@kernel
def _components(words, active):  # type: ignore[no-untyped-def]
    """Breadth first, 64 patches at a time."""
    size = active.size
    label = np.full(size, -1, dtype=np.int64)
    left = np.zeros(words.shape[0], dtype=np.uint64)  # active patches not reached so far
    one = np.uint64(1)
    for i in range(size):
        if active[i]:
            left[i // 64] |= one << np.uint64(i % 64 // 8 * 8 + 7 - i % 8)
    queue = np.empty(size, dtype=np.int64)
    count = 0
    for first in range(size):
        if not active[first] or label[first] >= 0:
            continue
        left[first // 64] &= ~(one << np.uint64(first % 64 // 8 * 8 + 7 - first % 8))
        label[first] = count
        queue[0] = first
        taken, found = 0, 1
        while taken < found:
            i = queue[taken]
            taken += 1
            for w in range(words.shape[0]):
                reached = words[w, i] & left[w]
                left[w] &= ~reached
                while reached:
                    lowest = reached & (~reached + one)
                    reached ^= lowest
                    place = np.int64(popcount(lowest - one))
                    j = 64 * w + place // 8 * 8 + 7 - place % 8
                    label[j] = count
                    queue[found] = j
                    found += 1
        count += 1
    return label
