"""Batches for training: each follows from the seed and its number alone.

There is no stream of random numbers that would have to be saved: the images of a batch, how each of
them is changed and what is pasted into it follow from the seed, the number of the batch and the
place in it. So a training that was killed goes on with the very batches that it would have had,
with any number of workers and of GPUs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from promerge_fo.detector.annotations import Annotations
from promerge_fo.detector.config import DetectorConfig
from promerge_fo.detector.copy_paste import copy_paste
from promerge_fo.images import ImageError, load_image
from promerge_fo.instances import mask_boxes

__all__ = ["Batches", "Picture", "draw", "resized", "resized_masks", "target_size", "to_detectron2"]

logger = logging.getLogger("promerge.detector")

# What random numbers are drawn for: each use has its own, so that none changes another.
_ORDER, _AUGMENT, _PASTE = 0, 1, 2


@dataclass(frozen=True)
class Picture:
    """An image with the masks to learn.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        masks: (n, H, W) bool, each with at least one pixel.
        classes: (n,) int64, from 0.
    """

    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    classes: NDArray[np.int64]


class Batches:
    """The batches of a training: ``batches[i]`` makes the i-th, for any i from 0 on.

    Args:
        annotations: images and masks; those without a mask are not trained on.
        config: batch size, augmentation, seed.
        rank: which of the processes this is; each makes its share of every batch.
        processes: how many there are.

    Raises:
        ValueError: no image has a mask, or the processes cannot share a batch.
    """

    def __init__(
        self, annotations: Annotations, config: DetectorConfig, rank: int = 0, processes: int = 1
    ) -> None:
        self._annotations = annotations
        self._config = config
        self._indices = annotations.with_masks()
        if len(self._indices) == 0:
            raise ValueError(
                "no image has a mask to learn from; export with a smaller min_area, or segment the "
                "images with other settings"
            )
        if config.batch_size % processes:
            raise ValueError(
                f"{processes} GPUs cannot share batches of {config.batch_size} images equally; "
                f"give a batch size that is a multiple of {processes}"
            )
        share = config.batch_size // processes
        self._places = range(rank * share, (rank + 1) * share)

    def __getitem__(self, iteration: int) -> list[dict[str, Any]]:
        """This process's share of a batch, as detectron2's models take it."""
        return [to_detectron2(picture) for picture in self.pictures(iteration)]

    def pictures(self, iteration: int) -> list[Picture]:
        """This process's share of a batch.

        Objects that are pasted into an image come from the next image of the batch; those of the
        last image come from the first.
        """
        size = self._config.batch_size
        wanted = dict.fromkeys(k % size for p in self._places for k in (p, p + 1))
        plain = {place: self._augmented(iteration, place) for place in wanted}
        return [
            self._with_objects(plain[place], plain[(place + 1) % size], iteration, place)
            for place in self._places
        ]

    def _augmented(self, iteration: int, place: int) -> Picture:
        """An image at a random size, mirrored half of the time."""
        config = self._config
        number = iteration * config.batch_size + place
        index = draw(len(self._indices), number, config.seed)
        read = self._read(index)
        rng = np.random.default_rng((_AUGMENT, config.seed, iteration, place))
        short = int(rng.integers(config.short_side_low, config.short_side_high + 1))
        mirrored = bool(rng.random() < 0.5)
        size = target_size(read.image.shape[:2], short, config.long_side)
        image, masks = resized(read.image, size), resized_masks(read.masks, size)
        if mirrored:
            image, masks = image[:, ::-1], masks[:, :, ::-1]
        kept = masks.any(axis=(1, 2))
        return Picture(image, masks[kept], read.classes[kept])

    def _with_objects(self, own: Picture, other: Picture, iteration: int, place: int) -> Picture:
        config = self._config
        rng = np.random.default_rng((_PASTE, config.seed, iteration, place))
        if rng.random() >= config.copy_paste:
            return own
        scale = config.paste_scale_low, config.paste_scale_high
        image, masks, origins = copy_paste(
            own.image, own.masks, other.image, other.masks, rng, scale
        )
        return Picture(image, masks, np.concatenate([own.classes, other.classes])[origins])

    def _read(self, index: int) -> Picture:
        """An image and its masks; one that cannot be read is replaced by the next one that can."""
        for step in range(len(self._indices)):
            k = int(self._indices[(index + step) % len(self._indices)])
            path = self._annotations.path(k)
            try:
                image = load_image(path)
            except ImageError as error:
                logger.warning("another image is taken: %s", error)
                continue
            expected = tuple(self._annotations.sizes[k].tolist())
            if image.shape[:2] != expected:
                raise ValueError(
                    f"{path} has {image.shape[1]} x {image.shape[0]} pixels (width x height, as it "
                    f"is shown), but the annotations say {expected[1]} x {expected[0]}; they are "
                    "of another image, or of other tools that ignore its EXIF orientation"
                )
            return Picture(image, self._annotations.masks(k), self._annotations.classes(k))
        raise ValueError(
            f"none of the {len(self._indices)} images can be read, such as "
            f"{self._annotations.path(int(self._indices[0]))}; check image_root"
        )


def draw(images: int, number: int, seed: int) -> int:
    """Which image is the ``number``-th to be seen: all once, in random order, then all again.

    Args:
        images: how many there are.
        number: from 0.
        seed: of the orders; each pass through the images has one of its own.
    """
    epoch, place = divmod(number, images)
    return int(_order(images, epoch, seed)[place])


@lru_cache(maxsize=2)  # that of the pass under way and of the one before
def _order(images: int, epoch: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng((_ORDER, seed, epoch)).permutation(images)


def target_size(size: Sequence[int], short: int, longest: int) -> tuple[int, int]:
    """The size of an image once its shorter side has been scaled to a length.

    Args:
        size: (height, width) in pixels.
        short: length of the shorter side afterwards.
        longest: largest length of the other side, for which both sides shrink further.

    Returns:
        (height, width), rounded, in the same proportion.

    Examples:
        >>> target_size((480, 640), 240, 1333), target_size((100, 1000), 800, 1000)
        ((240, 320), (100, 1000))
    """
    height, width = size
    scale = min(short / min(height, width), longest / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """An image (H, W, 3) at another size, bilinear, as detectron2 does it."""
    enlarged = Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(enlarged)


def resized_masks(masks: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """(n, H, W) masks at another size: each pixel takes the value at its centre."""
    rows, columns = (
        ((np.arange(new) + 0.5) * (old / new)).astype(np.int64)
        for new, old in zip(size, masks.shape[1:], strict=True)
    )
    return np.asarray(masks[:, rows[:, None], columns])


def to_detectron2(picture: Picture) -> dict[str, Any]:
    """What detectron2's models take: ``image`` (3, H, W) uint8 and ``instances``.

    Boxes are the masks' tight boxes.
    """
    import torch
    from detectron2.structures import BitMasks, Boxes, Instances

    instances = Instances(picture.image.shape[:2])
    boxes = torch.from_numpy(mask_boxes(picture.masks).astype(np.float32))
    instances.gt_boxes = Boxes(boxes)
    instances.gt_classes = torch.from_numpy(picture.classes)
    instances.gt_masks = BitMasks(torch.from_numpy(np.ascontiguousarray(picture.masks)))
    image = torch.from_numpy(np.ascontiguousarray(picture.image.transpose(2, 0, 1)))
    return {"image": image, "instances": instances}
