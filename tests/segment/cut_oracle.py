"""TokenCut and MaskCut as plainly as they can be written, with a dense decomposition.

The whole matrices of the papers, in float64; features are masked out as such, and whatever comes
out is looked at patch by patch.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh


def affinity(features: np.ndarray, tau: float, eps: float) -> np.ndarray:
    """(n, n) affinities of features (C, n)."""
    lengths = np.sqrt((features**2).sum(axis=0))
    units = features / np.where(lengths > 0, lengths, 1)
    return np.where(units.T @ units > tau, 1.0, eps)


def second_smallest(W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The second and third eigenvalue of (D - W) x = lambda D x, and the second's eigenvector."""
    D = np.diag(W.sum(axis=1))
    values, vectors = eigh(D - W, D, subset_by_index=[1, min(2, len(W) - 1)])
    return values, vectors[:, 0]


def tokencut(features: np.ndarray, tau: float = 0.2, eps: float = 1e-5) -> np.ndarray:
    """(h, w) mask of features (C, h, w)."""
    channels, h, w = features.shape
    W = affinity(features.reshape(channels, h * w).astype(np.float64), tau, eps)
    return chosen(second_smallest(W)[1].reshape(h, w), 4)


def maskcut(features: np.ndarray, p: dict) -> list[np.ndarray]:
    """A mask (h, w) a cut, empty where it was rejected; p is a configuration's ``to_dict``."""
    channels, h, w = features.shape
    F = features.reshape(channels, h * w).astype(np.float64)
    masks: list[np.ndarray] = []
    found: list[np.ndarray] = []  # a cut's whole part, which later masks may overlap
    for number in range(p["cuts"]):
        W = affinity(F, p["tau"], p["eps"])
        part = chosen(second_smallest(W)[1].reshape(h, w), p["max_corners"])
        if number > 0:
            shared, either = (part & found[-1]).sum(), (part | found[-1]).sum()
            if shared / either > p["max_overlap"] or part.sum() / (h * w) <= p["min_area"]:
                part = np.zeros_like(part)
        mask = part.copy()
        for other in found:
            mask &= ~other
        found.append(part)
        masks.append(mask)
        F = np.where(part.ravel(), 0.0, F)
    return masks


def chosen(x: np.ndarray, max_corners: int) -> np.ndarray:
    """The part of the foreground that holds its strongest patch; the sign of x is LAPACK's."""
    h, w = x.shape
    front = x > x.mean()
    corners = sum(bool(front[i, j]) for i in (0, h - 1) for j in (0, w - 1))
    if corners > max_corners or not front[first_largest(np.abs(x))]:
        x, front = -x, ~front
    seed = first_largest(x)
    part = np.zeros_like(front)
    todo = [seed]
    part[seed] = True
    while todo:
        i, j = todo.pop()
        for a, b in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
            if 0 <= a < h and 0 <= b < w and front[a, b] and not part[a, b]:
                part[a, b] = True
                todo.append((a, b))
    return part


def first_largest(x: np.ndarray) -> tuple[int, int]:
    """The first entry that is as large as any: which of equal ones is larger is rounding's whim."""
    most = x.max()
    return next((i, j) for i, j in np.ndindex(*x.shape) if x[i, j] >= most - 1e-7 * abs(most))
