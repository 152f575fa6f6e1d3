"""Small vision transformers with seeded weights, saved as checkpoints: no download."""

import numpy as np
import pytest
import timm
import torch


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """``checkpoint(timm_name)``: the path of a file with that model's seeded weights."""
    folder = tmp_path_factory.mktemp("weights")

    def save(name):
        path = folder / f"{name}.pth"
        if not path.exists():
            torch.manual_seed(0)
            model = timm.create_model(name, num_classes=0)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.05 * torch.randn_like(parameter))
            torch.save(model.state_dict(), path)
        return path

    return save


@pytest.fixture(scope="session")
def images():
    """Three uint8 images (H, W, 3) of different sizes: smooth, so that resizing keeps them."""
    made = []
    for seed, (h, w) in enumerate([(90, 120), (120, 90), (64, 64)]):
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:h, :w] / 30
        waves = [np.sin(x * a + y * b + c) for a, b, c in rng.uniform(0.5, 3, (3, 3))]
        made.append((np.stack(waves, axis=2) * 120 + 128).astype(np.uint8))
    return made
