"""The sign of an eigenvector, against what scipy's eigh returns."""

import numpy as np
import pytest
import torch
from scipy.linalg import block_diag

from promerge_fo.segment.lapack_sign import lapack_sign
from promerge_fo.segment.patch_graph import PatchGraph
from promerge_fo.segment.prompting import UnitFeatures
from tests.scenes import feature_scene
from tests.segment.cut_oracle import second_smallest
from tests.segment.test_eigenvector import GRAPHS, graph_of


def check(graph: PatchGraph) -> None:
    _, x = second_smallest(graph.dense())
    assert lapack_sign(graph, x) == 1
    assert lapack_sign(graph, -3 * x) == -1


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs(name: str):
    check(graph_of(GRAPHS[name]))


@pytest.mark.parametrize("n", [3, 4, 5, 6, 7, 8])
def test_tiny_graphs(n: int):
    checked = 0
    for seed in range(12):
        upper = np.triu(np.random.default_rng(100 * n + seed).random((n, n)) < 0.5)
        alike = upper | upper.T | np.eye(n, dtype=bool)
        graph = graph_of(alike)
        values, x = second_smallest(graph.dense())
        # where the first patch has no part in a vector, its sign is LAPACK's rounding
        if values[1] - values[0] > 1e-9 and abs(x[0]) > 1e-9:
            check(graph)
            checked += 1
    assert checked > 3


@pytest.mark.parametrize("tau", [0.15, 0.5])
def test_scenes_cut_after_cut(tau: float):
    signs = []
    for seed in range(15):
        features, truth = feature_scene(seed, grid=(14, 15))
        graph = PatchGraph.of(UnitFeatures(torch.from_numpy(features), 0.0), tau, 1e-5)
        for mask in (np.zeros((14, 15), dtype=bool), *truth[:2]):
            graph = graph.without(mask.ravel())
            values, x = second_smallest(graph.dense())
            if values[1] - values[0] > 1e-9:
                check(graph)
                signs.append(x[np.abs(x).argmax()] > 0)
    assert len(signs) > 25
    assert 0.1 < np.mean(signs) < 0.9  # or a constant would do


def test_a_matrix_that_is_tridiagonal_already():
    # nothing is left behind the diagonal, where LAPACK reflects nothing
    alike = block_diag(np.ones((2, 2)), np.ones((2, 2)))
    alike[1, 2] = alike[2, 1] = 1
    check(graph_of(alike, eps=1e-7))
