"""Images to instances: encoder, segmentation and refinement, overlapped and batched."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from promerge_fo.config import (
    METHODS,
    Config,
    ProMergeConfig,
    Prompting,
    Refine,
    Score,
    Status,
    run_hash,
)
from promerge_fo.cpus import available_cpus
from promerge_fo.encoder import load_encoder
from promerge_fo.encoder.base import Encoder, PerImage
from promerge_fo.encoder.device import mark, own_stream, resolve_device
from promerge_fo.flow import Round, flow
from promerge_fo.images import ImageError, as_rgb, load_image
from promerge_fo.instances import Instances, Refined
from promerge_fo.refine import complete, crf_batch, refine_resized
from promerge_fo.refine.pydensecrf import load_reference
from promerge_fo.segment import trace_segmentation
from promerge_fo.segment.normalized_cut import CutTrace
from promerge_fo.segment.promerge import Trace
from promerge_fo.segment.prompting import load_finch
from promerge_fo.segment.scoring import with_agreement

if TYPE_CHECKING:
    import torch

__all__ = ["Encoded", "Pipeline", "Prepare", "Prepared", "pipeline_of"]

T = TypeVar("T")
ImageLike = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]


class Encoded(NamedTuple):
    """What the encoder made of one image.

    Attributes:
        features: (C, h, w) float32.
        scores: (h, w) prompt scores, where prompting wants them.
        ready: when a GPU will have them; None on a CPU.
    """

    features: torch.Tensor
    scores: torch.Tensor | None
    ready: torch.cuda.Event | None


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

    def __call__(self, image: ImageLike | Prepared) -> Prepared:
        """Args: image: a path, a PIL image, an array (H, W, 3) uint8, or an image made ready."""
        if isinstance(image, Prepared):
            return image
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
    """A method from images to instances.

    Args:
        encoder: what :func:`promerge_fo.load_encoder` gives.
        config: the parameters of a method, which they choose; ``ProMergeConfig()`` by default.
        threads: threads that segment and refine; the number of CPU cores by default.
        readers: threads that read images; as many by default. More help where files are far away.
        crf_device: where the CRF runs; where the encoder does, by default. On a CPU it is the
            threads' work, on a GPU the masks of a batch of images go through it together.

    Raises:
        ValueError: attention prompting with an encoder that has no class token.
        ImportError: ``refine="pydensecrf"`` without the package ``pydensecrf2``, or attentive
            prompting without ``finch-clust``.

    Examples:
        >>> from promerge_fo import load_encoder
        >>> from skimage.data import coffee
        >>> pipeline = Pipeline(load_encoder("texture"))
        >>> result = pipeline([coffee()])[0]
        >>> result.status, result.masks.shape[1:]
        ('ok', (400, 600))
    """

    def __init__(
        self,
        encoder: Encoder,
        config: Config | None = None,
        threads: int | None = None,
        readers: int | None = None,
        crf_device: str | torch.device | None = None,
    ) -> None:
        self.encoder = encoder
        self.config: Config = ProMergeConfig() if config is None else config
        if self.config.wants_prompt_scores and not encoder.has_prompt_scores:
            raise ValueError(
                f"prompting is 'attention', but the encoder {encoder.name} has no class token "
                "whose attention could be followed; choose another prompting, or a DINO model"
            )
        if self.config.refine is Refine.PYDENSECRF:
            load_reference()
        if isinstance(self.config, ProMergeConfig) and self.config.prompting is Prompting.ATTENTIVE:
            load_finch()
        self.threads = threads or available_cpus()
        self.readers = readers or self.threads
        self.crf_device = resolve_device(
            "cpu"
            if self.config.refine is not Refine.CRF
            else encoder.device
            if crf_device is None
            else crf_device
        )
        self.prepare = Prepare(encoder.transform)

    def identity(self) -> dict[str, Any]:
        """Everything that decides the masks, as JSON can hold it."""
        return {
            "method": self.config.method,
            "config": self.config.to_dict(),
            "encoder": self.encoder.identity(),
        }

    @property
    def hash(self) -> str:
        """The run hash: 16 hexadecimal digits that name everything that decides the masks."""
        return run_hash(self.identity())

    def __call__(
        self, images: Sequence[ImageLike | Prepared], batch_size: int = 8
    ) -> list[Instances]:
        """Instances of each image, in order; images that fail have the status "failed"."""
        return list(self.run(images, batch_size))

    @overload
    def run(
        self,
        images: Iterable[ImageLike | Prepared],
        batch_size: int = ...,
    ) -> Generator[Instances, None, None]: ...

    @overload
    def run(
        self,
        images: Iterable[ImageLike | Prepared],
        batch_size: int = ...,
        *,
        then: Callable[[Instances], T],
    ) -> Generator[T, None, None]: ...

    def run(
        self,
        images: Iterable[ImageLike | Prepared],
        batch_size: int = 8,
        *,
        then: Callable[[Instances], Any] | None = None,
    ) -> Generator[Any, None, None]:
        """Instances of any number of images, in order, in memory that does not grow with them.

        Reading, encoding, and segmenting with refining go on at the same time, each in threads of
        its own, while the caller does what it likes with the results.

        Args:
            images: paths, PIL images, arrays (H, W, 3) uint8 or what :attr:`prepare` gave;
                consumed as needed, in the thread that asks for results.
            batch_size: images that a GPU encodes together; a CPU takes one after the other.
            then: what is made of each image's instances, in the threads that refine; the
                instances themselves by default.

        Raises:
            ValueError: a batch size under 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, but must be at least 1")
        # One image keeps all of a CPU's cores busy, and a run that is stopped then ends sooner.
        together = 1 if self.encoder.device.type == "cpu" else batch_size
        finish = then or _itself
        if self.crf_device.type == "cpu":
            rounds = [Round(self._encode_batch, together, lambda step: finish(self.finish(*step)))]
        else:
            rounds = [
                Round(self._encode_batch, together, lambda step: self._segment(*step)),
                Round(self._snap_batch, batch_size, lambda step: finish(self._complete(*step))),
            ]
        return flow(images, self.prepare, rounds, readers=self.readers, workers=self.threads)

    def encode(self, batch: Sequence[Prepared]) -> list[Encoded]:
        """Features of each image, and prompt scores where prompting wants them."""
        pixels = [prepared.pixels for prepared in batch]
        scores: PerImage | list[None] = [None] * len(batch)
        if self.config.wants_prompt_scores:
            features, scores = self.encoder.encode(pixels, with_prompt_scores=True)
        else:
            features = self.encoder.encode(pixels)
        ready = mark(self.encoder.device)
        return [Encoded(*each, ready) for each in zip(features, scores, strict=True)]

    def finish(self, prepared: Prepared, encoded: Encoded | Exception) -> Instances:
        """Segment and refine one image whose features are there, with the CRF on the CPU.

        It never raises; the status of an image that cannot be computed is "failed".

        Args:
            prepared: what :attr:`prepare` gave.
            encoded: what :meth:`encode` gave, or the exception that it raised.
        """
        try:
            patches = self._trace(encoded).instances
            return self._scored(patches, self._refine(prepared, patches))
        except Exception as error:
            return _failed(prepared, error)

    def explain(self, image: ImageLike) -> tuple[Trace | CutTrace, Refined, Instances]:
        """What segmentation and refinement made of one image, and its instances.

        Raises:
            ValueError: the image cannot be read, or its features cannot be segmented.
        """
        prepared = self.prepare(image)
        if prepared.error is not None:
            raise ImageError(prepared.error)
        trace = self._trace(self.encode([prepared])[0])
        refined = self._refine(prepared, trace.instances)
        return trace, refined, self._scored(trace.instances, refined)

    # What the rounds of a run consist of. None of them raises: a failure becomes a record.

    def _encode_batch(
        self, batch: Sequence[Prepared]
    ) -> list[tuple[Prepared, Encoded | Exception]]:
        """Each image with its features, or with what stood in their way."""
        good = [prepared for prepared in batch if prepared.error is None]
        encoded = iter(self._encode_each(good))
        return [
            (prepared, next(encoded) if prepared.error is None else ImageError(prepared.error))
            for prepared in batch
        ]

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

    def _segment(
        self, prepared: Prepared, encoded: Encoded | Exception
    ) -> tuple[Prepared, Instances]:
        try:
            return prepared, self._trace(encoded).instances
        except Exception as error:
            return prepared, _failed(prepared, error)

    def _snap_batch(
        self, batch: Sequence[tuple[Prepared, Instances]]
    ) -> list[tuple[Prepared, Instances, NDArray[np.bool_] | None]]:
        """The CRF for a batch on a GPU; None where nothing is to do, or it was not possible."""
        some = [i for i, (_, patches) in enumerate(batch) if len(patches)]
        after: dict[int, NDArray[np.bool_]] = {}
        try:
            with own_stream(self.crf_device):
                pixels = [batch[i][0].pixels for i in some]
                masks = [batch[i][1].masks for i in some]
                refined = crf_batch(pixels, masks, self.config, self.crf_device)
            after = dict(zip(some, refined, strict=True))
        except Exception as error:
            if len(batch) > 1:
                return [step for image in batch for step in self._snap_batch([image])]
            warnings.warn(
                f"the CRF runs on the CPU instead of {self.crf_device} for one image, which takes "
                f"longer: {type(error).__name__}: {error}",
                stacklevel=2,
            )
        return [(*image, after.get(i)) for i, image in enumerate(batch)]

    def _complete(
        self, prepared: Prepared, patches: Instances, snapped: NDArray[np.bool_] | None
    ) -> Instances:
        """What is done after the CRF."""
        if patches.status == "failed":
            return patches
        try:
            if snapped is None:
                return self._scored(patches, self._refine(prepared, patches))
            refined = complete(patches.masks, snapped, prepared.size, self.config)
            return self._scored(patches, refined)
        except Exception as error:
            return _failed(prepared, error)

    def _trace(self, encoded: Encoded | Exception) -> Trace | CutTrace:
        if isinstance(encoded, Exception):
            raise encoded
        with own_stream(encoded.features.device) as stream:
            if stream is not None and encoded.ready is not None:
                stream.wait_event(encoded.ready)
                encoded.features.record_stream(stream)
            return trace_segmentation(encoded.features, self.config, encoded.scores)

    def _refine(self, prepared: Prepared, patches: Instances) -> Refined:
        return refine_resized(prepared.pixels, patches.masks, prepared.size, self.config)

    def _scored(self, patches: Instances, refined: Refined) -> Instances:
        scores = patches.scores[refined.kept]
        if self.config.score is not Score.CONSTANT:
            scores = with_agreement(scores, refined.agreement)
        status: Status = patches.status
        if status == "ok" and len(refined) == 0:
            status = "all_rejected"
        return Instances(refined.masks, scores, status, patches.background)


def pipeline_of(
    identity: dict[str, Any],
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
    *,
    compile: bool = False,
    threads: int | None = None,
) -> Pipeline:
    """The pipeline that has an identity: to go on with a run, here or on another machine.

    Args:
        identity: what :meth:`Pipeline.identity` gave; it may hold other things besides.
        checkpoint: the file with the encoder's weights, where it had one.
        device: a torch device; None is CUDA where there is one, else the CPU.
        compile: see :func:`promerge_fo.load_encoder`.
        threads: see :class:`Pipeline`.

    Raises:
        ValueError: the weights are others.
        promerge_fo.encoder.WeightsError: no way to the weights.
    """
    wanted = identity["encoder"]
    encoder = load_encoder(
        wanted["name"],
        checkpoint=checkpoint,
        facet=wanted["facet"],
        device=device,
        precision=wanted["precision"],
        image_size=wanted["image_size"],
        resize=wanted["resize"],
        compile=compile,
    )
    found = encoder.identity()
    if found != wanted:
        apart = [f"{k}: {found[k]} here, {wanted[k]} then" for k in wanted if found[k] != wanted[k]]
        raise ValueError(
            f"the encoder is not the run's ({'; '.join(apart)}); give the run's weights as "
            "checkpoint"
        )
    config = METHODS[identity["method"]].from_dict(identity["config"])
    return Pipeline(encoder, config, threads=threads)


def _failed(prepared: Prepared, error: Exception) -> Instances:
    known = isinstance(error, ImageError)
    text = str(error) if known else f"{type(error).__name__}: {error}"
    return Instances.failed(text, prepared.size)


def _itself(instances: Instances) -> Instances:
    return instances
