"""Vectors into groups: vectors of known kinds."""

import numpy as np
import pytest

from promerge_fo.dataset.classes.clustering import (
    find_groups,
    near_quantile,
    nearest,
    partition,
    typicality_of,
)


def vectors_of(seed, kinds, count, dims=32, noise=0.5, shares=None):
    """Unit vectors about random directions, centred as embeddings are, and their kinds."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((kinds, dims))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    given = np.r_[np.arange(kinds), rng.choice(kinds, count - kinds, p=shares)]
    vectors = directions[given] + noise * rng.standard_normal((count, dims)) / np.sqrt(dims)
    vectors -= vectors.mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), given


def right(groups, kinds):
    """The share of vectors in a group whose most frequent kind is theirs."""
    members = (kinds[groups == g] for g in np.unique(groups[groups >= 0]))
    return sum(np.bincount(each).max() for each in members) / len(kinds)


@pytest.mark.parametrize("noise", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("kinds", [2, 4, 7])
def test_kinds_are_found_without_their_number(kinds, noise):
    for seed in range(3):
        vectors, truth = vectors_of(seed, kinds, 40 * kinds, noise=noise)
        groups = find_groups(vectors)
        assert right(groups, truth) > 0.95
        assert kinds <= groups.max() + 1 <= 12


def test_a_rare_kind_is_found():
    vectors, truth = vectors_of(1, 3, 300, shares=(0.75, 0.2, 0.05))
    groups = find_groups(vectors)
    assert right(groups, truth) > 0.95
    assert len({np.bincount(truth[groups == g]).argmax() for g in range(groups.max() + 1)}) == 3


def test_groups_are_numbered_by_falling_size_and_come_out_the_same_again():
    vectors, _ = vectors_of(2, 5, 200, shares=(0.5, 0.2, 0.1, 0.1, 0.1))
    groups = find_groups(vectors)
    sizes = np.bincount(groups[groups >= 0]).tolist()
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) >= 5
    np.testing.assert_array_equal(find_groups(vectors), groups)
    for number in (1, 3, 9):
        given = find_groups(vectors, number)
        assert given.min() == 0
        assert given.max() + 1 == number


def test_what_is_fitted_on_a_sample_holds_for_the_rest():
    vectors, truth = vectors_of(3, 4, 2000)
    groups = find_groups(vectors, fit_on=200)
    assert right(groups, truth) > 0.97
    np.testing.assert_array_equal(find_groups(vectors, fit_on=200), groups)
    assert right(find_groups(vectors, 4, fit_on=200), truth) > 0.97


def test_what_cannot_be_grouped_is_refused():
    vectors, _ = vectors_of(0, 2, 10)
    with pytest.raises(ValueError, match="all 10 embeddings are equal"):
        find_groups(np.zeros_like(vectors))
    with pytest.raises(ValueError, match="all 10 embeddings are equal"):
        find_groups(np.repeat(vectors[:1], 10, axis=0))
    with pytest.raises(ValueError, match="20 groups of 10 masks"):
        find_groups(vectors, 20)
    with pytest.raises(ValueError, match="groups is 0, but must be at least 1"):
        find_groups(vectors, 0)
    with pytest.raises(ValueError, match="fit_on is 1, but must be at least 2"):
        find_groups(vectors, fit_on=1)
    two = find_groups(vectors[:2])
    assert sorted(two.tolist()) in ([0, 0], [0, 1])


def test_equal_vectors_come_into_one_group():
    vectors, truth = vectors_of(4, 3, 3)
    repeated = np.repeat(vectors, 5, axis=0)
    groups = find_groups(repeated)
    np.testing.assert_array_equal(np.sort(np.bincount(groups)), [5, 5, 5])
    assert right(groups, np.repeat(truth, 5)) == 1


def test_a_partition_has_its_largest_part_first():
    vectors, truth = vectors_of(5, 2, 60, shares=(0.7, 0.3))
    parts = partition(vectors, 2)
    assert right(parts, truth) == 1
    assert (parts == 0).sum() > (parts == 1).sum()
    assert partition(np.repeat(vectors[:1], 4, axis=0), 2).tolist() == [0, 0, 0, 0]


def test_typicality_is_the_cosine_to_the_groups_mean():
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1], [-1, 0], [0, -1]], dtype=np.float32)
    groups = np.array([0, 0, 1, -1, 1])
    found = typicality_of(vectors, groups)
    mean = np.array([1.6, 0.8]) / np.hypot(1.6, 0.8)
    expected = [mean[0], mean @ [0.6, 0.8], 0, np.nan, 0]  # the mean of opposites is nowhere
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_nearest_is_what_all_pairs_give(monkeypatch):
    from promerge_fo.dataset.classes import clustering

    vectors, _ = vectors_of(6, 3, 50)
    monkeypatch.setattr(clustering, "_CELLS", 100)  # several steps
    found, distances = nearest(vectors[:30], vectors[30:])
    pairs = 1 - vectors[:30].astype(np.float64) @ vectors[30:].T.astype(np.float64)
    np.testing.assert_array_equal(found, pairs.argmin(axis=1))
    np.testing.assert_allclose(distances, pairs.min(axis=1), atol=1e-6)
    assert nearest(vectors[:0], vectors)[0].shape == (0,)
    every = (1 - vectors @ vectors.T)[np.triu_indices(50, 1)]
    assert near_quantile(vectors) == pytest.approx(np.quantile(every, 0.1), abs=1e-6)
    assert near_quantile(vectors[:1]) == 0
