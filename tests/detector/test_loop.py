"""Parts of the training loop."""

from pathlib import Path

import pytest

from promerge_fo.detector import DetectorConfig
from promerge_fo.detector.job import Job


def job(device, config=None):
    place = Path()
    config = config or DetectorConfig()
    return Job(place, place, place, config, None, False, device, 0, 1, 1, print)


@pytest.mark.parametrize(
    ("device", "wanted", "capability", "expected"),
    [
        ("cuda", True, (7, 0), True),
        ("cuda", True, (9, 0), True),
        ("cuda", True, (6, 1), False),
        ("cuda", False, (9, 0), False),
        ("cpu", True, (9, 0), False),
    ],
)
def test_half_precision_where_it_is_wanted_and_possible(
    detectron2, monkeypatch, device, wanted, capability, expected
):
    import torch

    from promerge_fo.detector.loop import _can_halve

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert _can_halve(job(device, DetectorConfig(mixed_precision=wanted))) is expected


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_that_begins_leaves_what_the_iteration_draws(detectron2, workers):
    """It begins at another iteration after a kill: regions must be sampled as without one."""
    import torch

    from promerge_fo.detector.loop import _loader

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    made = list(_loader(["zero", "one", "two"], range(1, 3), workers))
    assert made == ["one", "two"]
    assert torch.equal(torch.rand(3), expected)
