"""Lanczos' method against dense decompositions of the generalised problem."""

import warnings

import numpy as np
import pytest
import torch
from scipy.linalg import block_diag

from promerge_fo.segment import eigenvector
from promerge_fo.segment.eigenvector import dense_eigenvector, second_eigenvector
from promerge_fo.segment.patch_graph import PatchGraph
from tests.segment.cut_oracle import second_smallest
from tests.segment.test_patch_graph import EPS, random_alike


def graph_of(alike: np.ndarray, eps: float = EPS) -> PatchGraph:
    return PatchGraph(torch.from_numpy(np.ascontiguousarray(alike, dtype=bool)), eps)


def calculated_as_on_a_gpu(graph: PatchGraph) -> PatchGraph:
    """The dense matrix of a GPU in place of the CPU's bits; on a GPU, where there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    W = torch.from_numpy(graph.dense()).to(device)
    other = PatchGraph(W == 1, EPS)
    other._matrix = (W == 1).to(torch.float64)
    return other


def planted(sizes: list[int], within: float, between: float, seed: int = 0) -> np.ndarray:
    """Groups whose members are alike with one probability, and members of others with another."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    chance = np.where(group[:, None] == group, within, between)
    upper = np.triu(np.random.default_rng(seed).random(chance.shape) < chance)
    alike = upper | upper.T
    np.fill_diagonal(alike, True)
    return alike


def ring(n: int, reach: int) -> np.ndarray:
    """Each is like its neighbours on a line."""
    places = np.arange(n)
    return np.abs(places[:, None] - places) <= reach


GRAPHS = {
    "random": random_alike(300, 0.1),
    "dense": random_alike(200, 0.8),
    "two groups": planted([120, 80], 0.5, 0.02),
    "five groups": planted([60, 50, 40, 30, 20], 0.6, 0.03),
    "two components": planted([150, 60], 0.3, 0.0),
    "many components": planted([40, 37, 31, 29, 23, 19, 17, 13, 11, 7, 5, 3], 0.7, 0.0),
    "more components than starts": planted(list(range(3, 40)), 0.8, 0.0),
    "a component and specks": block_diag(random_alike(150, 0.2), np.eye(9)),
    "components and specks": block_diag(random_alike(90, 0.3), random_alike(40, 0.4), np.eye(30)),
    "a line": ring(300, 8),
    "a long line": ring(900, 10),
    "three": np.array([[1, 1, 0], [1, 1, 1], [0, 1, 1]]),
    "a pair and one": block_diag(np.ones((2, 2)), np.ones((1, 1))),
}
CASES = [(name, out) for name in GRAPHS for out in (0.0, 0.3) if not out or len(GRAPHS[name]) > 9]


@pytest.mark.parametrize(("name", "out"), CASES)
def test_against_the_generalised_problem(name: str, out: float):
    graph = graph_of(GRAPHS[name])
    if out:
        graph = graph.without(np.arange(graph.size) < out * graph.size)
    W = graph.dense()
    values, wanted = second_smallest(W)
    assert values[1] - values[0] > 1e-7  # there is one vector to find
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = second_eigenvector(graph)
    assert found.eigenvalue == pytest.approx(values[0], abs=1e-9)
    D = W.sum(axis=1)
    assert (found.x * D * found.x).sum() == pytest.approx(1, abs=1e-9)
    assert abs((found.x * D * wanted).sum()) == pytest.approx(1, abs=1e-10)
    assert abs((found.x * D).sum()) < 1e-9
    error = W @ found.x / D - (1 - found.eigenvalue) * found.x
    assert np.sqrt((error * D * error).sum()) == pytest.approx(found.residual, abs=1e-12)
    # and by its own dense solver
    dense = dense_eigenvector(graph)
    assert dense.eigenvalue == pytest.approx(values[0], abs=1e-9)
    assert abs((dense.x * D * wanted).sum()) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("name", ["random", "five groups", "many components"])
def test_on_a_gpus_path_the_same_is_found(name: str):
    graph = graph_of(GRAPHS[name])
    quick, other = (second_eigenvector(g) for g in (graph, calculated_as_on_a_gpu(graph)))
    assert other.eigenvalue == pytest.approx(quick.eigenvalue, abs=1e-12)
    np.testing.assert_allclose(other.x * np.sign(other.x @ quick.x), quick.x, atol=1e-8)


@pytest.mark.parametrize("count", [3, 4, 8])
def test_equal_cliques_have_many_eigenvectors_of_which_it_finds_one(count: int):
    alike = block_diag(*[np.ones((12, 12))] * count)
    graph = graph_of(alike)
    values, _ = second_smallest(graph.dense())
    assert values[1] - values[0] < 1e-12
    found = second_eigenvector(graph)
    assert found.eigenvalue == pytest.approx(values[0], abs=1e-12)
    assert found.residual < 1e-12
    # equal on each clique, as all vectors of this eigenvalue are
    np.testing.assert_allclose(found.x.reshape(count, 12).std(axis=1), 0, atol=1e-12)
    again = second_eigenvector(graph_of(alike))
    np.testing.assert_array_equal(found.x, again.x)


def test_a_clique_that_weakly_holds_together_beside_separate_ones():
    """The starts hold exact eigenvectors, and yet a better one is to be found."""
    weak = block_diag(np.ones((50, 50)), np.ones((50, 50)))
    weak[0, 99] = weak[99, 0] = 1
    alike = block_diag(weak, np.eye(3))
    graph = graph_of(alike, eps=1e-3)
    values, wanted = second_smallest(graph.dense())
    found = second_eigenvector(graph)
    assert found.eigenvalue == pytest.approx(values[0], abs=1e-10)
    D = graph.dense().sum(axis=1)
    assert abs((found.x * D * wanted).sum()) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    "alike",
    [np.ones((1, 1)), np.ones((30, 30)), np.eye(30), np.zeros((30, 30))],
    ids=["one patch", "all alike", "none alike", "none like itself"],
)
def test_where_no_cut_is_better_than_others(alike: np.ndarray):
    assert second_eigenvector(graph_of(alike)) is None


def test_all_patches_taken_out():
    graph = graph_of(random_alike(30, 0.4)).without(np.ones(30, dtype=bool))
    assert second_eigenvector(graph) is None


def test_patches_of_a_kind_have_equal_entries():
    alike = block_diag(random_alike(80, 0.2), np.eye(7))
    out = np.arange(87) < 20
    found = second_eigenvector(graph_of(alike).without(out))
    assert np.ptp(found.x[:20]) < 1e-14
    assert np.ptp(found.x[80:]) < 1e-14


def test_the_dense_solver_takes_over_and_says_so(monkeypatch):
    graph = graph_of(GRAPHS["five groups"])
    quick = second_eigenvector(graph)
    assert quick.products > 10
    monkeypatch.setattr(eigenvector, "MOST_PRODUCTS", 10)
    with pytest.warns(RuntimeWarning, match="after .* on a graph of 200 patches; the dense solver"):
        found = second_eigenvector(graph)
    assert found.products == 0
    assert found.eigenvalue == pytest.approx(quick.eigenvalue, abs=1e-12)
    sign = np.sign(found.x @ quick.x)
    np.testing.assert_allclose(sign * found.x, quick.x, atol=1e-8)


def test_the_search_goes_on_when_the_subspace_is_full(monkeypatch):
    monkeypatch.setattr(eigenvector, "MOST_VECTORS", 30)
    monkeypatch.setattr(eigenvector, "KEPT_VECTORS", 10)
    graph = graph_of(GRAPHS["a line"])
    found = second_eigenvector(graph)
    values, wanted = second_smallest(graph.dense())
    assert found.products > 60
    assert found.eigenvalue == pytest.approx(values[0], abs=1e-10)
    D = graph.dense().sum(axis=1)
    assert abs((found.x * D * wanted).sum()) == pytest.approx(1, abs=1e-9)
