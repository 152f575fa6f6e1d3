"""Vectors into groups, and to their nearest neighbours; with arrays alone.

All vectors are float32 of unit length, centred over a dataset, (n, d).
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.cluster.hierarchy import fcluster, linkage

__all__ = ["FITTED", "find_groups", "near_quantile", "nearest", "partition", "typicality_of"]

FITTED = 5000  #: vectors that groups are found on, where there are more
_NEARLY = 0.7  # of the best silhouette: merging two groups is less work than splitting one
_SCORED = 2000  # vectors that silhouettes are taken of
_COMPONENTS = (10, 50)  # the fewest and the most, and one more for each 20 vectors
_EQUAL = 1e-5
_CELLS = 16 << 20  # similarities in memory at once
_PAIRED = 2000  # vectors whose pairs stand for all pairs

Vectors = NDArray[np.float32]


def find_groups(
    vectors: Vectors, groups: int | None = None, *, fit_on: int = FITTED, seed: int = 0
) -> NDArray[np.int64]:
    """Groups of vectors that are alike; the same vectors give the same groups.

    Args:
        vectors: (n, d).
        groups: their number, for k-means. None cuts the tree of Ward's method where the mean
            silhouette is best, or as finely as it is nearly as good: into 12 groups at most, or of
            more than 432 vectors into the square root of a third of them.
        fit_on: groups are found on so many vectors, and every other one joins the nearest group.
        seed: of everything that is drawn.

    Returns:
        (n,) the number of each vector's group, from 0 in the order of falling size; -1 for one that
        points away from the mean of its group, unless their number was given.

    Raises:
        ValueError: there are fewer vectors than groups, or all are equal; ``groups`` is under 1, or
            ``fit_on`` under 2.
    """
    count = len(vectors)
    if fit_on < 2:
        raise ValueError(f"fit_on is {fit_on}, but must be at least 2 masks")
    if groups is not None and groups < 1:
        raise ValueError(f"groups is {groups}, but must be at least 1")
    if groups is not None and groups > min(count, fit_on):
        raise ValueError(
            f"{groups} groups of {min(count, fit_on)} masks are too many; ask for fewer"
        )
    if np.ptp(vectors, axis=0).max(initial=0) < _EQUAL:
        raise ValueError(
            f"all {count:,} embeddings are equal: the encoder sees no difference between the "
            "masks; embed them with another encoder, facet or block"
        )
    chosen = np.arange(count)
    if count > fit_on:
        chosen = np.sort(np.random.default_rng(seed).choice(count, fit_on, replace=False))
    fitted = _tree(vectors[chosen]) if groups is None else _k_means(vectors[chosen], groups, seed)
    similar = vectors @ _means(vectors[chosen], fitted).T
    found = similar.argmax(axis=1)
    found[chosen] = fitted
    if groups is None:
        found[similar[np.arange(count), found] <= 0] = -1
    return _by_size(found)


def partition(vectors: Vectors, parts: int, *, seed: int = 0) -> NDArray[np.int64]:
    """Parts of some vectors by k-means: (n,) numbers from 0, by falling size.

    There are fewer parts where there are fewer different vectors.
    """
    return _by_size(_k_means(vectors, parts, seed))


def typicality_of(vectors: Vectors, groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """How typical each vector is of its group: its cosine to the group's mean, 0 if that is less.

    Args:
        vectors: (n, d).
        groups: (n,) the numbers of their groups, from 0; -1 for none.

    Returns:
        (n,) in [0, 1]; NaN for a vector of no group.
    """
    means = _means(vectors, groups)
    typicality = np.einsum("ij,ij->i", vectors, means[groups], dtype=np.float64)
    return np.where(groups < 0, np.nan, np.clip(typicality, 0, 1))


def nearest(vectors: Vectors, others: Vectors) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each vector the nearest of others, (n,), and the distance to it: 1 - cosine, (n,)."""
    found = np.zeros(len(vectors), dtype=np.int64)
    closest = np.zeros(len(vectors))
    step = max(1, _CELLS // max(1, len(others)))
    for start in range(0, len(vectors), step):
        similar = vectors[start : start + step] @ others.T
        best = similar.argmax(axis=1)
        found[start : start + step] = best
        closest[start : start + step] = similar[np.arange(len(best)), best]
    return found, np.clip(1 - closest, 0, 2)


def near_quantile(vectors: Vectors, share: float = 0.1) -> float:
    """The distance, 1 - cosine, under which this share of all pairs of vectors lie."""
    rng = np.random.default_rng(0)
    if len(vectors) > _PAIRED:
        vectors = vectors[np.sort(rng.choice(len(vectors), _PAIRED, replace=False))]
    first, second = np.triu_indices(len(vectors), 1)
    if not len(first):
        return 0.0
    distances = (1 - vectors @ vectors.T)[first, second]
    return float(np.clip(np.quantile(distances, share), 0, 2))


def _tree(vectors: Vectors) -> NDArray[np.int64]:
    """Ward's tree, cut where the mean silhouette is best, or as finely as is nearly as good."""
    from sklearn.metrics import pairwise_distances, silhouette_score

    reduced = _reduced(vectors)
    tree = linkage(reduced, "ward")
    most = min(max(12, round((len(vectors) / 3) ** 0.5)), len(np.unique(reduced, axis=0)))
    cuts = {k: fcluster(tree, k, "maxclust") for k in range(2, most + 1)}
    drawn = np.random.default_rng(0).permutation(len(reduced))[:_SCORED]
    apart = pairwise_distances(reduced[drawn])
    np.fill_diagonal(apart, 0)
    scores = {
        k: float(silhouette_score(apart, cut[drawn], metric="precomputed"))
        for k, cut in cuts.items()
        if 1 < len(np.unique(cut[drawn])) < len(drawn)
    }
    if not scores:  # two vectors
        return np.arange(len(vectors)) % 2
    enough = _NEARLY * max(scores.values())
    best = max(k for k, score in scores.items() if score >= enough)
    return np.asarray(cuts[best] - 1, dtype=np.int64)


def _k_means(vectors: Vectors, groups: int, seed: int) -> NDArray[np.int64]:
    from sklearn.cluster import KMeans

    with warnings.catch_warnings():  # of fewer different vectors than groups
        warnings.simplefilter("ignore")
        found = KMeans(groups, n_init=10, random_state=seed).fit_predict(_reduced(vectors))
    return np.asarray(found, dtype=np.int64)


def _reduced(vectors: Vectors) -> Vectors:
    """The first principal components, each scaled by its standard deviation's square root.

    That is halfway to whitening: what makes most of the variance is often light or background.
    """
    from sklearn.decomposition import PCA

    few, many = _COMPONENTS
    count = min(max(few, min(len(vectors) // 20, many)), *vectors.shape)
    components = PCA(count, svd_solver="full").fit(vectors)
    scale = np.maximum(components.explained_variance_, 1e-9) ** 0.25
    different, which = np.unique(vectors, axis=0, return_inverse=True)  # equal ones stay equal
    reduced: Vectors = (components.transform(different) / scale)[which.ravel()]
    return reduced


def _by_size(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Groups numbered anew: by falling size, and of equal ones that of the first vector first."""
    numbers, first, sizes = np.unique(groups[groups >= 0], return_index=True, return_counts=True)
    new = np.full(max(int(groups.max(initial=-1)) + 2, 1), -1, dtype=np.int64)  # the last is for -1
    new[numbers[np.lexsort((first, -sizes))]] = np.arange(len(numbers))
    return new[groups]


def _means(vectors: Vectors, groups: NDArray[np.int64]) -> Vectors:
    """(k, d) the direction of each group's mean; zeros where it has none."""
    count = max(int(groups.max(initial=-1)) + 1, 1)
    inside = np.flatnonzero(groups >= 0)
    ones = np.ones(len(inside), dtype=np.float32)
    shape = (count, len(vectors))
    sums = sparse.csr_matrix((ones, (groups[inside], inside)), shape) @ vectors
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    means: Vectors = (sums / np.where(lengths > 0, lengths, np.inf)).astype(np.float32)
    return means
