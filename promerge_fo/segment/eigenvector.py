"""The second smallest eigenvector of a graph, without the others (TokenCut, Sec. 3).

(D - W) x = lambda D x is solved as A v = (1 - lambda) v, with A = D^-1/2 W D^-1/2 and
v = D^1/2 x. The largest eigenvalue of A is 1, and its eigenvector D^1/2 1 is known; the second
largest is needed. Lanczos' method finds its eigenvector with some dozens of products with W; a
dense decomposition takes as many operations as thousands of products.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh

from promerge_fo.segment.patch_graph import PatchGraph

__all__ = ["Eigenvector", "dense_eigenvector", "second_eigenvector"]

ACCURACY = 1e-9  #: residual of the unit eigenvector, over the distance to the next eigenvalue
ROUNDING = 1e-12  #: residual that float64 always reaches
MOST_PRODUCTS = 2000  #: products with W before the dense solver takes over
MOST_VECTORS = 96  #: in the subspace
KEPT_VECTORS = 24  #: the best of them, which are kept when the subspace is full
STEPS = 6  #: products between two checks of the residual
COMPONENTS = 16  #: the largest connected components, from which the search starts


@dataclass(frozen=True)
class Eigenvector:
    """The second smallest solution of (D - W) x = lambda D x.

    Attributes:
        x: (n,) float64, with x D x = 1; of either sign.
        eigenvalue: lambda, in [0, 2]: small where the graph falls apart easily.
        residual: length of A v - (1 - lambda) v, for v of length 1.
        products: the number of products with W; 0 from the dense solver.
    """

    x: NDArray[np.float64]
    eigenvalue: float
    residual: float
    products: int


def second_eigenvector(graph: PatchGraph) -> Eigenvector | None:
    """Lanczos' method, with a check of the residuals every few steps.

    The search starts from the indicators of the graph's connected components, whose eigenvalues
    are too close to each other to separate otherwise, and from a fixed random vector. It ends when
    the eigenvector is accurate to ``ACCURACY`` and the next eigenvalue is certain to be a
    different one. If that takes too long, the dense solver takes over, with a warning.

    Args:
        graph: n patches.

    Returns:
        The eigenvector; None if no cut is better than any other: n is 1, no patch is like any
        other one, or all patches are alike.
    """
    root = graph.degrees.sqrt()
    starts = _starts(graph)
    space = _Subspace(graph, root)
    for start in starts:
        space.add(torch.from_numpy(start).to(root) * root)
    if space.size == 0:
        return None
    while True:
        best, next_best = space.best()
        distance = best.value - next_best.value
        exact = best.residual <= max(ACCURACY * distance, ROUNDING)
        apart = next_best.residual <= max(distance / 2, ROUNDING)
        if exact and apart:
            break
        if space.products >= MOST_PRODUCTS or not space.grow(next_best if exact else best):
            warnings.warn(
                f"Lanczos' method has a residual of {best.residual:.1g} after {space.products} "
                f"products on a graph of {graph.size} patches; the dense solver takes over, which "
                "is much slower",
                RuntimeWarning,
                stacklevel=2,
            )
            return dense_eigenvector(graph)
    if best.value <= ROUNDING:
        return None
    x = (best.vector / root).cpu().numpy()
    return Eigenvector(x, 1 - best.value, best.residual, space.products)


def dense_eigenvector(graph: PatchGraph) -> Eigenvector | None:
    """The same by a dense decomposition; its time grows with the cube of the number of patches."""
    if graph.size == 1:
        return None
    root = graph.degrees.sqrt().cpu().numpy()
    normalised = graph.dense() / root / root[:, None]
    last = graph.size - 1
    values, vectors = eigh(normalised, subset_by_index=[last - 1, last])
    value, v = float(values[0]), vectors[:, 0]
    if value <= ROUNDING:
        return None
    residual = float(np.linalg.norm(normalised @ v - value * v))
    return Eigenvector(v / root, 1 - value, residual, 0)


def _starts(graph: PatchGraph) -> list[NDArray[np.float64]]:
    """Vectors x to start from: indicators of components, and a random one.

    All patches that were taken out have the same affinities, and so have all patches that are like
    no other: the eigenvector has one value on each of these two kinds. So do the starts, and with
    them all vectors of the search. That hides the many eigenvalues of eigenvectors that differ
    only within a kind.
    """
    labels = graph.components()
    sizes = np.bincount(labels[labels >= 0])
    large = np.argsort(-sizes, kind="stable")[:COMPONENTS]
    starts = [(labels == c).astype(np.float64) for c in large if sizes[c] > 1]
    random = np.random.default_rng(0).standard_normal(graph.size)
    out = labels < 0
    alone = ~out & (sizes[labels] == 1) if len(sizes) else np.zeros_like(out)
    for kind in (out, alone):
        if kind.any():
            starts.append(kind.astype(np.float64))
            random[kind] = 0
    return [*starts, random]


class _Pair(NamedTuple):
    """An approximate eigenvalue and eigenvector of A, and their error.

    Attributes:
        value: the eigenvalue.
        vector: (n,) float64 of length 1.
        error: (n,) float64: A vector - value vector.
        residual: length of the error.
    """

    value: float
    vector: torch.Tensor
    error: torch.Tensor
    residual: float


class _Subspace:
    """Orthonormal vectors, the first of them A's known eigenvector, and A times each."""

    def __init__(self, graph: PatchGraph, root: torch.Tensor) -> None:
        self._graph, self._root = graph, root
        self._most = min(MOST_VECTORS, graph.size - 1)
        self._basis = root.new_zeros(self._most + 1, len(root))
        self._images = torch.zeros_like(self._basis)
        self._basis[0] = root / torch.linalg.vector_norm(root)
        self._projected = root.new_zeros(self._most + 1, self._most + 1)
        self.size = 0  #: vectors besides the known one
        self.products = 0

    def add(self, vector: torch.Tensor) -> bool:
        """Add a vector, unless the subspace is full or contains it already."""
        if self.size == self._most:
            return False
        inside = self._basis[: self.size + 1]
        before = torch.linalg.vector_norm(vector)
        for _ in range(2):  # once is not orthogonal to float64's precision
            vector = vector - inside.T @ (inside @ vector)
        length = torch.linalg.vector_norm(vector)
        if not bool(length > 1e-10 * before):
            return False
        self.size += 1
        vector = vector / length
        image = self._graph.times(vector / self._root) / self._root
        self._basis[self.size] = vector
        self._images[self.size] = image
        self._projected[self.size, : self.size + 1] = self._basis[: self.size + 1] @ image
        self.products += 1
        return True

    def grow(self, pair: _Pair) -> bool:
        """Add some steps of Lanczos' method from a pair's error; False if none of them is new."""
        if self.size + STEPS > self._most and self.size > KEPT_VECTORS:
            self._keep(KEPT_VECTORS)
        grown = self.add(pair.error)
        for _ in range(STEPS - 1):
            if not self.add(self._images[self.size]):
                break
            grown = True
        return grown

    def best(self) -> tuple[_Pair, _Pair]:
        """The pairs of the two largest eigenvalues within the subspace (Rayleigh and Ritz).

        With a single vector there is no second pair; its value is then the lowest possible.
        """
        values, mix = self._solve()
        basis, images = self._basis[1 : self.size + 1], self._images[1 : self.size + 1]
        pairs = []
        for value, weights in zip(values[:-3:-1].tolist(), mix.T[-2:].flip(0), strict=True):
            vector = weights @ basis
            error = weights @ images - value * vector
            residual = float(torch.linalg.vector_norm(error))
            pairs.append(_Pair(value, vector, error, residual))
        if len(pairs) == 1:
            pairs.append(_Pair(-1.0, basis[0], torch.zeros_like(basis[0]), 0.0))
        return pairs[0], pairs[1]

    def _solve(self) -> tuple[NDArray[np.float64], torch.Tensor]:
        projected = self._projected[1 : self.size + 1, 1 : self.size + 1].cpu().numpy()
        values, mix = np.linalg.eigh(projected, UPLO="L")
        return values, torch.from_numpy(mix).to(self._root)

    def _keep(self, count: int) -> None:
        values, mix = self._solve()
        best = mix[:, -count:].T
        for rows in (self._basis, self._images):
            rows[1 : count + 1] = best @ rows[1 : self.size + 1]
        self._projected.zero_()
        kept = torch.from_numpy(values[-count:].copy()).to(self._root)
        self._projected[1 : count + 1, 1 : count + 1] = torch.diag(kept)
        self.size = count
