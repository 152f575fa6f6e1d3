"""The authors' released implementation, stage by stage, on features stored beside its outputs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from promerge_fo.config import ProMergeConfig
from promerge_fo.segment import trace_segmentation
from tests.scenes import iou_matrix

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
CASES = sorted(p for p in GOLDEN.glob("*.npz") if "merged" in np.load(p).files)


def unpack(rows: np.ndarray) -> np.ndarray:
    return np.unpackbits(rows, axis=1, count=3600).astype(bool).reshape(-1, 60, 60)


def test_all_cases_are_there():
    assert len(CASES) == 11


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
@pytest.mark.parametrize("as_torch", [False, True], ids=["numpy", "torch"])
def test_stages(path: Path, as_torch: bool):
    golden = np.load(path)
    config = ProMergeConfig.preset("official").replace(**json.loads(str(golden["params"])))
    features = golden["features"].astype(np.float32)
    trace = trace_segmentation(torch.from_numpy(features) if as_torch else features, config)

    assert len(trace.foreground) == golden["n_foreground"]
    assert trace.is_candidate.sum() == golden["n_background"]
    if golden["n_foreground"]:  # without foreground masks the reference does not vote
        assert (trace.background != golden["background"]).sum() <= 2
    kept = unpack(golden["kept"])
    assert len(trace.kept) == len(kept)
    if len(kept):
        assert np.diagonal(iou_matrix(trace.kept, kept)).min() >= 0.99

    merged = golden["merged"]
    result = trace.instances
    assert len(result) == len(merged)
    if len(merged):
        assert np.diagonal(iou_matrix(result.masks, merged)).min() >= 0.99
    np.testing.assert_array_equal(result.scores, np.ones(len(merged)))


def test_a_random_rotation_into_768_channels_changes_nothing():
    golden = np.load(GOLDEN / "coco_000000000009.npz")
    features = golden["features"].astype(np.float64)
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.standard_normal((768, len(features))))[0]
    dense = np.einsum("dc,chw->dhw", rotation, features).astype(np.float32)
    result = trace_segmentation(dense, ProMergeConfig.preset("official")).instances
    assert len(result) == len(golden["merged"])
    assert np.diagonal(iou_matrix(result.masks, golden["merged"])).min() >= 0.99
