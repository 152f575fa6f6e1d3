"""What is measured on: photographs, stored features, masks, encoders with random weights.

Time does not depend on the weights, so seeded random ones stand in, and nothing is downloaded. But
random weights give no masks to speak of, and the time of what comes after the encoder depends on
the masks: there, an encoder's own time is spent, and stored features are returned.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from benchmarks.settings import Settings
from promerge_fo.encoder import load_encoder
from promerge_fo.encoder.base import Encoder, Resize

GOLDEN = Path(__file__).parents[1] / "tests" / "data" / "golden"
PHOTOGRAPHS = ("coffee", "astronaut", "chelsea", "rocket")  #: lie in scikit-image's wheel
ENCODERS = {"default": "vit_base_patch8_224.dino", "fast": "vit_small_patch16_224.dino"}
TINY = "test_vit"  #: of timm's, for a quick look
STAND_IN_NOTE = (
    "The encoder has seeded random weights and takes its true time, but features of ViT-B/8 that "
    "are stored with the tests are handed on (of four COCO images, rotated to its channels, "
    "averaged to its patches), so that there are masks as many as in a real run. They are not "
    "these photographs' masks."
)


def photographs(size: tuple[int, int] | None = None) -> dict[str, NDArray[np.uint8]]:
    """Photographs (H, W, 3) by name, at a size (height, width) or at their own."""
    images = {name: Image.fromarray(getattr(data, name)()) for name in PHOTOGRAPHS}
    if size is not None:
        for name, image in images.items():
            images[name] = image.resize(size[::-1], Image.Resampling.LANCZOS)
    return {name: np.array(image) for name, image in images.items()}


def photograph_files(folder: Path, count: int, side: int = 1000) -> list[str]:
    """Paths of ``count`` JPEG files: the photographs in turn, some 400 x 600 pixels each.

    Their longer side has ``side`` pixels at most.
    """
    paths = []
    for name, pixels in photographs().items():
        paths.append(str(folder / f"{name}.jpg"))
        image = Image.fromarray(pixels)
        image.thumbnail((side, side))
        image.save(paths[-1], quality=95)
    return [paths[i % len(paths)] for i in range(count)]


def golden_features(channels: int = 768, side: int = 60) -> dict[str, torch.Tensor]:
    """Features (channels, side, side) float32 of COCO images, by the images' numbers.

    The stored 30 channels hold all of their cosines.
    """
    features = {}
    for path in sorted(GOLDEN.glob("coco_*.npz")):
        dense = rotate(np.load(path)["features"], channels)
        name = path.stem.removeprefix("coco_").lstrip("0")
        features[name] = F.interpolate(dense[None], (side, side), mode="area")[0]
    return features


def rotate(features: NDArray[Any], channels: int) -> torch.Tensor:
    """Features (c, h, w) in more, dense channels, by a random rotation, which keeps all cosines."""
    shape = (channels, len(features))
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal(shape))[0]
    dense = np.einsum("dc,chw->dhw", rotation, features.astype(np.float64))
    return torch.from_numpy(dense.astype(np.float32))


def blobs(count: int, seed: int = 0, side: int = 60) -> NDArray[np.bool_]:
    """(count, side, side): ellipses of patches."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] * (60 / side)
    masks = []
    for _ in range(count):
        centre, radii = rng.uniform(10, 50, 2), rng.uniform(4, 20, 2)
        inside = ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2
        masks.append(inside < 1)
    return np.stack(masks)


def mask_ious(
    a: NDArray[np.bool_], b: NDArray[np.bool_], of_empty: float = 1
) -> NDArray[np.float64]:
    """(n,): IoU of each mask (n, h, w) with its counterpart; ``of_empty`` where both are empty."""
    common, either = (a & b).sum(axis=(1, 2)), (a | b).sum(axis=(1, 2))
    return np.where(either > 0, common / np.maximum(either, 1), of_empty)


def random_vit(name: str, **arguments: Any) -> Encoder:
    """An encoder with seeded random weights; arguments are those of ``load_encoder``."""
    import timm  # takes seconds, and others do without

    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        model = timm.create_model(name, pretrained=False, num_classes=0)
        checkpoint = Path(folder) / "weights.pth"
        torch.save(model.state_dict(), checkpoint)
        return load_encoder(name, checkpoint=checkpoint, **arguments)


class StandIn(Encoder):
    """Spends time on images and returns stored features, one after the other.

    Args:
        spend: what is done with pixels (B, H, W, 3) uint8, for the time that it takes.
        device: where the features lie.
        patch_size: pixels of a patch.
        channels: of a feature.
        image_size: pixels of an image's side.
    """

    def __init__(
        self,
        spend: Callable[[torch.Tensor], object],
        device: str,
        patch_size: int = 8,
        channels: int = 768,
        image_size: int = 480,
    ) -> None:
        super().__init__(
            name="stand-in", facet="key", precision="fp32",
            transform=Resize(image_size, patch_size), device=torch.device(device),
            weights_sha256=None, weights_source="none",
        )  # fmt: skip
        self._spend = spend
        stored = golden_features(channels, image_size // patch_size)
        self._stored = [features.to(device) for features in stored.values()]
        self._given = 0

    def _encode(
        self, pixels: torch.Tensor, with_prompt_scores: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        self._spend(pixels)
        # Nothing here may wait for the device: no encoder does.
        numbers = range(self._given, self._given + len(pixels))
        self._given += len(pixels)
        return torch.stack([self._stored[i % len(self._stored)] for i in numbers]), None


def stand_in(name: str, settings: Settings, precision: str = "fp32") -> StandIn:
    """Takes the time of a vision transformer."""
    encoder = random_vit(name, device=settings.device, precision=precision)
    channels = encoder.encode([np.zeros((480, 480, 3), np.uint8)])[0].shape[0]
    return StandIn(
        lambda pixels: encoder._encode(pixels, False), settings.device, encoder.patch_size, channels
    )


def instant(settings: Settings, seconds_each: float = 0) -> StandIn:
    """Takes no time, or as many seconds an image as it is told, without work."""
    return StandIn(lambda pixels: time.sleep(seconds_each * len(pixels)), settings.device)


def encoder_of(preset: str, settings: Settings) -> str:
    """The name of a preset's encoder."""
    return settings.pick(ENCODERS[preset], TINY)
