"""Invariants of the lattice, and what it approximates."""

from __future__ import annotations

import numpy as np
import pytest

from promerge_fo.refine import permutohedral
from promerge_fo.refine.permutohedral import build_lattice


def chains_of(lattice, sequence=None):
    """The chains as a list of index arrays."""
    sequence = lattice.chains if sequence is None else sequence
    parts = np.split(sequence, np.flatnonzero(sequence == lattice.size))
    return [part[1:] for part in parts if len(part) > 1]


def blur(lattice, values, reverse):
    """values (m,) on the vertices, blurred along each axis in turn."""
    values = values.copy()
    for chain in chains_of(lattice, lattice.chains[::-1] if reverse else None):
        values[chain] = np.convolve(values[chain], [0.5, 1, 0.5])[1:-1]
    return values


def gaussian(lattice, x, reverse=False):
    """Splat, blur and slice of x (n,), in float64."""
    corners = lattice.vertices.shape[1]
    splat = np.bincount(
        lattice.vertices.ravel(),
        weights=(lattice.weights * x[:, None]).ravel(),
        minlength=lattice.size,
    )
    blurred = blur(lattice, splat, reverse)
    gain = 1 / (1 + 2.0 ** (1 - corners))
    return gain * (lattice.weights * blurred[lattice.vertices]).sum(axis=1)


def grid(height, width, deviation):
    return np.indices((height, width), dtype=np.float32).reshape(2, -1) / np.float32(deviation)


def cloud(n, d, spread, seed=0):
    return (np.random.default_rng(seed).standard_normal((d, n)) * spread).astype(np.float32)


@pytest.mark.parametrize("d", [1, 2, 3, 5, 7])
def test_every_point_lies_in_its_simplex(d):
    lattice = build_lattice(cloud(500, d, 4))
    assert lattice.vertices.shape == lattice.weights.shape == (500, d + 1)
    assert np.allclose(lattice.weights.sum(axis=1), 1, atol=1e-5)
    assert lattice.weights.min() >= -1e-5 and lattice.weights.max() <= 1 + 1e-5
    assert all(len(set(corners)) == d + 1 for corners in lattice.vertices.tolist())
    assert np.array_equal(np.unique(lattice.vertices), np.arange(lattice.size))


@pytest.mark.parametrize("d", [2, 5])
def test_chains_link_different_vertices(d):
    lattice = build_lattice(cloud(2000, d, 2))
    m = lattice.size
    assert lattice.chains[0] == lattice.chains[-1] == m
    chains = chains_of(lattice)
    assert len(chains) > 10
    assert all(len(chain) >= 2 and len(set(chain.tolist())) == len(chain) for chain in chains)
    members = np.concatenate(chains)
    assert members.min() >= 0 and members.max() < m
    assert np.bincount(members).max() <= d + 1  # at most once an axis


def test_on_a_line_the_two_axes_are_opposite():
    lattice = build_lattice(np.linspace(0, 40, 200, dtype=np.float32)[None])
    forth, back = chains_of(lattice)
    assert sorted(forth) == list(range(lattice.size))
    assert np.array_equal(forth, back[::-1])


def test_the_triangles_of_the_plane_close():
    # Steps along the three axes sum to zero: three steps from an inner vertex lead back to it.
    lattice = build_lattice(grid(60, 60, 3))
    m = lattice.size
    after = np.full((3, m + 1), m)
    axis, seen = 0, set()
    for chain in map(np.ndarray.tolist, chains_of(lattice)):
        if seen.intersection(chain):  # a vertex is in one chain an axis
            axis, seen = axis + 1, set()
        seen.update(chain)
        after[axis, chain[:-1]] = chain[1:]
    position = after[2, after[1, after[0]]][:m]
    inner = position < m
    assert inner.sum() > m / 2
    assert np.array_equal(position[inner], np.arange(m)[inner])


@pytest.mark.parametrize("features", [grid(24, 31, 3), cloud(800, 5, 1.5)], ids=["grid", "cloud"])
def test_the_filter_is_self_adjoint_with_its_axes_reversed(features):
    lattice = build_lattice(features)
    a, b = np.random.default_rng(1).standard_normal((2, features.shape[1]))
    left, right = a @ gaussian(lattice, b), gaussian(lattice, a, reverse=True) @ b
    assert left == pytest.approx(right, rel=1e-9)


def test_a_constant_stays_constant_away_from_the_border():
    # Dense features in 2-D: the blur keeps constants up to the gain of the whole filter.
    filtered = gaussian(build_lattice(grid(120, 120, 3)), np.ones(120 * 120)).reshape(120, 120)
    inside = filtered[30:-30, 30:-30]
    assert inside.std() / inside.mean() < 0.02


def test_the_filter_is_a_gaussian():
    # The response at deviation 5 to an impulse in the middle has the Gaussian's shape and spread.
    side = 101
    y, x = np.indices((side, side)) - side // 2
    mean = np.zeros((side, side))
    for shift in np.random.default_rng(0).uniform(0, 50, (20, 2, 1)).astype(np.float32):
        impulse = np.zeros((side, side))
        impulse[side // 2, side // 2] = 1
        mean += gaussian(build_lattice(grid(side, side, 5) + shift), impulse.ravel()).reshape(
            side, side
        )
    mean /= mean.sum()
    assert (mean * x**2).sum() == pytest.approx(25, rel=0.1)
    assert (mean * y**2).sum() == pytest.approx(25, rel=0.1)
    expected = np.exp(-(x**2 + y**2) / 50)
    assert np.corrcoef(mean.ravel(), expected.ravel())[0, 1] > 0.99


def test_equal_points_share_a_simplex():
    lattice = build_lattice(np.full((5, 50), 12.25, np.float32))
    assert (lattice.vertices == lattice.vertices[0]).all()
    assert lattice.size == 6


def test_the_hash_table_grows():
    lattice = build_lattice(cloud(3000, 5, 50))  # far apart: nothing is shared
    assert lattice.size > 17000
    assert len(np.unique(lattice.vertices)) == lattice.size


def test_points_too_far_apart_are_refused():
    with pytest.raises(ValueError, match=r"lattice keys.*smaller image"):
        build_lattice(np.array([[0, 1e6]] * 5, np.float32))


def test_too_many_points_are_refused(monkeypatch):
    monkeypatch.setattr(permutohedral, "_MAX_VERTICES", 100)
    with pytest.raises(ValueError, match=r"20 points in 5 dimensions.*120.*100"):
        build_lattice(cloud(20, 5, 1))
