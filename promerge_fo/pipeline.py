"""Images to instances: encoder, segmentation and refinement, overlapped and batched."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from promerge_fo.config import ProMergeConfig, Prompting, Refine, Score, Status, run_hash
from promerge_fo.encoder import Encoder
from promerge_fo.images import ImageError, as_rgb, load_image
from promerge_fo.instances import Instances, Refined
from promerge_fo.refine import refine_resized
from promerge_fo.refine.pydensecrf import load_reference
from promerge_fo.segment import Trace, trace_segmentation
from promerge_fo.segment.scoring import with_agreement

if TYPE_CHECKING:
    import torch

__all__ = ["Pipeline", "Prepare", "Prepared"]

Encoded = tuple["torch.Tensor", "torch.Tensor | None"]
ImageLike = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]


@dataclass(frozen=True)
class Prepared:
    """An image made ready for the encoder, or the reason why it could not be.

    Attributes:
        pixels: (h, w, 3) uint8 at the encoder's size; empty where there is an error.
        size: (height, width) of the image itself, EXIF orientation applied.
        error: None, or what is wrong with the image.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int] = (0, 0)
    error: str | None = None


@dataclass(frozen=True)
class Prepare:
    """Reads and resizes one image; small and picklable, for the workers of a data loader.

    It never raises on a bad image: one bad image must not cost others their masks.
    """

    transform: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

    def __call__(self, image: ImageLike) -> Prepared:
        """Args: image: a path, a PIL image or an array (H, W, 3) uint8."""
        try:
            pixels = as_rgb(image) if isinstance(image, np.ndarray) else load_image(image)
            return Prepared(self.transform(pixels), (pixels.shape[0], pixels.shape[1]))
        except ImageError as error:
            return _not_prepared(str(error))
        except MemoryError:
            return _not_prepared(f"{image}: not enough memory to read the image; use fewer workers")
        except Exception as error:
            return _not_prepared(f"{image}: {type(error).__name__}: {error}")


def _not_prepared(error: str) -> Prepared:
    return Prepared(np.zeros((0, 0, 3), dtype=np.uint8), error=error)


class Pipeline:
    """ProMerge from images to instances.

    Args:
        encoder: what :func:`promerge_fo.load_encoder` gives.
        config: the method's parameters; ``ProMergeConfig()`` by default.
        threads: threads that segment and refine; the number of CPU cores by default.

    Raises:
        ValueError: attention prompting with an encoder that has no class token.
        ImportError: ``refine="pydensecrf"`` without the package ``pydensecrf2``.

    Examples:
        >>> from promerge_fo import load_encoder
        >>> from skimage.data import coffee
        >>> pipeline = Pipeline(load_encoder("texture"))
        >>> result = pipeline([coffee()])[0]
        >>> result.status, result.masks.shape[1:]
        ('ok', (400, 600))
    """

    def __init__(
        self, encoder: Encoder, config: ProMergeConfig | None = None, threads: int | None = None
    ) -> None:
        self.encoder = encoder
        self.config = ProMergeConfig() if config is None else config
        if self.config.prompting is Prompting.ATTENTION and not encoder.has_prompt_scores:
            raise ValueError(
                f"prompting is 'attention', but the encoder {encoder.name} has no class token "
                "whose attention could be followed; choose another prompting, or a DINO model"
            )
        if self.config.refine is Refine.PYDENSECRF:
            load_reference()
        self.threads = threads or os.cpu_count() or 1
        self.prepare = Prepare(encoder.transform)

    def identity(self) -> dict[str, Any]:
        """Everything that decides the masks, as JSON can hold it."""
        return {
            "method": "promerge",
            "config": self.config.to_dict(),
            "encoder": self.encoder.identity(),
        }

    @property
    def hash(self) -> str:
        """The run hash: 16 hexadecimal digits that name everything that decides the masks."""
        return run_hash(self.identity())

    def __call__(self, images: Sequence[ImageLike], batch_size: int = 8) -> list[Instances]:
        """Instances of each image, in order; images that fail have the status "failed"."""
        return list(self.run(images, batch_size))

    def predict(self, batch: Sequence[Prepared]) -> list[Instances]:
        """Instances of one batch of prepared images, in order."""
        with ThreadPoolExecutor(self.threads) as pool:
            return [future.result() for future in self._submit(pool, batch)]

    def run(
        self, images: Iterable[ImageLike], batch_size: int = 8, workers: int | None = None
    ) -> Iterator[Instances]:
        """Instances of any number of images, in order, in memory that does not grow with them.

        While a batch is encoded, the next ones are read and the last ones segmented and refined.

        Args:
            images: paths, PIL images or arrays (H, W, 3) uint8; consumed as needed.
            batch_size: images that are encoded together.
            workers: threads that read images; as many as segment and refine by default.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, but must be at least 1")
        with (
            ThreadPoolExecutor(workers or self.threads) as readers,
            ThreadPoolExecutor(self.threads) as finishers,
        ):
            reading: deque[Future[Prepared]] = deque()
            finishing: deque[Future[Instances]] = deque()
            source = iter(images)
            try:
                while True:
                    for image in source:
                        reading.append(readers.submit(self.prepare, image))
                        if len(reading) >= 2 * batch_size + self.threads:
                            break
                    batch = [reading.popleft().result() for _ in range(batch_size) if reading]
                    if not batch:
                        break
                    finishing.extend(self._submit(finishers, batch))
                    while len(finishing) > 2 * batch_size or (finishing and finishing[0].done()):
                        yield finishing.popleft().result()
                while finishing:
                    yield finishing.popleft().result()
            finally:
                for waiting in reading, finishing:
                    for future in waiting:
                        future.cancel()

    def _submit(
        self, pool: ThreadPoolExecutor, batch: Sequence[Prepared]
    ) -> list[Future[Instances]]:
        """Encode a batch here and now, and hand its images to the pool."""
        good = [prepared for prepared in batch if prepared.error is None]
        features = iter(self._encode_each(good))
        futures = []
        for prepared in batch:
            if prepared.error is not None:
                futures.append(pool.submit(Instances.failed, prepared.error))
            else:
                futures.append(pool.submit(self._finish, prepared, next(features)))
        return futures

    def encode(self, batch: Sequence[Prepared]) -> list[Encoded]:
        """Features (C, h, w) of each image, and prompt scores (h, w) where prompting wants them."""
        pixels = [prepared.pixels for prepared in batch]
        if self.config.prompting is Prompting.ATTENTION:
            return list(zip(*self.encoder.encode(pixels, with_prompt_scores=True), strict=True))
        return [(features, None) for features in self.encoder.encode(pixels)]

    def _encode_each(self, batch: Sequence[Prepared]) -> list[Encoded | Exception]:
        """What :meth:`encode` gives, with the exception in place of an image that raised one."""
        if not batch:
            return []
        try:
            return [*self.encode(batch)]
        except Exception as error:
            if len(batch) == 1:
                return [error]
            return [encoded for prepared in batch for encoded in self._encode_each([prepared])]

    def explain(self, image: ImageLike) -> tuple[Trace, Refined, Instances]:
        """What segmentation and refinement made of one image, and its instances.

        Raises:
            ValueError: the image cannot be read, or its features cannot be segmented.
        """
        prepared = self.prepare(image)
        if prepared.error is not None:
            raise ImageError(prepared.error)
        return self._steps(prepared, self.encode([prepared])[0])

    def _finish(self, prepared: Prepared, encoded: Encoded | Exception) -> Instances:
        try:
            if isinstance(encoded, Exception):
                raise encoded
            return self._steps(prepared, encoded)[2]
        except Exception as error:
            return Instances.failed(f"{type(error).__name__}: {error}", prepared.size)

    def _steps(self, prepared: Prepared, encoded: Encoded) -> tuple[Trace, Refined, Instances]:
        trace = trace_segmentation(encoded[0], self.config, encoded[1])
        patches = trace.instances
        refined = refine_resized(prepared.pixels, patches.masks, prepared.size, self.config)
        scores = patches.scores[refined.kept]
        if self.config.score is not Score.CONSTANT:
            scores = with_agreement(scores, refined.agreement)
        status: Status = patches.status
        if status == "ok" and len(refined) == 0:
            status = "all_rejected"
        return trace, refined, Instances(refined.masks, scores, status, patches.background)
