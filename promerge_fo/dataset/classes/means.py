"""Masks that are there already, and the mean features of each: one vector a mask."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from promerge_fo.flow import Round, flow
from promerge_fo.images import ImageLike
from promerge_fo.instances import Crop
from promerge_fo.pipeline import Encoded, Pipeline, Prepared

__all__ = ["Masked", "embed_masks"]

Means: TypeAlias = "NDArray[np.float32]"


class Masked(NamedTuple):
    """An image with masks.

    Attributes:
        image: a path, a PIL image, or an array (H, W, 3) uint8.
        crops: gives the masks, for the size (height, width) that the image turns out to have.
    """

    image: ImageLike
    crops: Callable[[tuple[int, int]], Sequence[Crop]]


def embed_masks(
    pipeline: Pipeline, images: Iterable[Masked], batch_size: int = 8
) -> Generator[Means | Exception, None, None]:
    """The mean features of the masks of any number of images, in constant memory.

    Images are read and encoded at the same time, while the caller works on the results.

    Args:
        pipeline: has the encoder; its method is not used.
        images: taken one by one as needed, in the caller's thread.
        batch_size: images that a GPU encodes together; a CPU encodes one at a time.

    Yields:
        For each image, in order, (n, C) float32, see
        :func:`~promerge_fo.instances.mean_features`; or what went wrong with it.
    """
    together = 1 if pipeline.encoder.device.type == "cpu" else batch_size

    def read(item: Masked) -> tuple[Masked, Prepared]:
        return item, pipeline.prepare(item.image)

    def encode(
        batch: Sequence[tuple[Masked, Prepared]],
    ) -> list[tuple[Masked, Prepared, Encoded | Exception]]:
        encoded = pipeline.encode_each([prepared for _, prepared in batch])
        return [(item, *each) for (item, _), each in zip(batch, encoded, strict=True)]

    def means(step: tuple[Masked, Prepared, Encoded | Exception]) -> Means | Exception:
        item, prepared, encoded = step
        try:
            return pipeline.means(encoded, item.crops(prepared.size), prepared.size)
        except Exception as error:
            return error

    rounds = [Round(encode, together, means)]
    return flow(images, read, rounds, readers=pipeline.readers, workers=pipeline.threads)
