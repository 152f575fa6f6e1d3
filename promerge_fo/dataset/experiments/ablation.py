"""Ablation: measure many settings on the same images with ground truth, their metrics and times.

Each encoder encodes an image once, and its features are kept on disk. The results of an image are
stored as soon as they are computed. So a run that is stopped continues where it was, and a setting
that was measured before, also as part of another grid, is not computed again. Nothing is stored in
the dataset.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from promerge_fo.annotations.rle import records_of
from promerge_fo.calibration import Calibration
from promerge_fo.config import Config, run_hash
from promerge_fo.dataset.evaluation.evaluate import score_field
from promerge_fo.dataset.evaluation.intervals import resampled_metrics
from promerge_fo.dataset.evaluation.matching import IouType
from promerge_fo.dataset.experiments.ablation_result import Ablation
from promerge_fo.dataset.experiments.feature_store import FeatureStore, StoredFeatures
from promerge_fo.dataset.experiments.outcome import Outcome
from promerge_fo.dataset.experiments.result_store import Result, ResultStore
from promerge_fo.dataset.samples import images_of, require_objects
from promerge_fo.dataset.stored_labels import ImageLabels, read_labels
from promerge_fo.encoder.base import Encoder
from promerge_fo.encoder.device import mark
from promerge_fo.files import sha256_of
from promerge_fo.flow import Round, flow
from promerge_fo.images import ImageError
from promerge_fo.machine import __version__, available_cpus
from promerge_fo.pipeline import Encoded, Pipeline, Prepared
from promerge_fo.progress import ShowProgress, progress_bar

__all__ = ["ablate"]

logger = logging.getLogger("fiftyone.promerge")


def ablate(
    samples: Any,
    settings: Mapping[str, Config | Pipeline],
    gt_field: str = "ground_truth",
    *,
    encoder: Encoder,
    calibration: Calibration | None = None,
    folder: str | os.PathLike[str],
    threads: int | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    progress: ShowProgress = None,
) -> Ablation:
    """Segment all images with each setting, and measure the masks.

    The metrics are those of :func:`~promerge_fo.dataset.evaluate_instances` on the masks that
    ``apply_model`` would store. The intervals are those of
    :func:`~promerge_fo.dataset.compare_fields`. An image file that cannot be read gets no masks,
    and is tried again in the next run; it counts if its size is known from the metadata.

    Times are those of one thread, which shares the machine with the others. To compare times, run
    nothing else on the machine, and use ``threads=1``.

    Args:
        samples: a dataset or a view of images.
        settings: configurations by their names in tables; the others are compared with the first
            one. A pipeline is a setting, too, to compare encoders, facets, blocks or calibrations;
            masks are refined on the CPU in any case.
        gt_field: the field with the ground truth.
        encoder: the encoder for all settings that are configurations.
        calibration: thresholds for this encoder, for what these settings do not name.
        folder: the folder for features (in ``features``; for their size, see
            :class:`~promerge_fo.dataset.experiments.feature_store.FeatureStore`) and results
            (``results.sqlite``).
        threads: the number of threads that read images, and of threads that segment and refine; by
            default the number of CPU cores.
        resamples: the number of samples for the bootstrap over images.
        confidence: the confidence of the intervals, in (0, 1).
        seed: the seed of the bootstrap.
        progress: whether to show a progress bar (None: as FiftyOne's config says), or a function
            that makes one; see :data:`promerge_fo.progress.ShowProgress`.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images.
        ValueError: there are no settings, the size of no image is known, the field does not hold
            detections, the encoder does not support a setting, or the folder has results of another
            size of an image.
        ImportError: a setting needs a package that is not installed.
        OSError: the features do not fit on the disk.

    Examples:
        >>> from promerge_fo import ProMergeConfig, load_encoder
        >>> from promerge_fo.dataset import grid
        >>> ablation = ablate(
        ...     dataset,
        ...     grid(ProMergeConfig(), stride=[4, 6], tau_b=[0.1, 0.2]),
        ...     encoder=load_encoder(),
        ...     folder="ablation/",
        ... )
        >>> print(ablation.table())
    """
    if not settings:
        raise ValueError("there are no settings to try; give some configurations by name")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, but must lie between 0 and 1")
    samples = images_of(samples)
    require_objects(samples, gt_field)
    threads = threads or available_cpus()
    pipelines = {
        name: _pipeline(setting, encoder, calibration, threads)
        for name, setting in settings.items()
    }
    runs = {name: _result_hash(pipeline) for name, pipeline in pipelines.items()}
    images = _load_images(samples, gt_field, threads)
    with ResultStore(Path(folder) / "results.sqlite") as store:
        for each, own in _by_encoder(pipelines).items():
            jobs = _find_jobs(images, {runs[name]: pipelines[name] for name in own}, store)
            features = FeatureStore(Path(folder) / "features", each)
            _run_jobs(jobs, each, features, store, threads, progress)
        outcomes = {
            name: _measure(pipeline, runs[name], images, gt_field, store)
            for name, pipeline in pipelines.items()
        }
    leading = {name: next(iter(each.scores.values())) for name, each in outcomes.items()}
    drawn = resampled_metrics(
        {name: scores.ranked for name, scores in leading.items()}, len(images), resamples, seed
    )
    outcomes = {name: replace(each, drawn=drawn[name]) for name, each in outcomes.items()}
    first = next(iter(pipelines.values())).encoder
    kind: IouType = "segm" if all("segm" in o.scores for o in outcomes.values()) else "bbox"
    return Ablation(outcomes, kind, len(images), gt_field, first.identity(), confidence)


def _pipeline(
    setting: Config | Pipeline,
    encoder: Encoder,
    calibration: Calibration | None,
    threads: int,
) -> Pipeline:
    """The pipeline of a setting, on the CPU but for the encoder."""
    if isinstance(setting, Pipeline):
        encoder, calibration = setting.encoder, setting.calibration
        setting = setting.config
    elif not setting.can_calibrate:
        calibration = None
    return Pipeline(encoder, setting, threads, crf_device="cpu", calibration=calibration)


def _by_encoder(pipelines: Mapping[str, Pipeline]) -> dict[Encoder, list[str]]:
    """The names of the pipelines whose encoders give the same features, by one of these."""
    encoders = {run_hash(p.encoder.identity()): p.encoder for p in pipelines.values()}
    named: dict[Encoder, list[str]] = defaultdict(list)
    for name, pipeline in pipelines.items():
        named[encoders[run_hash(pipeline.encoder.identity())]].append(name)
    return named


class _Image(NamedTuple):
    """An image with its ground truth.

    Attributes:
        labels: the size and the number of the image, and the records of its ground truth.
        path: the path of the image file.
        sha256: the SHA-256 of the image file; None if it cannot be read.
    """

    labels: ImageLabels
    path: str
    sha256: str | None


class _Job(NamedTuple):
    """An image file, and the pipelines that have no results for it yet, by the results' hash."""

    path: str
    sha256: str
    pipelines: dict[str, Pipeline]


@dataclass(frozen=True)
class _PreparedJob:
    """A job, its image as the encoder takes it, and its features if they were stored before."""

    job: _Job
    prepared: Prepared
    stored: StoredFeatures | None


def _result_hash(pipeline: Pipeline) -> str:
    """The hash that names a pipeline's results; it differs between versions of this package."""
    return run_hash({**pipeline.identity(), "version": __version__})


def _load_images(samples: Any, gt_field: str, threads: int) -> list[_Image]:
    """The images whose size is known, with their ground truth."""
    labels = list(read_labels(samples, (gt_field,), progress=False))
    paths = samples.values("filepath")
    known = [(each, path) for each, path in zip(labels, paths, strict=True) if each.size]
    if not known:
        raise ValueError(
            "there is no image to measure on: no file or metadata tells an image's size; take "
            "another view"
        )
    with ThreadPoolExecutor(threads) as pool:
        hashes = pool.map(_hash_file, [path for _, path in known])
        return [_Image(*pair, sha256) for pair, sha256 in zip(known, hashes, strict=True)]


def _hash_file(path: str) -> str | None:
    """The SHA-256 of a file; None, with a warning, if it cannot be read."""
    try:
        return sha256_of(path)
    except OSError as error:
        logger.warning("an image has no masks: %s", error)
        return None


def _find_jobs(
    images: Sequence[_Image], pipelines: Mapping[str, Pipeline], store: ResultStore
) -> list[_Job]:
    """The jobs that are not done yet; identical image files are one job."""
    paths = {image.sha256: image.path for image in images if image.sha256 is not None}
    missing: dict[str, dict[str, Pipeline]] = defaultdict(dict)
    for run, pipeline in pipelines.items():
        done = store.done(run)
        for sha256 in paths:
            if sha256 not in done:
                missing[sha256][run] = pipeline
    return [_Job(paths[sha256], sha256, missing[sha256]) for sha256 in paths if sha256 in missing]


def _run_jobs(
    jobs: Sequence[_Job],
    encoder: Encoder,
    features: FeatureStore,
    store: ResultStore,
    threads: int,
    progress: ShowProgress,
) -> None:
    """Run the jobs, and store the results of each as soon as they are computed."""
    if not jobs:
        return
    prepare = next(iter(jobs[0].pipelines.values())).prepare
    missing = sum(job.sha256 not in features for job in jobs)

    def read(job: _Job) -> _PreparedJob:
        return _PreparedJob(job, prepare(job.path), features.load(job.sha256))

    def encode(batch: list[_PreparedJob]) -> list[tuple[_PreparedJob, Encoded | Exception, float]]:
        return [(prepared, *_encode(prepared, encoder, features, missing)) for prepared in batch]

    rounds = [Round(encode, 1, lambda encoded: _apply_settings(*encoded))]
    with progress_bar(progress, len(jobs)) as bar:
        for results in flow(jobs, read, rounds, readers=threads, workers=threads):
            store.add(results)
            bar.update(1)


def _encode(
    image: _PreparedJob, encoder: Encoder, features: FeatureStore, missing: int
) -> tuple[Encoded | Exception, float]:
    """The features of an image, from disk or else from the encoder, and the seconds for encoding.

    Args:
        image: the image.
        encoder: the encoder.
        features: where features are stored.
        missing: the number of images whose features were missing at the start.
    """
    stored = image.stored
    if image.prepared.error is not None:
        return ImageError(image.prepared.error), 0.0
    if stored is None:
        try:
            stored = _encode_pixels(image.prepared.pixels, encoder)
        except Exception as error:
            return error, 0.0
        features.require_room(stored.features.nbytes, missing)
        features.save(image.job.sha256, stored)
    scores = None
    if stored.prompt_scores is not None:
        scores = torch.from_numpy(stored.prompt_scores)
    on_device = torch.from_numpy(stored.features).to(encoder.features_device)
    return Encoded(on_device, scores, on_device, mark(encoder.device)), stored.seconds


def _encode_pixels(pixels: NDArray[np.uint8], encoder: Encoder) -> StoredFeatures:
    started = time.perf_counter()
    scores = None
    if encoder.has_prompt_scores:
        encoded, all_scores = encoder.encode([pixels], with_prompt_scores=True)
        scores = all_scores[0].cpu().numpy()
    else:
        encoded = encoder.encode([pixels])
    features = encoded[0].cpu().numpy()
    return StoredFeatures(features, scores, time.perf_counter() - started)


def _apply_settings(
    image: _PreparedJob, encoded: Encoded | Exception, encoding_seconds: float
) -> list[Result]:
    """The result of each setting on an image; those that fail are left out, to be tried again."""
    results = []
    for run, pipeline in image.job.pipelines.items():
        started = time.perf_counter()
        instances = pipeline.finish(image.prepared, encoded)
        seconds = time.perf_counter() - started
        if instances.status == "failed":
            logger.warning("%s has no masks: %s", image.job.path, instances.error)
            continue
        sha256, status, size = image.job.sha256, instances.status, image.prepared.size
        records = records_of(instances)
        results.append(Result(run, sha256, status, size, records, seconds, encoding_seconds))
    return results


def _measure(
    pipeline: Pipeline,
    run: str,
    images: Sequence[_Image],
    gt_field: str,
    store: ResultStore,
) -> Outcome:
    """The measurements of one setting, from its stored results, without the bootstrap's."""
    results = store.read(run, sorted({i.sha256 for i in images if i.sha256 is not None}))
    pred_field = f"{gt_field} predictions"  # any name other than gt_field
    labels, statuses = [], Counter[str]()
    seconds: list[float] = []
    encoding: list[float] = []
    for image in images:
        result = results.get(image.sha256 or "")
        records = []
        if result is None:
            statuses["failed"] += 1
        else:
            if result.size != image.labels.size:
                known = [size[::-1] for size in (image.labels.size, result.size) if size]
                here, then = ("{} x {}".format(*size) for size in known)
                raise ValueError(
                    f"{image.path} is {here} pixels, but its results in this folder are of {then}, "
                    "from another version; give another folder"
                )
            records = result.records
            statuses[result.status] += 1
            seconds.append(result.seconds)
            encoding.append(result.encoding_seconds)
        both = {gt_field: image.labels.records[gt_field], pred_field: records}
        labels.append(replace(image.labels, records=both))
    return Outcome(
        pipeline,
        run,
        score_field(labels, pred_field, gt_field),
        {},
        dict(statuses),
        sum(len(each.records[pred_field]) for each in labels) / len(labels),
        float(np.median(seconds)) if seconds else float("nan"),
        float(np.median(encoding)) if encoding else float("nan"),
    )
