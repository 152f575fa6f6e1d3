"""Many settings on the same images with ground truth: what each is worth, and what it costs.

Features are calculated once for each encoder and image and kept on disk, results as soon as an
image has them: a run that is stopped goes on where it was, and settings that were tried before, in
whatever grid, are not tried again. Nothing is stored in the dataset.
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
from promerge_fo.config import Config, run_hash
from promerge_fo.cpus import available_cpus
from promerge_fo.dataset.evaluation.coco_metrics import IouType, bootstrap
from promerge_fo.dataset.evaluation.evaluate import score_field
from promerge_fo.dataset.evaluation.intervals import draw_images
from promerge_fo.dataset.experiments.ablation_result import Ablation
from promerge_fo.dataset.experiments.feature_store import FeatureStore, StoredFeatures
from promerge_fo.dataset.experiments.outcome import Outcome
from promerge_fo.dataset.experiments.result_store import Result, ResultStore
from promerge_fo.dataset.samples import require_detections, require_images
from promerge_fo.dataset.stored_labels import ImageLabels, read_labels
from promerge_fo.encoder.base import Encoder
from promerge_fo.encoder.device import mark
from promerge_fo.files import sha256_of
from promerge_fo.flow import Round, flow
from promerge_fo.images import ImageError
from promerge_fo.pipeline import Encoded, Pipeline, Prepared
from promerge_fo.progress import ShowProgress, progress_bar
from promerge_fo.versions import __version__

__all__ = ["ablate"]

logger = logging.getLogger("fiftyone.promerge")


def ablate(
    samples: Any,
    settings: Mapping[str, Config],
    gt_field: str = "ground_truth",
    *,
    encoder: Encoder,
    folder: str | os.PathLike[str],
    threads: int | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    progress: ShowProgress = None,
) -> Ablation:
    """Segment all images with each of some settings, and measure the masks.

    The figures are those of :func:`~promerge_fo.dataset.evaluate_instances` on the masks that
    ``apply_model`` would store. Images that cannot be read have no masks; they count where their
    size is known, and are tried again the next time. How sure figures are is told as in
    :func:`~promerge_fo.dataset.compare_fields`.

    The time of an image is that of one thread, which shares the machine with the others: compare
    the times of runs that were alone on it, best with ``threads=1``.

    Args:
        samples: a dataset or a view of images.
        settings: configurations by the names that they have in tables; the first is the one that
            the others are compared with.
        gt_field: the field with the ground truth.
        encoder: of all settings.
        folder: for features (``features``; for their size, see
            :class:`~promerge_fo.dataset.experiments.feature_store.FeatureStore`) and results
            (``results.sqlite``).
        threads: that read images, and that segment and refine; the CPU cores by default.
        resamples: of the bootstrap over images.
        confidence: of its intervals, in (0, 1).
        seed: of the bootstrap.
        progress: whether to show a bar (None: as FiftyOne's config says), or what makes one; see
            :data:`promerge_fo.progress.ShowProgress`.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples have no images.
        ValueError: no settings, no image that can be read, a field that does not hold detections,
            settings that the encoder cannot serve, or sizes in the metadata that are not the
            images'.
        ImportError: a setting wants a package that is not installed.
        OSError: the disk does not hold the features.

    Examples:
        >>> from promerge_fo import ProMergeConfig, load_encoder
        >>> from promerge_fo.dataset import grid
        >>> ablation = ablate(  # doctest: +SKIP
        ...     dataset,
        ...     grid(ProMergeConfig(), stride=[4, 6], tau_b=[0.1, 0.2]),
        ...     encoder=load_encoder(),
        ...     folder="ablation/",
        ... )
        >>> print(ablation.table())  # doctest: +SKIP
    """
    if not settings:
        raise ValueError("there are no settings to try; give some configurations by name")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, but must lie between 0 and 1")
    require_images(samples)
    require_detections(samples, gt_field)
    threads = threads or available_cpus()
    pipelines = {
        name: Pipeline(encoder, config, threads=threads, crf_device="cpu")
        for name, config in settings.items()
    }
    runs = {name: _run_of(pipeline) for name, pipeline in pipelines.items()}
    images = _read(samples, gt_field, threads)
    with ResultStore(Path(folder) / "results.sqlite") as store:
        jobs = _jobs(images, {runs[name]: pipelines[name] for name in settings}, store)
        features = FeatureStore(Path(folder) / "features", encoder)
        _run(jobs, encoder, features, store, threads, progress)
        draws = draw_images(len(images), resamples, seed)
        outcomes = {
            name: _outcome(config, runs[name], images, gt_field, store, draws)
            for name, config in settings.items()
        }
    kind: IouType = "segm" if all("segm" in o.scores for o in outcomes.values()) else "bbox"
    return Ablation(outcomes, kind, len(images), gt_field, encoder.identity(), confidence)


class _Image(NamedTuple):
    """An image with its ground truth.

    Attributes:
        labels: size, number and records of the ground truth.
        path: of its file.
        sha256: of its file; None for one that cannot be read.
    """

    labels: ImageLabels
    path: str
    sha256: str | None


class _Job(NamedTuple):
    """An image, and what is still to be run on it, by run hash."""

    path: str
    sha256: str
    pipelines: dict[str, Pipeline]


@dataclass(frozen=True)
class _Read:
    """A job with its image and, where they were there, its features."""

    job: _Job
    prepared: Prepared
    stored: StoredFeatures | None


def _run_of(pipeline: Pipeline) -> str:
    """What names the results of a pipeline; another version of the package makes its own."""
    return run_hash({**pipeline.identity(), "version": __version__})


def _read(samples: Any, gt_field: str, threads: int) -> list[_Image]:
    """The images whose size is known."""
    labels = list(read_labels(samples, (gt_field,), progress=False))
    paths = samples.values("filepath")
    known = [(each, path) for each, path in zip(labels, paths, strict=True) if each.size]
    if not known:
        raise ValueError("there is no image to measure on; take another view")
    with ThreadPoolExecutor(threads) as pool:
        names = pool.map(_name_of, [path for _, path in known])
        return [_Image(*pair, name) for pair, name in zip(known, names, strict=True)]


def _name_of(path: str) -> str | None:
    try:
        return sha256_of(path)
    except OSError as error:
        logger.warning("an image has no masks: %s", error)
        return None


def _jobs(
    images: Sequence[_Image], pipelines: Mapping[str, Pipeline], store: ResultStore
) -> list[_Job]:
    """What is not done yet; images of the same file are done once."""
    paths = {image.sha256: image.path for image in images if image.sha256 is not None}
    left: dict[str, dict[str, Pipeline]] = defaultdict(dict)
    for run, pipeline in pipelines.items():
        done = store.done(run)
        for name in paths:
            if name not in done:
                left[name][run] = pipeline
    return [_Job(path, name, left[name]) for name, path in paths.items() if name in left]


def _run(
    jobs: Sequence[_Job],
    encoder: Encoder,
    features: FeatureStore,
    store: ResultStore,
    threads: int,
    progress: ShowProgress,
) -> None:
    """Do the jobs, and store what each gives as soon as it is there."""
    if not jobs:
        return
    prepare = next(iter(jobs[0].pipelines.values())).prepare
    missing = sum(job.sha256 not in features for job in jobs)

    def read(job: _Job) -> _Read:
        return _Read(job, prepare(job.path), features.load(job.sha256))

    def encode(batch: list[_Read]) -> list[tuple[_Read, Encoded | Exception, float]]:
        return [(image, *_encode(image, encoder, features, missing)) for image in batch]

    rounds = [Round(encode, 1, lambda step: _try_all(*step))]
    with progress_bar(progress, len(jobs)) as bar:
        for results in flow(jobs, read, rounds, readers=threads, workers=threads):
            store.add(results)
            bar.update(1)


def _encode(
    image: _Read, encoder: Encoder, features: FeatureStore, missing: int
) -> tuple[Encoded | Exception, float]:
    """The features of an image, from disk or else from the encoder, and the time that it took."""
    stored = image.stored
    if image.prepared.error is not None:
        return ImageError(image.prepared.error), 0.0
    if stored is None:
        try:
            stored = _calculate(image.prepared.pixels, encoder)
        except Exception as error:
            return error, 0.0
        features.require_room(stored.features.nbytes, missing)
        features.save(image.job.sha256, stored)
    scores = None
    if stored.prompt_scores is not None:
        scores = torch.from_numpy(stored.prompt_scores)
    on_device = torch.from_numpy(stored.features).to(encoder.device)
    return Encoded(on_device, scores, mark(encoder.device)), stored.seconds


def _calculate(pixels: NDArray[np.uint8], encoder: Encoder) -> StoredFeatures:
    started = time.perf_counter()
    scores = None
    if encoder.has_prompt_scores:
        encoded, all_scores = encoder.encode([pixels], with_prompt_scores=True)
        scores = all_scores[0].cpu().numpy()
    else:
        encoded = encoder.encode([pixels])
    features = encoded[0].cpu().numpy()
    return StoredFeatures(features, scores, time.perf_counter() - started)


def _try_all(image: _Read, encoded: Encoded | Exception, encoding_seconds: float) -> list[Result]:
    """What each setting makes of an image; those that fail are left out, to be tried again."""
    results = []
    for run, pipeline in image.job.pipelines.items():
        started = time.perf_counter()
        instances = pipeline.finish(image.prepared, encoded)
        seconds = time.perf_counter() - started
        if instances.status == "failed":
            logger.warning("%s has no masks: %s", image.job.path, instances.error)
            continue
        size = image.prepared.size
        made = records_of(instances)
        name, status = image.job.sha256, instances.status
        results.append(Result(run, name, status, size, made, seconds, encoding_seconds))
    return results


def _outcome(
    config: Config,
    run: str,
    images: Sequence[_Image],
    gt_field: str,
    store: ResultStore,
    draws: NDArray[np.int64],
) -> Outcome:
    """Figures of one setting."""
    results = store.read(run, sorted({i.sha256 for i in images if i.sha256 is not None}))
    found = f"{gt_field} found"  # any name but the ground truth's
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
                raise ValueError(
                    f"{image.path} is {result.size[1]} x {result.size[0]} pixels, but the dataset "
                    f"says {image.labels.size}; dataset.compute_metadata(overwrite=True) helps"
                )
            records = result.records
            statuses[result.status] += 1
            seconds.append(result.seconds)
            encoding.append(result.encoding_seconds)
        both = {gt_field: image.labels.records[gt_field], found: records}
        labels.append(replace(image.labels, records=both))
    scores = score_field(labels, found, gt_field)
    leading = next(iter(scores.values()))
    return Outcome(
        config,
        run,
        scores,
        bootstrap(leading.sweeps, draws),
        dict(statuses),
        sum(len(each.records[found]) for each in labels) / len(labels),
        float(np.median(seconds)) if seconds else float("nan"),
        float(np.median(encoding)) if encoding else float("nan"),
    )
