"""What the tests of the command share."""

import pytest
from PIL import Image


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


@pytest.fixture
def folder(tmp_path, photographs):
    """A folder with four photographs and a broken one."""
    made = tmp_path / "photos"
    made.mkdir()
    for number, path in enumerate(photographs):
        Image.open(path).save(made / f"{number}.png")
    (made / "broken.jpg").write_bytes(b"no image")
    return made


@pytest.fixture(autouse=True)
def no_datasets_left(request):
    yield
    if "fo" in request.fixturenames:
        fo = request.getfixturevalue("fo")
        for name in fo.list_datasets():
            fo.delete_dataset(name)
