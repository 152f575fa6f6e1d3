"""The sign that a dense solver gives an eigenvector, found without the dense solver.

An eigenvector has either sign, and MaskCut's masks depend on it: the released code exchanges the
sides of a cut with many corners only if the foreground lies above the mean of the vector, in the
sign that scipy's ``eigh`` returns. Without that sign, such cuts differ from the reference.

LAPACK's solver for some of the eigenvectors (xSYGVX, for which scipy calls here) reduces the
matrix to a tridiagonal one, by Householder reflections from the first row on, and makes the
largest entry of the tridiagonal matrix's eigenvector positive (xSTEIN). The reflections are those
of a QR decomposition of the vectors that Lanczos' method makes from the first unit vector. A
smooth eigenvector has its largest entry among the first ones, so that some ten products with the
matrix tell the sign.
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
        1 if it has, -1 if LAPACK's has the opposite sign. Where ``MOST_STEPS`` entries do not
        tell for certain, the sign by the largest of them; where the first patch has no part in
        the eigenvector, as in a graph that is its own mirror image, LAPACK's is a matter of
        rounding.
    """
    root = graph.degrees.sqrt()
    y = x * root.cpu().numpy()
    y /= np.linalg.norm(y)
    steps = min(MOST_STEPS, graph.size)
    columns = np.zeros((graph.size, steps))  # the first unit vector; A times the others before it
    columns[0, 0] = 1
    largest = 0.0
    for count in range(1, steps + 1):
        basis, _ = np.linalg.qr(columns[:, :count])
        entries = basis.T @ y
        largest = entries[np.abs(entries).argmax()]
        if count == steps or 1 - entries @ entries < largest**2:  # the square of those to come
            break
        last = torch.from_numpy(basis[:, -1]).to(root)
        columns[:, count] = (graph.times(last / root) / root).cpu().numpy()
    return 1 if largest >= 0 else -1
