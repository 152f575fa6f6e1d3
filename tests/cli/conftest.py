"""What the tests of the command share."""

import pytest


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The options that choose a small vision transformer with seeded weights."""
    import timm
    import torch

    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict(), path)
    return ["--encoder", "vit_tiny_patch16_224", "--checkpoint", str(path)]
