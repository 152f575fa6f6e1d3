"""The sign that a dense solver gives an eigenvector, found without the dense solver.

An eigenvector has either sign. CutLER's released code takes the one that scipy's ``eigh`` returns,
and what becomes of a foreground with many corners depends on it. LAPACK's solver for a part of the
eigenvectors (xSYGVX, for which scipy calls here) reduces the matrix to a tridiagonal one, by
Householder reflections from the first row on, and makes the largest entry of the tridiagonal
matrix's eigenvector positive (xSTEIN). A smooth eigenvector has that entry among the first ones,
so that some ten reflections, each of which takes one product with the matrix, tell the sign.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from promerge_fo.segment.patch_graph import PatchGraph

__all__ = ["lapack_sign"]

MOST_STEPS = 200


def lapack_sign(graph: PatchGraph, x: NDArray[np.float64]) -> int:
    """Whether an eigenvector of (D - W) x = lambda D x has the sign that LAPACK gives it.

    Args:
        graph: n patches.
        x: (n,) the eigenvector, of either sign.

    Returns:
        1 if it has, -1 if LAPACK's has the opposite sign. Where ``MOST_STEPS`` reflections do not
        tell for certain, the sign that they point to; where the first patch has no part in the
        eigenvector, as in a graph that is its own mirror image, LAPACK's is a matter of rounding.
    """
    root = graph.degrees.sqrt()
    y = torch.from_numpy(x).to(root) * root
    y = y / torch.linalg.vector_norm(y)
    steps = min(MOST_STEPS, graph.size)
    # Q = I - V' T V is the product of the reflections so far (the compact WY form)
    vectors = root.new_zeros(steps, graph.size)
    triangle = root.new_zeros(steps, steps)
    column = torch.zeros_like(root)  # of Q
    column[0] = 1
    largest, left = 0.0, 1.0  # of the entries of Q' y: the largest, the square of those to come
    for i in range(steps):
        entry = float(column @ y)
        left -= entry * entry
        largest = entry if abs(entry) > abs(largest) else largest
        if left < largest * largest or i + 1 == graph.size:
            break
        used, small = vectors[:i], triangle[:i, :i]
        image = column - graph.times(column / root) / root  # of D^-1/2 (D - W) D^-1/2
        image = image - used.T @ (small.T @ (used @ image))
        vector, scale = _reflection(image, i + 1)
        triangle[:i, i] = -scale * (small @ (used @ vector))
        triangle[i, i] = scale
        vectors[i] = vector
        used, small = vectors[: i + 1], triangle[: i + 1, : i + 1]
        column = torch.zeros_like(root)
        column[i + 1] = 1
        column = column - used.T @ (small @ used[:, i + 1])
    return 1 if largest >= 0 else -1


def _reflection(image: torch.Tensor, place: int) -> tuple[torch.Tensor, float]:
    """The v and t of a reflection I - t v v' that leaves nothing of a vector behind a place.

    Its sign is LAPACK's: the entry at the place changes its own (xLARFG).
    """
    vector = torch.zeros_like(image)
    vector[place] = 1
    if not bool(image[place + 1 :].any()):
        return vector, 0.0
    first = float(image[place])
    length = float(torch.linalg.vector_norm(image[place:]))
    last = -length if first >= 0 else length
    vector[place + 1 :] = image[place + 1 :] / (first - last)
    return vector, (last - first) / last
