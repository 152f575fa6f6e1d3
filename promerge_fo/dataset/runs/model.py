"""The pipeline as a FiftyOne model, for ``dataset.apply_model``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import fiftyone as fo
import fiftyone.core.frame as fof
import fiftyone.core.media as fom
import fiftyone.core.models as fomo
import fiftyone.core.sample as fos
import fiftyone.utils.torch as fout
import torch

from promerge_fo.config import METHODS, Config
from promerge_fo.dataset.database import collection_of, patiently
from promerge_fo.dataset.labels import complete_field, to_detections
from promerge_fo.dataset.runs.recorder import RunRecorder
from promerge_fo.dataset.samples import VIDEO_REFUSED
from promerge_fo.encoder import load_encoder
from promerge_fo.encoder.base import Encoder, Facet, Precision, ResizeMode
from promerge_fo.pipeline import ImageLike, Pipeline, Prepare, Prepared, pipeline_of
from promerge_fo.run_record import RunRecord

__all__ = [
    "METHODS",
    "OutOfStepError",
    "ProMergeModel",
    "load_model",
    "model_of_run",
    "preset_encoder",
]

# Below FiftyOne's own logger: shown wherever, and as long as, FiftyOne's messages are.
logger = logging.getLogger("fiftyone.promerge")


def load_model(
    method: str | None = None,
    preset: str = "default",
    config: Config | None = None,
    encoder: str | Encoder | None = None,
    checkpoint: str | Path | None = None,
    facet: Facet = "key",
    device: str | torch.device | None = None,
    precision: Precision = "fp32",
    image_size: int | None = None,
    resize: ResizeMode = "square",
    compile: bool = False,
) -> ProMergeModel:
    """A method as a model that ``dataset.apply_model`` runs.

    Args:
        method: ``"promerge"``, ``"maskcut"`` or ``"tokencut"``; None is the configuration's, and
            ProMerge without one.
        preset: a preset of the method, see :class:`promerge_fo.ProMergeConfig`; ``"fast"`` also
            takes the encoder ``"vit_small_patch16_224.dino"``, which suits laptops.
        config: the method's parameters, instead of a preset.
        encoder: the name of an encoder (see :func:`promerge_fo.load_encoder`), or an encoder that
            is loaded already, to which the arguments below do not apply;
            ``"vit_base_patch8_224.dino"`` by default.
        checkpoint: a local file with the encoder's weights; None downloads them, once.
        facet: which features: ``"key"``, ``"query"``, ``"value"`` or ``"token"``.
        device: a torch device; None is CUDA where there is one, else the CPU.
        precision: ``"fp32"``, ``"bf16"`` or ``"auto"``.
        image_size: side in pixels at which images are encoded and masks refined; None is the
            configuration's, 480 by default.
        resize: ``"square"``, or ``"aspect"``, which keeps the images' aspect ratio.
        compile: compile the encoder at the first batch; meant for GPUs.

    Raises:
        TypeError: a configuration that is none.
        ValueError: an unknown method, preset or encoder, or arguments that contradict each other.
        promerge_fo.encoder.WeightsError: no way to the weights.

    Examples:
        >>> model = load_model(preset="fast")  # doctest: +SKIP
        >>> dataset.apply_model(  # doctest: +SKIP
        ...     model, label_field="promerge", batch_size=8, num_workers=0
        ... )
    """
    config = _chosen(method, preset, config, image_size)
    if isinstance(encoder, Encoder):
        given = {
            "checkpoint": checkpoint is not None,
            "facet": facet != "key",
            "device": device is not None,
            "precision": precision != "fp32",
            "image_size": image_size is not None,
            "resize": resize != "square",
            "compile": compile,
        }
        if any(given.values()):
            names = ", ".join(name for name, is_given in given.items() if is_given)
            raise ValueError(f"the encoder is loaded already; give {names} to load_encoder instead")
        return ProMergeModel(Pipeline(encoder, config))
    loaded = load_encoder(
        encoder or preset_encoder(preset),
        checkpoint=checkpoint,
        facet=facet,
        device=device,
        precision=precision,
        image_size=config.image_size,
        resize=resize,
        compile=compile,
    )
    return ProMergeModel(Pipeline(loaded, config))


def model_of_run(
    record: dict[str, Any],
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
) -> ProMergeModel:
    """The model that made a run, to go on with it or to do it again.

    Args:
        record: what :func:`promerge_fo.dataset.load_run` gives.
        checkpoint: the file with the encoder's weights, where the run had one.
        device: a torch device; None is CUDA where there is one, else the CPU.

    Raises:
        ValueError: the weights are not those of the run, or the method cannot be run again.
        promerge_fo.encoder.WeightsError: no way to the weights.
    """
    if record["method"] == "import":
        raise ValueError(f"this run was imported from {record['file']}; no model of ours made it")
    return ProMergeModel(pipeline_of(record, checkpoint, device))


def _chosen(
    method: str | None, preset: str, config: Config | None, image_size: int | None
) -> Config:
    """The configuration that the arguments of :func:`load_model` ask for."""
    if method is not None and method not in METHODS:
        methods = ", ".join(map(repr, METHODS))
        raise ValueError(f"there is no method {method!r}; the methods are: {methods}")
    if config is None:
        chosen = METHODS[method or "promerge"].preset(preset)
        return chosen if image_size is None else chosen.replace(image_size=image_size)
    if not isinstance(config, Config):
        raise TypeError(
            f"config is a {type(config).__name__}, but must be a ProMergeConfig, MaskCutConfig or "
            "TokenCutConfig; ProMergeConfig.from_dict makes one of a dictionary"
        )
    name = type(config).__name__
    if method not in (None, config.method):
        raise ValueError(
            f"method is {method!r}, but config is a {name}; give one of them, or a "
            f"{METHODS[method].__name__}"
        )
    if preset != "default":
        raise ValueError(
            f"both config and preset={preset!r} are given; give one of them, or "
            f"config={name}.preset({preset!r}).replace(...)"
        )
    if image_size is not None and image_size != config.image_size:
        raise ValueError(
            f"image_size is {image_size}, but config.image_size is {config.image_size}; "
            "leave image_size out"
        )
    return config


def preset_encoder(preset: str) -> str:
    """The encoder that a preset takes where none is named."""
    return "vit_small_patch16_224.dino" if preset == "fast" else "vit_base_patch8_224.dino"


class OutOfStepError(BaseException):
    """FiftyOne is about to give an image the labels of another one.

    It reads samples and images apart, and counts on both coming in the same order. Where the
    server drops its cursor (after ten minutes, or as it starts anew), FiftyOne goes on at the same
    position; but a view of what is left to do has other samples there by then. FiftyOne would
    take an ``Exception`` for a bad batch and go on, so this is none.
    """


class ProMergeModel(
    fomo.SamplesMixin,  # type: ignore[misc]
    fomo.SupportsGetItem,  # type: ignore[misc]
    fomo.TorchModelMixin,  # type: ignore[misc]
    fomo.Model,  # type: ignore[misc]
):
    """A pipeline as FiftyOne wants its models.

    ``apply_model`` goes through :meth:`promerge_fo.Pipeline.run`: while FiftyOne stores the labels
    of one batch, the next ones are read, encoded and segmented already. A GPU encodes
    ``batch_size`` images at once (FiftyOne's default is one). Threads read the images, so
    ``num_workers=0`` is best: FiftyOne's worker processes would hand on paths alone. The labels
    are those of :func:`promerge_fo.dataset.to_detections`. An image that cannot be read or
    computed costs no other image anything: its labels are empty, with ``status`` "failed" and the
    reason in ``error``. Every image's labels are replaced, so nothing of an earlier run stays.

    When the run ends, or is interrupted, a line tells the images by status, the labels'
    attributes become filterable, and the run's record is written
    (:func:`promerge_fo.dataset.load_run`).

    With ``output_dir``, masks are written there as PNG files instead of to the database. FiftyOne
    never overwrites files: a second run writes new ones beside the old, which no label points to
    any more and which are yours to delete.

    Args:
        pipeline: encoder and configuration.

    Attributes:
        pipeline: encoder and configuration.
        counts: images of the last run by status, while it goes on, too.
        instances: masks that the last run stored.
    """

    media_type = "image"
    ragged_batches = False  # else FiftyOne takes no notice of batch_size
    has_collate_fn = True  # the inherited one, which leaves a batch as a list
    preprocess = True  # FiftyOne switches it off where its data loader prepares the images

    def __init__(self, pipeline: Pipeline) -> None:
        fomo.SamplesMixin.__init__(self)
        self.pipeline = pipeline
        self.counts: dict[str, int] = {}
        self.instances = 0
        self._idle_fields = self.needs_fields
        self._get_item = _GetItem()
        self._recorder: RunRecorder | None = None
        self._ahead: _ReadAhead | None = None
        self._refusal: Exception | None = None

    @property
    def config(self) -> Config:
        """The method's parameters."""
        return self.pipeline.config

    @property
    def hash(self) -> str:
        """The run hash: 16 hexadecimal digits that name everything that decides the masks."""
        return self.pipeline.hash

    @property
    def transforms(self) -> Prepare:
        """What makes an image ready for the encoder."""
        return self.pipeline.prepare

    @property
    def _using_gpu(self) -> bool:
        return self.pipeline.encoder.device.type == "cuda"

    def build_get_item(self, field_mapping: dict[str, str] | None = None) -> fout.GetItem:
        """What FiftyOne's data loader runs in its workers."""
        self._get_item = _GetItem(field_mapping)
        return self._get_item

    def predict(self, arg: ImageLike | Prepared, sample: Any = None) -> fo.Detections:
        """Labels of one image.

        Args:
            arg: a path, a PIL image, an array (H, W, 3) uint8, or what :attr:`transforms` gave.
            sample: the image's sample, as FiftyOne passes it.
        """
        return self.predict_all([arg], None if sample is None else [sample])[0]

    def predict_all(
        self, args: Iterable[ImageLike | Prepared], samples: Sequence[Any] | None = None
    ) -> list[fo.Detections]:
        """Labels of a batch of images, in order.

        Args:
            args: as in :meth:`predict`.
            samples: the images' samples, as FiftyOne passes them.

        Raises:
            fiftyone.core.media.MediaTypeError: the samples are frames of a video.
            ValueError: a view of frames (``to_frames``) or patches, without workers.
            OutOfStepError: samples and images do not belong together.
        """
        if samples:
            self._require_storable(samples[0])
        batch = list(args)
        if samples:
            self._require_step(batch, samples)
        try:
            if self._recorder is not None and samples:
                labels = self._foreseen(batch, samples)
            else:
                labels = list(self._run(max(len(batch), 1), batch))
        except Exception:  # FiftyOne warns and goes on with the next batch
            if self._recorder is not None:
                self._recorder.lost += len(batch)
            raise
        if self._recorder is not None and samples is not None:
            self._recorder.add(samples, labels)
        return labels

    def _run(
        self, batch_size: int, images: Iterable[ImageLike | Prepared]
    ) -> Generator[fo.Detections, None, None]:
        return self.pipeline.run(images, batch_size, then=partial(to_detections, run=self.hash))

    def _foreseen(self, batch: list[Any], samples: Sequence[Any]) -> list[fo.Detections]:
        """Labels of a batch within apply_model, where the batches that follow are known."""
        if self._ahead is None:
            paths = collection_of(samples[0]).values("filepath")
            self._ahead = _ReadAhead(paths, partial(self._run, len(batch)))
        return self._ahead.take(batch)

    def _require_step(self, batch: Sequence[Any], samples: Sequence[Any]) -> None:
        """Refuse images that are not those of their samples."""
        if self._get_item.field_mapping["filepath"] != "filepath":
            return
        for image, sample in zip(batch, samples, strict=True):
            if isinstance(image, str) and image != sample.filepath:
                raise OutOfStepError(
                    f"FiftyOne has come to the sample of {sample.filepath}, but to the image "
                    f"{image}; what was done is kept, run the same again"
                )

    def _require_storable(self, sample: Any) -> None:
        """Refuse samples whose labels FiftyOne would lose."""
        if isinstance(sample, (fof.Frame, fof.FrameView)):
            self._refusal = fom.MediaTypeError(VIDEO_REFUSED)
            raise self._refusal
        # FiftyOne reloads a generated dataset where it reads it. In this process, that leaves it
        # with samples of the old schema, whose new fields it stores but never declares: neither
        # the view nor the dataset can be read any more.
        generated = isinstance(sample, fos.SampleView) and type(sample) is not fos.SampleView
        if generated and self._get_item.used_here:
            self._refusal = ValueError(
                "num_workers is 0, but FiftyOne loses the labels of frames and patches then; "
                "give num_workers=1 or more"
            )
            raise self._refusal

    def __enter__(self) -> ProMergeModel:
        # FiftyOne reads whole images through a data loader, and switches preprocessing off for
        # it. Where it announces samples and leaves preprocessing on, it is about to cut videos
        # into frames, and would turn every refusal of a frame into a warning.
        if self.needs_fields is not self._idle_fields and self.preprocess:
            raise fom.MediaTypeError(VIDEO_REFUSED)
        device = _name(self.pipeline.encoder.device)
        self._recorder = RunRecorder(self.hash, self.pipeline.identity(), device)
        self.counts, self.instances, self._refusal = self._recorder.counts, 0, None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        recorder, self._recorder = self._recorder, None
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None
        if recorder is None:
            return
        if error is None and self._refusal is not None:
            raise self._refusal
        record = patiently(lambda: recorder.finish(interrupted=error is not None))
        if record is not None:
            self.instances = record.instances
            field = str(record.label_field)
            patiently(lambda: complete_field(recorder.collection, field))
            logger.info(_summary(record))
        if recorder.lost and error is None:
            logger.warning(
                "promerge: FiftyOne did not store the labels of %d images; it says why above",
                recorder.lost,
            )


class _GetItem(fout.GetItem):  # type: ignore[misc]
    """Hands on the path of a sample's image; it holds no model, so that workers start quickly."""

    def __init__(self, field_mapping: dict[str, str] | None = None) -> None:
        self.used_here = False  # workers have copies
        super().__init__(field_mapping=field_mapping)

    @property
    def required_keys(self) -> list[str]:
        return ["filepath"]

    def __call__(self, d: dict[str, Any]) -> str:
        self.used_here = True
        return str(d["filepath"])


class _ReadAhead:
    """Labels of images that FiftyOne is going to ask for, made in the background before it does.

    Args:
        paths: the images, in the order in which FiftyOne will ask for them.
        run: makes the labels of the images that it is given, one after the other.
    """

    def __init__(
        self,
        paths: Sequence[str],
        run: Callable[[Sequence[str]], Generator[fo.Detections, None, None]],
    ) -> None:
        self._paths = paths
        self._run = run
        self._next = 0  # the image that the next labels are of
        self._labels: Generator[fo.Detections, None, None] | None = None

    def take(self, batch: Sequence[str]) -> list[fo.Detections]:
        """The labels of the next batch."""
        try:
            return [self._take(path) for path in batch]
        except BaseException:
            self.close()
            raise

    def _take(self, path: str) -> fo.Detections:
        try:
            place = self._paths.index(path, self._next)
        except ValueError:  # someone else is changing the dataset
            return next(self._run([path]))
        if self._labels is None:
            self._labels, self._next = self._run(self._paths[place:]), place
        for _ in range(self._next, place):  # FiftyOne left these out
            next(self._labels)
        self._next = place + 1
        return next(self._labels)

    def close(self) -> None:
        """Stop what is under way."""
        if self._labels is not None:
            self._labels.close()
            self._labels = None


def _summary(record: RunRecord) -> str:
    counts = sorted(record.counts.items(), key=lambda item: -item[1])
    text = (
        f"promerge: {record.images} images in {record.seconds:.1f} s "
        f"({record.images_per_second:.1f} images/s): "
        + ", ".join(f"{count} {status}" for status, count in counts)
    )
    if "failed" in record.counts:
        text += f" (see dataset.match(F('{record.label_field}.status') == 'failed'))"
    return "promerge was interrupted; " + text if record.interrupted else text


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)"
