"""Images to instances: encoding, segmentation and refinement, at the same time and in batches."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from promerge_fo.calibration import SHOWN, Calibration, calibrate
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
from promerge_fo.diagnosis import FIRST
from promerge_fo.encoder import load_encoder
from promerge_fo.encoder.base import Encoder, Facet, PerImage
from promerge_fo.encoder.device import mark, missing_on_cpu, own_stream, resolve_device
from promerge_fo.flow import Round, flow
from promerge_fo.images import PIXELS_AT_ONCE, READING, ImageError, ImageLike, as_rgb, read_image
from promerge_fo.instances import (
    Crop,
    Instances,
    Refined,
    crops_of,
    mask_areas,
    mean_features,
)
from promerge_fo.machine import AtOnce, available_cpus
from promerge_fo.refine import complete, crf_batch, refine_resized
from promerge_fo.refine.pydensecrf import load_reference
from promerge_fo.segment import trace_segmentation
from promerge_fo.segment.normalized_cut import CutTrace
from promerge_fo.segment.promerge import Trace
from promerge_fo.segment.prompting import load_finch
from promerge_fo.segment.proposals import find_parents, rank
from promerge_fo.segment.scoring import after_refinement
from promerge_fo.words import reason_of

if TYPE_CHECKING:
    import torch

__all__ = ["Encoded", "Pipeline", "Prepare", "Prepared", "encoder_settings", "pipeline_of"]

T = TypeVar("T")

_REFINING = AtOnce(PIXELS_AT_ONCE)  # of images whose masks are at the images' own sizes


class Encoded(NamedTuple):
    """The features of one image.

    Attributes:
        features: (C, h, w) float32.
        scores: (h, w) prompt scores, for attention prompting; else None.
        described: (D, h, w) float32, of which embeddings are made; often the same as the features.
        ready: the event after which CUDA has finished all; None elsewhere.
    """

    features: torch.Tensor
    scores: torch.Tensor | None
    described: torch.Tensor
    ready: torch.cuda.Event | None


@dataclass(frozen=True)
class Prepared:
    """An image as the encoder takes it, or the reason why there is none.

    Attributes:
        pixels: (h, w, 3) uint8 at the encoder's size; empty if there is an error.
        size: (height, width) of the image itself, EXIF orientation applied.
        error: None, or what is wrong with the image.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int] = (0, 0)
    error: str | None = None


@dataclass(frozen=True)
class Prepare:
    """Reads and resizes one image; small and picklable, for the workers of a DataLoader.

    It does not raise for a bad image, so that the other images of a batch still get their masks.
    """

    transform: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

    def __call__(self, image: ImageLike | Prepared) -> Prepared:
        """Args: image: a path, a PIL image, an array (H, W, 3) uint8, or a prepared image."""
        if isinstance(image, Prepared):
            return image
        try:
            if isinstance(image, np.ndarray):
                return self._resized(as_rgb(image))
            return read_image(image, self._resized)
        except ImageError as error:
            return _not_prepared(str(error))
        except MemoryError:
            return _not_prepared(f"{image}: not enough memory to read the image; use fewer workers")
        except Exception as error:
            return _not_prepared(f"{image}: {reason_of(error)}")

    def _resized(self, pixels: NDArray[np.uint8]) -> Prepared:
        return Prepared(self.transform(pixels), (pixels.shape[0], pixels.shape[1]))


def _not_prepared(error: str) -> Prepared:
    return Prepared(np.zeros((0, 0, 3), dtype=np.uint8), error=error)


class Pipeline:
    """A method from images to instances.

    Args:
        encoder: an encoder, such as :func:`promerge_fo.load_encoder` gives.
        config: the parameters; their class chooses the method. ``ProMergeConfig()`` by default.
        threads: threads that segment and refine; the number of CPU cores by default.
        readers: threads that read images; as many as ``threads`` by default. More of them help
            with files on a slow or remote disk.
        crf_device: where the CRF runs; by default the encoder's device if that is CUDA, else the
            CPU. On a CPU each thread refines its own images, on a GPU the masks of a batch are
            refined together.
        calibration: how the features are centred, and thresholds for them; they replace those of
            ``config`` that were not named.
        embed: also give each mask the mean of the encoder's features for embeddings inside it
            (:func:`promerge_fo.instances.mean_features`), in the same pass.

    Attributes:
        config: the parameters, with the calibration's.

    Raises:
        ValueError: a calibration of another encoder, or for a configuration that takes none;
            attention prompting with an encoder that has no class token.
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
        calibration: Calibration | None = None,
        embed: bool = False,
    ) -> None:
        self.encoder = encoder
        self.embed = embed
        self.config: Config = ProMergeConfig() if config is None else config
        self.calibration = calibration
        self._centre: torch.Tensor | None = None
        self._cosines: list[NDArray[np.float64]] = []  # of the first images
        if calibration is not None:
            _require_same_encoder(calibration.encoder, encoder, "the calibration's")
            self.config = calibration.configure(self.config)
            if calibration.is_centred:
                self._centre = _as_centre(calibration.centre, encoder.features_device)
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
        device = encoder.features_device if crf_device is None else crf_device
        self.crf_device = resolve_device(device if self.config.refine is Refine.CRF else "cpu")
        self.prepare = Prepare(encoder.transform)

    def identity(self) -> dict[str, Any]:
        """Everything that decides the masks, in types that JSON has."""
        return {
            "method": self.config.method,
            "config": self.config.to_dict(),
            "encoder": self.encoder.identity(),
            **({} if self.calibration is None else {"calibration": self.calibration.to_dict()}),
        }

    @property
    def hash(self) -> str:
        """The run hash: 16 hexadecimal digits made from everything that decides the masks."""
        return run_hash(self.identity())

    @property
    def cosines(self) -> list[float] | None:
        """5, 25, 50, 75 and 95 % percentiles of the first images' affinities; None without any."""
        seen = self._cosines
        return [round(float(v), 3) for v in np.mean(seen, axis=0)] if seen else None

    def forget_cosines(self) -> None:
        """Start :attr:`cosines` anew."""
        self._cosines = []

    @property
    def wants_calibration(self) -> bool:
        """Whether the configuration's thresholds may not suit the encoder, and may be changed."""
        return (
            self.calibration is None
            and self.config.can_calibrate
            and self.encoder.wants_calibration
        )

    def calibrated(self, by: Calibration | Sequence[ImageLike]) -> Pipeline:
        """This pipeline with thresholds for its encoder.

        Args:
            by: a calibration, or images to calibrate on (:func:`promerge_fo.calibrate`).
        """
        calibration = by if isinstance(by, Calibration) else calibrate(self.encoder, by)
        encoder = self.encoder.with_facet(calibration.facet)
        return Pipeline(
            encoder, self.config, self.threads, self.readers, self.crf_device, calibration,
            self.embed,
        )  # fmt: skip

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

        Images are read, encoded, segmented and refined at the same time, by different threads,
        while the caller works on the results. One large image at a time is read or refined
        (:data:`promerge_fo.images.PIXELS_AT_ONCE`).

        Args:
            images: paths, PIL images, arrays (H, W, 3) uint8 or results of :attr:`prepare`;
                taken one by one as needed, in the caller's thread.
            batch_size: images that a GPU encodes together; a CPU encodes one at a time.
            then: called with each image's instances, in the threads that refine; its results are
                yielded in place of the instances. Where it raises, it is called once more, with
                no masks, the status "failed" and the reason.

        Raises:
            ValueError: a batch size under 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, but must be at least 1")
        # One image keeps all cores of a CPU busy, and a run that is stopped then ends sooner.
        together = 1 if self.encoder.device.type == "cpu" else batch_size
        if self.crf_device.type == "cpu":
            rounds = [Round(self.encode_each, together, _ending_with(then, self.finish))]
        else:
            rounds = [
                Round(self.encode_each, together, lambda step: self._segment(*step)),
                Round(self._crf_batch, batch_size, _ending_with(then, self._complete)),
            ]
        return flow(images, self.prepare, rounds, readers=self.readers, workers=self.threads)

    def encode(self, batch: Sequence[Prepared]) -> list[Encoded]:
        """Features of each image, and prompt scores if the configuration uses them."""
        pixels = [prepared.pixels for prepared in batch]
        scores: PerImage | None = None
        if self.embed:
            features, scores, described = self.encoder.encode_for_both(
                pixels, self.config.wants_prompt_scores
            )
        elif self.config.wants_prompt_scores:
            features, scores = self.encoder.encode(pixels, with_prompt_scores=True)
            described = features
        else:
            features = described = self.encoder.encode(pixels)
        none = [None] * len(batch)
        ready = mark(self.encoder.device)
        each = zip(features, none if scores is None else scores, described, strict=True)
        return [Encoded(*found, ready) for found in each]

    def finish(self, prepared: Prepared, encoded: Encoded | Exception) -> Instances:
        """Segment and refine one image whose features are there, with the CRF on the CPU.

        It does not raise; an image that cannot be computed gets the status "failed".

        Args:
            prepared: the image, from :attr:`prepare`.
            encoded: its features, from :meth:`encode`, or the exception raised in their place.
        """
        return self._complete(*self._segment(prepared, encoded))

    def explain(self, image: ImageLike) -> tuple[Trace | CutTrace, Refined, Instances]:
        """The steps of segmentation and refinement on one image, and its instances.

        Raises:
            ValueError: the image cannot be read, or its features cannot be segmented.
        """
        prepared = self.prepare(image)
        if prepared.error is not None:
            raise ImageError(prepared.error)
        trace = self._trace(self.encode([prepared])[0])
        refined = self._refine(prepared, trace.instances)
        return trace, refined, self._scored(trace.instances, refined)

    def encode_each(self, batch: Sequence[Prepared]) -> list[tuple[Prepared, Encoded | Exception]]:
        """Each image with its features, or with the error that prevented them."""
        good = [prepared for prepared in batch if prepared.error is None]
        encoded = iter(self._encode_or_errors(good))
        return [
            (prepared, next(encoded) if prepared.error is None else ImageError(prepared.error))
            for prepared in batch
        ]

    def means(
        self, encoded: Encoded | Exception, crops: Sequence[Crop], size: tuple[int, int]
    ) -> NDArray[np.float32]:
        """The mean feature of each mask: see :func:`promerge_fo.instances.mean_features`.

        Raises:
            Exception: ``encoded``, if it is one.
        """
        with _settled(encoded) as settled:
            return mean_features(settled.described, crops, size)

    # The steps of a run. None of them raises: a failure becomes a record.

    def _encode_or_errors(self, batch: Sequence[Prepared]) -> list[Encoded | Exception]:
        """Like :meth:`encode`, with an exception in place of the features of a bad image."""
        if not batch:
            return []
        try:
            return [*self.encode(batch)]
        except Exception as error:
            if len(batch) == 1:
                return [error]
            return [encoded for prepared in batch for encoded in self._encode_or_errors([prepared])]

    def _segment(
        self, prepared: Prepared, encoded: Encoded | Exception
    ) -> tuple[Prepared, Instances, Encoded | Exception | None]:
        """The image with its patch masks, and its features if embeddings will be made of them."""
        patches = _or_failed(prepared, lambda: self._trace(encoded).instances)
        return prepared, patches, encoded if self.embed else None

    def _crf_batch(
        self, batch: Sequence[tuple[Prepared, Instances, Encoded | Exception | None]]
    ) -> list[tuple[Prepared, Instances, Encoded | Exception | None, NDArray[np.bool_] | None]]:
        """Patch masks after the CRF on a GPU; None for no masks, or if the GPU failed."""
        some = [i for i, (_, patches, _) in enumerate(batch) if len(patches)]
        after: dict[int, NDArray[np.bool_]] = {}
        try:
            with own_stream(self.crf_device), missing_on_cpu(self.crf_device):
                pixels = [batch[i][0].pixels for i in some]
                masks = [batch[i][1].masks for i in some]
                refined = crf_batch(pixels, masks, self.config, self.crf_device)
            after = dict(zip(some, refined, strict=True))
        except Exception as error:
            if len(batch) > 1:
                return [step for image in batch for step in self._crf_batch([image])]
            warnings.warn(
                f"the CRF runs on the CPU instead of {self.crf_device} for one image, which takes "
                f"longer: {reason_of(error)}",
                stacklevel=2,
            )
        return [(*image, after.get(i)) for i, image in enumerate(batch)]

    def _complete(
        self,
        prepared: Prepared,
        patches: Instances,
        encoded: Encoded | Exception | None,
        after: NDArray[np.bool_] | None = None,
    ) -> Instances:
        """Instances from patch masks, whose masks after the CRF may be there already."""
        if patches.status == "failed":
            return patches

        def instances() -> Instances:
            if after is None:
                refined = self._refine(prepared, patches)
            else:
                refined = complete(patches.masks, after, prepared.size, self.config)
            found = self._scored(patches, refined)
            if encoded is None:
                return found
            crops = crops_of(found.masks, found.boxes)
            return replace(found, means=self.means(encoded, crops, prepared.size))

        return _or_failed(prepared, instances)

    def _trace(self, encoded: Encoded | Exception) -> Trace | CutTrace:
        with _settled(encoded) as settled:
            features = settled.features
            if self._centre is not None:
                features = features - self._centre
            trace = trace_segmentation(features, self.config, settled.scores)
        if isinstance(trace, Trace) and len(self._cosines) < FIRST:
            self._cosines.append(np.percentile(trace.prompts.affinities[:, ::8], SHOWN))
        return trace

    def _refine(self, prepared: Prepared, patches: Instances) -> Refined:
        return refine_resized(prepared.pixels, patches.masks, prepared.size, self.config)

    def _scored(self, patches: Instances, refined: Refined) -> Instances:
        scores = patches.scores[refined.kept]
        if self.config.score is not Score.CONSTANT:
            areas = mask_areas(refined.masks) / math.prod(refined.masks.shape[1:])
            scores = after_refinement(scores, refined.agreement, areas)
        status: Status = patches.status
        if status == "ok" and len(refined) == 0:
            status = "all_rejected"
        if patches.levels is None or not isinstance(self.config, ProMergeConfig):
            return Instances(refined.masks, scores, status, patches.background)
        kept, scores = rank(refined.masks, scores, self.config)
        masks = refined.masks[kept]
        return Instances(
            masks,
            scores,
            status,
            patches.background,
            levels=patches.levels[refined.kept[kept]],
            parents=find_parents(masks),
        )


def pipeline_of(
    identity: dict[str, Any],
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
    *,
    compile: bool = False,
    threads: int | None = None,
    embed: bool = False,
    embed_facet: Facet | None = None,
    embed_block: int | None = None,
) -> Pipeline:
    """The pipeline with a given identity: to continue a run, here or on another machine.

    Args:
        identity: from :meth:`Pipeline.identity`; further keys are ignored.
        checkpoint: the file with the encoder's weights, if it had one.
        device: a torch device; None is CUDA or Apple's GPU if there is one, else the CPU.
        compile: see :func:`promerge_fo.load_encoder`.
        threads: see :class:`Pipeline`.
        embed: see :class:`Pipeline`; masks and their run hash are the same with it.
        embed_facet: see :func:`promerge_fo.load_encoder`.
        embed_block: see :func:`promerge_fo.load_encoder`.

    Raises:
        ValueError: the weights are not those of the identity.
        promerge_fo.encoder.WeightsError: the weights cannot be had.
    """
    wanted = identity["encoder"]
    settings = encoder_settings(wanted)
    encoder = load_encoder(
        checkpoint=checkpoint, device=device, compile=compile, embed_facet=embed_facet,
        embed_block=embed_block, **settings,
    )  # fmt: skip
    _require_same_encoder(wanted, encoder, "the run's")
    config = METHODS[identity["method"]].from_dict(identity["config"])
    calibration = identity.get("calibration")
    if calibration is not None:
        calibration = Calibration.from_dict(calibration)
    return Pipeline(encoder, config, threads=threads, calibration=calibration, embed=embed)


def encoder_settings(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of :func:`promerge_fo.load_encoder` for an encoder with this identity."""
    settings = {k: identity[k] for k in ("name", "facet", "precision", "image_size", "resize")}
    return {**settings, "block": identity.get("block")}  # there only where it is not the last


def _require_same_encoder(wanted: Mapping[str, Any], encoder: Encoder, whose: str) -> None:
    found = encoder.identity()
    names = [k for k in {**wanted, **found} if found.get(k) != wanted.get(k)]
    if names:
        apart = [f"{k}: {found.get(k)} here, {wanted.get(k)} then" for k in names]
        raise ValueError(
            f"the encoder is not {whose} ({'; '.join(apart)}); give {whose} weights as checkpoint, "
            "and its settings"
        )


def _as_centre(centre: Sequence[float], device: torch.device) -> torch.Tensor:
    """(C, 1, 1) float32, to be subtracted from features."""
    import torch

    return torch.tensor(centre, dtype=torch.float32, device=device)[:, None, None]


@contextmanager
def _settled(encoded: Encoded | Exception) -> Iterator[Encoded]:
    """Features that may be used in this thread, on a stream of its own, until the end.

    Raises:
        Exception: ``encoded``, if it is one.
    """
    if isinstance(encoded, Exception):
        raise encoded
    with own_stream(encoded.features.device) as stream:
        if stream is not None and encoded.ready is not None:
            stream.wait_event(encoded.ready)
            encoded.features.record_stream(stream)
            encoded.described.record_stream(stream)
        yield encoded


def _or_failed(prepared: Prepared, compute: Callable[[], Instances]) -> Instances:
    """The instances that are computed, or a record with the reason why they could not be."""
    try:
        return compute()
    except Exception as error:
        return _failed(prepared, error)


def _failed(prepared: Prepared, error: Exception) -> Instances:
    known = isinstance(error, ImageError)
    return Instances.failed(str(error) if known else reason_of(error), prepared.size)


def _ending_with(
    then: Callable[[Instances], Any] | None, last: Callable[..., Instances]
) -> Callable[[Any], Any]:
    """The last step of an image, and what is made of its instances, or else of its failure."""
    made = then or _itself

    def end(step: Any) -> Any:
        pixels = math.prod(step[0].size)
        with (READING if pixels > PIXELS_AT_ONCE else _REFINING).taking(pixels):
            try:
                return made(last(*step))
            except Exception as error:
                return made(_failed(step[0], error))

    return end


def _itself(instances: Instances) -> Instances:
    return instances
