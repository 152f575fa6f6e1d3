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

from promerge_fo.calibration import Calibration, calibrate
from promerge_fo.config import METHODS, Config, preset_encoder
from promerge_fo.dataset.classes.stored_vectors import same_masks
from promerge_fo.dataset.database import collection_of, retry_while_unreachable
from promerge_fo.dataset.decided import Kept
from promerge_fo.dataset.labels import declare_field, to_detections
from promerge_fo.dataset.runs.frames import labels_before
from promerge_fo.dataset.runs.recorder import Made, RunRecorder
from promerge_fo.dataset.runs.unstored import fitting
from promerge_fo.dataset.sizes import keep_size
from promerge_fo.diagnosis import FIRST, diagnose
from promerge_fo.encoder import load_encoder
from promerge_fo.encoder.base import Encoder, Facet, Precision, ResizeMode
from promerge_fo.encoder.device import describe_device
from promerge_fo.images import ImageLike
from promerge_fo.instances import Instances
from promerge_fo.pipeline import Pipeline, Prepare, Prepared, pipeline_of
from promerge_fo.progress import ShowProgress
from promerge_fo.run_record import RunRecord

__all__ = ["OutOfStepError", "ProMergeModel", "load_model", "model_of_run"]

# A child of FiftyOne's logger, so that its messages are shown wherever FiftyOne's are.
logger = logging.getLogger("fiftyone.promerge")


def load_model(
    method: str | None = None,
    preset: str = "default",
    config: Config | None = None,
    encoder: str | Encoder | None = None,
    checkpoint: str | Path | None = None,
    facet: Facet | None = None,
    device: str | torch.device | None = None,
    precision: Precision = "fp32",
    image_size: int | None = None,
    resize: ResizeMode = "square",
    compile: bool = False,
    block: int | None = None,
    calibration: Calibration | None = None,
    embed: bool = False,
    embed_facet: Facet | None = None,
    embed_block: int | None = None,
) -> ProMergeModel:
    """Load a method and an encoder as a model for ``dataset.apply_model``.

    Args:
        method: ``"promerge"``, ``"maskcut"`` or ``"tokencut"``; None takes the method of
            ``config``, or ProMerge if there is no ``config``.
        preset: a preset of the method, see :class:`promerge_fo.ProMergeConfig`; ``"fast"`` also
            takes the encoder ``"vit_small_patch16_224.dino"``, which suits laptops.
        config: the method's parameters, instead of a preset.
        encoder: the name of an encoder (see :func:`promerge_fo.load_encoder`;
            ``"vit_base_patch8_224.dino"`` by default), or an encoder that is already loaded, for
            which the arguments below cannot be given.
        checkpoint: a local file with the encoder's weights; None downloads them once.
        facet: the features to use: ``"key"``, ``"query"``, ``"value"``, ``"token"`` or
            ``"normed_token"``; None takes the calibration's, or keys without one.
        device: a torch device; None takes CUDA or Apple's GPU if there is one, else the CPU.
        precision: ``"fp32"``, ``"bf16"`` or ``"auto"``.
        image_size: side in pixels at which images are encoded and masks refined; None takes it
            from the configuration (480 by default).
        resize: ``"square"``, or ``"aspect"`` to keep the aspect ratio of the images.
        compile: compile the encoder at the first batch; meant for GPUs.
        block: the block of the encoder whose facet is used, from 1; None takes the last one.
        calibration: thresholds for the encoder's features, from :func:`promerge_fo.calibrate`. The
            parameters that ``config`` names keep their values.
        embed: also give the masks embeddings, in the same pass
            (:func:`promerge_fo.dataset.read_embeddings`). The masks and their run hash stay the
            same.
        embed_facet: the facet that embeddings are made of; None takes that of the masks.
        embed_block: the block that embeddings are made of, from 1; None takes that of the masks.

    Raises:
        TypeError: ``config`` is not a configuration.
        ValueError: the method, preset or encoder is unknown, or arguments contradict each other.
        promerge_fo.encoder.WeightsError: the weights are neither on this machine nor can they be
            downloaded.

    Examples:
        >>> model = load_model(preset="fast")
        >>> dataset.apply_model(model, label_field="promerge", batch_size=8, num_workers=0)
    """
    config = _choose_config(method, preset, config, image_size)
    if not embed and (embed_facet, embed_block) != (None, None):
        raise ValueError("embed_facet and embed_block are for embeddings; give embed=True, too")
    if isinstance(encoder, Encoder):
        given = {
            "checkpoint": checkpoint is not None,
            "facet": facet is not None,
            "device": device is not None,
            "precision": precision != "fp32",
            "image_size": image_size is not None,
            "resize": resize != "square",
            "compile": compile,
            "block": block is not None,
            "embed_facet": embed_facet is not None,
            "embed_block": embed_block is not None,
        }
        if any(given.values()):
            names = ", ".join(name for name, is_given in given.items() if is_given)
            raise ValueError(f"the encoder is loaded already; give {names} to load_encoder instead")
        return _with(calibration, Pipeline(encoder, config, embed=embed))
    loaded = load_encoder(
        encoder or preset_encoder(preset),
        checkpoint=checkpoint,
        facet=facet,
        device=device,
        precision=precision,
        image_size=config.image_size,
        resize=resize,
        compile=compile,
        block=block,
        embed_facet=embed_facet,
        embed_block=embed_block,
    )
    return _with(calibration, Pipeline(loaded, config, embed=embed))


def _with(calibration: Calibration | None, pipeline: Pipeline) -> ProMergeModel:
    return ProMergeModel(pipeline if calibration is None else pipeline.calibrated(calibration))


def model_of_run(
    record: dict[str, Any],
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
) -> ProMergeModel:
    """The model that made a run, to continue or to repeat it.

    Args:
        record: the record of the run, from :func:`promerge_fo.dataset.load_run`.
        checkpoint: the file with the encoder's weights, if the run used one.
        device: a torch device; None takes CUDA or Apple's GPU if there is one, else the CPU.

    Raises:
        ValueError: the weights are not those of the run, or the run was an import, which no model
            made.
        promerge_fo.encoder.WeightsError: the weights are neither on this machine nor can they be
            downloaded.
    """
    if record["method"] == "import":
        raise ValueError(
            f"this run was imported from {record['file']}, so no model can be loaded for it; give "
            "the record of a run that segmented images"
        )
    return ProMergeModel(pipeline_of(record, checkpoint, device))


def _choose_config(
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


class OutOfStepError(BaseException):
    """Raised when FiftyOne is about to store the labels of one image on the sample of another.

    FiftyOne reads samples and images separately, and relies on both coming in the same order. When
    the database server drops a cursor (after ten minutes, or when it restarts), FiftyOne resumes at
    the same position of the view. But a view of unfinished images holds other samples at that
    position by then. The class does not derive from ``Exception``, because FiftyOne takes an
    ``Exception`` for a bad batch and continues.
    """


class ProMergeModel(
    fomo.SamplesMixin,  # type: ignore[misc]
    fomo.SupportsGetItem,  # type: ignore[misc]
    fomo.TorchModelMixin,  # type: ignore[misc]
    fomo.Model,  # type: ignore[misc]
):
    """A pipeline with the interface of a FiftyOne model.

    ``apply_model`` uses :meth:`promerge_fo.Pipeline.run`: while FiftyOne stores the labels of one
    batch, the next batches are already read, encoded and segmented. A GPU encodes ``batch_size``
    images together (FiftyOne's default is 1). The pipeline's own threads read the images, so
    ``num_workers=0`` is best: FiftyOne's worker processes would only pass paths along. The labels
    are those of :func:`promerge_fo.dataset.to_detections`. An image that cannot be read or
    segmented does not affect the others: its labels are empty, with ``status`` "failed" and the
    reason in ``error``. The labels of every image are replaced, so none of an earlier run remain.

    Of videos, FiftyOne reads the frames, and the labels are in ``frames.<label_field>``. Frames
    that have labels of the very same settings keep them and are not segmented again, so that a run
    that was stopped goes on where it was.

    When the run ends or is interrupted, the model logs the number of images by status, makes the
    labels' attributes filterable in the App, and writes the record of the run
    (:func:`promerge_fo.dataset.load_run`).

    With ``output_dir``, FiftyOne writes masks to that folder as PNG files instead of to the
    database, by names that two runs at once share, and stores the path as it is given; use
    :func:`~promerge_fo.dataset.segment_dataset`, or a folder of its own, absolute, for each run. A
    second run writes new files beside the old ones, which no label refers to any more. Delete them
    yourself.

    Args:
        pipeline: the encoder and the configuration.

    Attributes:
        pipeline: the encoder and the configuration.
        counts: the number of images of the current or last run, by status.
        instances: the number of masks that the last run stored.
        kept: what people did to labels that the run replaces; None if nothing.
        fills: the field that the run fills, where it is known before FiftyOne has stored anything.
        mask_folder: where masks are written as PNG files; None for the database.
        is_left_uncalibrated: whether the user wants no calibration, and no word of it in the log.
    """

    media_type = "image"
    ragged_batches = False  # with True, FiftyOne ignores batch_size
    has_collate_fn = True  # the inherited one, which leaves a batch as a list
    preprocess = True  # FiftyOne sets it to False if its data loader prepares the images

    def __init__(self, pipeline: Pipeline) -> None:
        fomo.SamplesMixin.__init__(self)
        self.pipeline = pipeline
        self.counts: dict[str, int] = {}
        self.instances = 0
        self.kept: Kept | None = None
        self.fills: str | None = None
        self.mask_folder: Path | None = None
        self.is_left_uncalibrated = False
        self._get_item = _GetItem()
        self._recorder: RunRecorder | None = None
        self._is_looked_at = False  # whether the first images of the run were
        self._read_ahead: _ReadAhead | None = None
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
    def diagnosis(self) -> str | None:
        """Why most images of the run have no masks, in words; None if most have some."""
        tau_b = getattr(self.config, "tau_b", None)
        return diagnose(self.counts, self.pipeline.cosines, tau_b)

    @property
    def transforms(self) -> Prepare:
        """The function that reads an image and resizes it for the encoder."""
        return self.pipeline.prepare

    @property
    def _using_gpu(self) -> bool:
        return self.pipeline.encoder.device.type == "cuda"

    def calibrate(
        self, by: Calibration | Sequence[ImageLike], *, progress: ShowProgress = False
    ) -> Calibration:
        """Choose thresholds for the encoder, on images without labels, before the first run.

        Args:
            by: the images that will be segmented, of which 32 are measured
                (:func:`promerge_fo.calibrate`), or a calibration from before.
            progress: see :data:`promerge_fo.progress.ShowProgress`.

        Returns:
            The calibration; ``str`` gives its reasons.

        Raises:
            ValueError: the configuration takes none, as the preset "paper" and MaskCut; the
                calibration is another encoder's; no image can be read.
        """
        if not isinstance(by, Calibration):
            by = calibrate(self.pipeline.encoder, by, progress=progress)
        self.pipeline = self.pipeline.calibrated(by)
        return by

    def build_get_item(self, field_mapping: dict[str, str] | None = None) -> fout.GetItem:
        """The function with which FiftyOne's data loader gets images from samples."""
        self._get_item = _GetItem(field_mapping)
        return self._get_item

    def predict(self, arg: ImageLike | Prepared, sample: Any = None) -> fo.Detections:
        """The labels of one image.

        Args:
            arg: a path, a PIL image, an array (H, W, 3) uint8, or a result of :attr:`transforms`.
            sample: the sample of the image, if FiftyOne calls.
        """
        return self.predict_all([arg], None if sample is None else [sample])[0]

    def predict_all(
        self, args: Iterable[ImageLike | Prepared], samples: Sequence[Any] | None = None
    ) -> list[fo.Detections]:
        """The labels of a batch of images, in order.

        Args:
            args: images, as in :meth:`predict`.
            samples: the samples of the images, if FiftyOne calls.

        Raises:
            ValueError: the model embeds, and the samples are frames or patches.
            OutOfStepError: an image is not the one of its sample.
        """
        batch = list(args)
        if samples:
            self._require_storable(samples[0])
            if isinstance(samples[0], (fof.Frame, fof.FrameView)):
                return self._labels_of_frames(batch, samples)
            self._require_own_images(batch, samples)
            self._declare_early(samples[0])
        try:
            if self._recorder is not None and samples:
                made = self._labels_read_ahead(batch, samples)
            else:
                made = list(self._segment(max(len(batch), 1), batch))
        except Exception:  # FiftyOne warns and continues with the next batch
            if self._recorder is not None:
                self._recorder.not_stored += len(batch)
            raise
        if self.kept and samples:
            pairs = zip(samples, made, strict=True)
            made = [self._with_decisions(str(sample.id), each) for sample, each in pairs]
        if self.fills is not None and samples:
            fits = fitting(samples, [each.labels for each in made], self.fills, self.hash)
            made = [
                each if labels is each.labels else Made(labels, None)
                for each, labels in zip(made, fits, strict=True)
            ]
        if self._recorder is not None and samples is not None:
            for sample in samples:
                if not _is_generated(sample):
                    keep_size(sample)
            self._recorder.add(samples, made)
            self._look_at_first_images()
        return [each.labels for each in made]

    def _labels_of_frames(self, batch: Sequence[Any], frames: Sequence[Any]) -> list[fo.Detections]:
        """The labels of frames that FiftyOne reads from a video; those of this run stay."""
        recorder, field = self._recorder, self.fills
        if recorder is not None:
            recorder.count_last_batch()
            field = field or recorder.label_field
        before = labels_before(frames, self.hash, field)
        todo = [image for image, known in zip(batch, before, strict=True) if known is None]
        try:
            new = iter(list(self._segment(max(len(todo), 1), todo)))
        except Exception:  # FiftyOne warns and continues with the next video
            if recorder is not None:
                recorder.not_stored += len(todo)
            raise
        made = [next(new) if known is None else Made(known, None, False) for known in before]
        if recorder is not None:
            recorder.add(frames, made)
            self._look_at_first_images()
        return [each.labels for each in made]

    def _with_decisions(self, sample_id: str, made: Made) -> Made:
        """The labels of an image, with what people did to those that they replace."""
        if self.kept is None or sample_id not in self.kept.paths:
            return made
        stored = made.labels.to_dict()
        before = stored["detections"]
        self.kept.hand_on(sample_id, stored)
        # A painted mask has no mean yet: its image is left to complete_embeddings.
        means = made.means if same_masks(before, stored["detections"]) else None
        return Made(fo.Detections.from_dict(stored), means)

    def _look_at_first_images(self) -> None:
        """Warn early in a run if most images have no masks, while it can still be stopped."""
        if self._is_looked_at or sum(self.counts.values()) < FIRST:
            return
        self._is_looked_at = True
        diagnosis = self.diagnosis
        if diagnosis is not None:
            logger.warning("promerge: so far, %s", diagnosis)

    def _segment(
        self, batch_size: int, images: Iterable[ImageLike | Prepared]
    ) -> Generator[Made, None, None]:
        made = partial(_made, run=self.hash, mask_folder=self.mask_folder)
        return self.pipeline.run(images, batch_size, then=made)

    def _labels_read_ahead(self, batch: list[Any], samples: Sequence[Any]) -> list[Made]:
        """The labels of a batch within apply_model, while the batches after it are computed."""
        if self._read_ahead is None:
            paths = collection_of(samples[0]).values("filepath")
            self._read_ahead = _ReadAhead(paths, partial(self._segment, len(batch)))
        return self._read_ahead.take(batch)

    def _require_own_images(self, batch: Sequence[Any], samples: Sequence[Any]) -> None:
        """Refuse a batch in which an image is not the one of its sample."""
        if self._get_item.field_mapping["filepath"] != "filepath":
            return
        for image, sample in zip(batch, samples, strict=True):
            if isinstance(image, str) and image != sample.filepath:
                raise OutOfStepError(
                    f"FiftyOne is at the sample of {sample.filepath}, but at the image {image}; "
                    "what was done is kept, run the same again"
                )

    def _declare_early(self, sample: Any) -> None:
        """Declare the field once it is known, where FiftyOne does not.

        FiftyOne loads a generated dataset again in the process that reads its images. If that is
        this process, its samples have the old schema, and it stores their new field without
        declaring it: were the run killed, frames could not be read any more.
        """
        recorder = self._recorder
        if recorder is None or recorder.label_field is not None:
            return
        recorder.count_last_batch()
        field = recorder.label_field
        if field is not None and _is_generated(sample) and self._get_item.used_here:
            declare_field(recorder.collection, field, self.config.has_proposals)

    def _require_storable(self, sample: Any) -> None:
        """Refuse samples whose labels FiftyOne cannot store."""
        of_video = isinstance(sample, (fof.Frame, fof.FrameView))
        if self.pipeline.embed and (of_video or _is_generated(sample)):
            self._refusal = ValueError(
                "embeddings of frames or patches would be lost with their view; load the model "
                "without embed, or make a dataset of them: samples.clone()"
            )
            raise self._refusal

    def __enter__(self) -> ProMergeModel:
        device = describe_device(self.pipeline.encoder.device)
        embeds = self.pipeline.encoder.embedding_identity() if self.pipeline.embed else None
        self._recorder = RunRecorder(self.hash, self.pipeline.identity(), device, embeds)
        self.counts, self.instances, self._refusal = self._recorder.counts, 0, None
        self.pipeline.forget_cosines()
        if self.pipeline.wants_calibration and not self.is_left_uncalibrated:
            logger.warning(
                "promerge: the paper's thresholds were not made for the features of %s, and often "
                "find nothing in them; model.calibrate(dataset.values('filepath')) chooses others, "
                "as segment_dataset does by itself",
                self.pipeline.encoder.name,
            )
        self._is_looked_at = False
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        recorder, self._recorder = self._recorder, None
        if self._read_ahead is not None:
            self._read_ahead.close()
            self._read_ahead = None
        if recorder is None:
            return
        if error is None and self._refusal is not None:
            raise self._refusal
        record = retry_while_unreachable(lambda: recorder.finish(error, self.pipeline.cosines))
        if record is not None:
            self.instances = record.instances
            field = str(record.label_field)
            with_levels = self.config.has_proposals
            retry_while_unreachable(lambda: declare_field(recorder.collection, field, with_levels))
            is_video = recorder.collection.media_type == fom.VIDEO
            logger.info(_summary(record, "frames" if is_video else "images"))
            if record.diagnosis is not None:
                logger.warning("promerge: %s", record.diagnosis)
        if recorder.not_stored and error is None:
            logger.warning(
                "promerge: FiftyOne did not store the labels of %d images; its messages above say "
                "why",
                recorder.not_stored,
            )


def _is_generated(sample: Any) -> bool:
    """Whether a sample is a frame of a video or a patch, in a view of those."""
    return isinstance(sample, fos.SampleView) and type(sample) is not fos.SampleView


class _GetItem(fout.GetItem):  # type: ignore[misc]
    """Gets the path of a sample's image. It holds no model, so that workers start quickly."""

    def __init__(self, field_mapping: dict[str, str] | None = None) -> None:
        self.used_here = False  # whether this process calls it; workers call copies
        super().__init__(field_mapping=field_mapping)

    @property
    def required_keys(self) -> list[str]:
        return ["filepath"]

    def __call__(self, d: dict[str, Any]) -> str:
        self.used_here = True
        return str(d["filepath"])


class _ReadAhead:
    """Computes the labels of images in the background, before FiftyOne asks for them.

    Args:
        paths: the image files, in the order in which FiftyOne will ask for them.
        segment: yields the labels of the images that it is given, in order.
    """

    def __init__(
        self,
        paths: Sequence[str],
        segment: Callable[[Sequence[str]], Generator[Made, None, None]],
    ) -> None:
        self._paths = paths
        self._segment = segment
        self._next = 0  # the index of the image whose labels come next
        self._labels: Generator[Made, None, None] | None = None

    def take(self, batch: Sequence[str]) -> list[Made]:
        """The labels of the next batch."""
        try:
            return [self._labels_of(path) for path in batch]
        except BaseException:
            self.close()
            raise

    def _labels_of(self, path: str) -> Made:
        try:
            index = self._paths.index(path, self._next)
        except ValueError:  # the dataset was changed during the run
            return next(self._segment([path]))
        if self._labels is None:
            self._labels, self._next = self._segment(self._paths[index:]), index
        for _ in range(self._next, index):  # FiftyOne skipped these images
            next(self._labels)
        self._next = index + 1
        return next(self._labels)

    def close(self) -> None:
        """Stop the computation in the background."""
        if self._labels is not None:
            self._labels.close()
            self._labels = None


def _made(instances: Instances, run: str, mask_folder: Path | None) -> Made:
    return Made(to_detections(instances, run, mask_folder), instances.means)


def _summary(record: RunRecord, unit: str) -> str:
    counts = sorted(record.counts.items(), key=lambda item: -item[1])
    text = (
        f"promerge: {record.images} {unit} in {record.seconds:.1f} s "
        f"({record.images_per_second:.1f} {unit}/s): "
        + ", ".join(f"{count} {status}" for status, count in counts)
    )
    if "failed" in record.counts:
        match = "match" if unit == "images" else "match_frames"
        text += f" (see dataset.{match}(F('{record.label_field}.status') == 'failed'))"
    return "promerge was interrupted; " + text if record.interrupted else text
