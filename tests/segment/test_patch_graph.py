"""The graph of patches against the dense matrices that it stands for."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from promerge_fo.segment import prompting
from promerge_fo.segment.patch_graph import PatchGraph
from promerge_fo.segment.prompting import UnitFeatures

EPS = 1e-5


CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
on_every_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=CUDA)])


def random_alike(n: int, share: float, seed: int = 0) -> np.ndarray:
    upper = np.triu(np.random.default_rng(seed).random((n, n)) < share)
    alike = upper | upper.T
    np.fill_diagonal(alike, True)
    return alike


def dense(alike: np.ndarray, active: np.ndarray | None = None) -> np.ndarray:
    if active is not None:
        alike = alike & active & active[:, None]
    return np.where(alike, 1.0, EPS)


def on_gpus_path(alike: np.ndarray) -> PatchGraph:
    """A graph that calculates as on a GPU, on the CPU."""
    graph = PatchGraph(torch.from_numpy(alike), EPS)
    graph._matrix = torch.from_numpy(alike).to(torch.float64)
    return graph


@pytest.mark.parametrize("make", [lambda a: PatchGraph(torch.from_numpy(a), EPS), on_gpus_path])
@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 63, 64, 65, 130, 300])
def test_products_degrees_and_matrix(n: int, make):
    alike = random_alike(n, 0.3, n)
    rng = np.random.default_rng(n)
    vector = rng.standard_normal(n)
    out = rng.random(n) < 0.3
    for graph, active in ((make(alike), None), (make(alike).without(out), ~out)):
        W = dense(alike, active)
        np.testing.assert_array_equal(graph.dense(), W)
        np.testing.assert_allclose(graph.degrees.numpy(), W.sum(axis=1), rtol=1e-13)
        np.testing.assert_allclose(
            graph.times(torch.from_numpy(vector)).numpy(), W @ vector, atol=1e-12
        )


def test_patches_can_be_taken_out_one_time_after_the_other():
    alike = random_alike(70, 0.2)
    whole = PatchGraph(torch.from_numpy(alike), EPS)
    some, others = np.arange(70) < 20, np.arange(70) % 2 == 0
    graph = whole.without(some).without(others)
    np.testing.assert_array_equal(graph.dense(), dense(alike, ~(some | others)))
    np.testing.assert_array_equal(whole.dense(), dense(alike))


@pytest.mark.parametrize("share", [0.0, 0.002, 0.008, 0.5])
def test_components_are_those_of_scipy(share: float):
    alike = random_alike(400, share)
    active = np.random.default_rng(1).random(400) > 0.2
    labels = PatchGraph(torch.from_numpy(alike), EPS).without(~active).components()
    assert (labels[~active] == -1).all()
    count, expected = connected_components(csr_matrix(alike[active][:, active]))
    # scipy too numbers components by their first node
    np.testing.assert_array_equal(labels[active], expected)
    assert labels.max() + 1 == count


def test_bits_are_packed_alike_on_every_device():
    from promerge_fo.segment.bits import pack
    from promerge_fo.segment.patch_graph import _pack_there

    for n in (3, 64, 100):
        alike = random_alike(n, 0.4)
        np.testing.assert_array_equal(_pack_there(torch.from_numpy(alike)), pack(alike))


@on_every_device
@pytest.mark.parametrize("block", [1, 10, 64, 512])
def test_what_is_alike(block: int, device: str, monkeypatch):
    monkeypatch.setattr(prompting, "BLOCK", block)
    features = np.random.default_rng(0).standard_normal((6, 8, 9)).astype(np.float32)
    features[:, 0, 3] = 0
    flat = features.reshape(6, 72).astype(np.float64)
    lengths = np.linalg.norm(flat, axis=0)
    cosines = flat.T @ flat / np.maximum(np.outer(lengths, lengths), 1e-30)
    given = torch.from_numpy(features).to(device)
    alike = UnitFeatures(given, 0.0).alike(0.15).cpu().numpy()
    np.testing.assert_array_equal(alike, cosines > 0.15)
    np.testing.assert_array_equal(alike, alike.T)
    assert not alike[3].any()  # a feature of zeros is not even like itself
