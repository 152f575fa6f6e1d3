"""Training: one or more rounds, each of which goes on where it was stopped."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from promerge_fo.detector.annotations import find_annotations
from promerge_fo.detector.config import DetectorConfig
from promerge_fo.detector.job import FINAL, RECORD, Job
from promerge_fo.detector.prediction import predict
from promerge_fo.detector.requirement import require_detectron2
from promerge_fo.detector.self_training import merge_labels
from promerge_fo.detector.weights import require_backbone
from promerge_fo.files import sha256_of, whole_file
from promerge_fo.machine import available_cpus
from promerge_fo.progress import ShowProgress

__all__ = ["require_folder", "train"]


def train(
    annotations: str | os.PathLike[str],
    output: str | os.PathLike[str],
    config: DetectorConfig | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    image_root: str | os.PathLike[str] | None = None,
    classes: bool = False,
    rounds: int = 1,
    gpus: int | None = None,
    num_workers: int | None = None,
    checkpoint_every: int = 5000,
    pictures_every: int = 1000,
    say: Callable[[str], Any] = print,
    progress: ShowProgress = False,
) -> Path:
    """Train the detector on pseudo-labels; on those of ProMerge it becomes ProMerge+.

    All labels are of one class, as in the paper, whatever the categories of the file; ``classes``
    learns them apart, and predictions have their names.

    The same call goes on where an earlier one was stopped, with the same batches and so with the
    same losses. Every round has a folder in the output::

        output/training.json                settings, and what was trained on
        output/round1/losses.jsonl          every iteration's losses
        output/round1/events.out.tfevents*  losses and sample predictions, for TensorBoard
        output/round1/model_0004999.pth     checkpoints, the last two
        output/round1/model_final.pth       the trained detector
        output/round2/pseudo_labels.json    what a second round is trained on

    A later round starts from the detector of the round before. Its labels are the confident
    predictions of that detector, and the old labels that these do not replace.

    Args:
        annotations: a COCO annotation file, or the folder of an export.
        output: a folder; a training of the same settings and labels in it goes on.
        config: settings; None is the paper's. For another batch size: ``config.scaled(n)``.
        weights: the ResNet-50 to start from: DINO's ``dino_resnet50_pretrain.pth``, as in the
            paper. None starts from random weights.
        image_root: the folder that file names are relative to; an export's manifest knows it.
        classes: whether the file's categories are the detector's classes.
        rounds: how often to train; more than one is self-training.
        gpus: how many to use; None is all, 0 the CPU.
        num_workers: processes for each GPU that make batches; None is a share of the CPU cores, 8
            at most.
        checkpoint_every: iterations between two checkpoints.
        pictures_every: iterations between two looks at sample predictions.
        say: takes lines of progress; with several GPUs, something that can be pickled.
        progress: whether to show a progress bar of each round's iterations (None: as FiftyOne's
            config says), or a function that makes one; see
            :data:`promerge_fo.progress.ShowProgress`. If its ``update`` raises
            KeyboardInterrupt, the training ends with a checkpoint. With one process only.

    Returns:
        The path of the trained detector.

    Raises:
        ImportError: detectron2 cannot be imported.
        WeightsError: weights that cannot be read, or are of another network.
        FileNotFoundError: no annotation file.
        ValueError: the folder holds another training, nothing has a mask, images and annotations
            do not fit together, ``classes`` and no categories with names, or arguments are out of
            their range.
        RuntimeError: the loss became infinite.
        KeyboardInterrupt: Ctrl-C, or the bar's.
    """
    require_detectron2()
    import torch
    from detectron2.engine import launch

    config = config or DetectorConfig()
    available = torch.cuda.device_count()
    processes = available if gpus is None else gpus
    if rounds < 1 or not 0 <= processes <= available:
        raise ValueError(
            f"rounds is {rounds} and gpus {gpus}, but rounds must be 1 or more, and gpus 0 to "
            f"{available}, which is how many there are"
        )
    if progress and processes > 1:
        raise ValueError(f"a bar shows one process, but there are {processes}; give gpus=1")
    file, root = find_annotations(annotations, image_root)
    folder = Path(output).expanduser().absolute()
    start = None if weights is None else require_backbone(weights)
    _keep_record(folder, config, file, start, classes)
    share = available_cpus() // max(1, processes) if num_workers is None else num_workers
    job = Job(
        labels=file,
        root=root,
        place=folder,
        config=config,
        start=start,
        whole=False,
        device="cuda" if processes else "cpu",
        workers=min(8, share),
        checkpoint_every=checkpoint_every,
        pictures_every=pictures_every,
        say=say,
        progress=progress if processes <= 1 else False,
        classes=classes,
    )
    for number in range(1, rounds + 1):
        job = replace(job, place=folder / f"round{number}", whole=number > 1)
        job.place.mkdir(exist_ok=True)
        if job.whole:
            job = replace(job, labels=_next_labels(job))
        final = job.place / FINAL
        if final.is_file():
            say(f"round {number} of {rounds} is done: {final}")
        else:
            say(f"round {number} of {rounds}: {config.iterations:,} iterations on {job.device}")
            launch(_train_round, max(1, processes), dist_url="auto", args=(job,))
        job = replace(job, start=final)
    return final


def require_folder(output: str | os.PathLike[str]) -> Path:
    """The folder of a training, which need not exist yet.

    Raises:
        ValueError: it holds other files.
    """
    folder = Path(output).expanduser().absolute()
    if folder.is_dir() and not (folder / RECORD).is_file() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty, and holds no training; give another folder")
    return folder


def _keep_record(
    folder: Path, config: DetectorConfig, file: Path, weights: Path | None, classes: bool
) -> None:
    """Write down the settings and what is trained on; refuse a folder of another training.

    Raises:
        ValueError: the folder holds checkpoints of another training, or other files.
    """
    record = {
        "config": config.to_dict(),
        "annotations": sha256_of(file),
        "weights": None if weights is None else sha256_of(weights),
        "classes": classes,
    }
    path = require_folder(folder) / RECORD
    if path.is_file():
        known = {"classes": False, **json.loads(path.read_text(encoding="utf-8"))}
        others = [name for name in record if known.get(name) != record[name]]
        if others and any(folder.glob("round*/*.pth")):
            raise ValueError(
                f"{folder} holds a training of other {' and '.join(others)}; give another folder, "
                f"or what {path} says, to go on with that one"
            )
        if not others:
            return
    content = {
        **record,
        "annotation_file": str(file),
        "weights_file": None if weights is None else str(weights),
        "versions": {name: version(name) for name in ("torch", "detectron2")},
    }
    with whole_file(path, "w") as out:
        out.write(json.dumps(content, indent=2, allow_nan=False) + "\n")


def _next_labels(job: Job) -> Path:
    """The labels of a further round, made once.

    Args:
        job: of this round, but with the labels of the one before.
    """
    assert job.start is not None
    labels, predictions = job.place / "pseudo_labels.json", job.place / "predictions.json"
    if labels.is_file():
        return labels
    sure = job.config.confident
    job.say(f"predicting on the images of {job.labels}")
    report = predict(
        job.start,
        job.labels,
        predictions,
        image_root=job.root,
        min_score=sure,
        device=job.device,
        config=job.config,
        progress=False,
    )
    job.say(str(report))
    iou = job.config.same_object_iou
    counts = merge_labels(
        job.labels, predictions, labels, min_score=sure, iou=iou, classes=job.classes
    )
    job.say(
        f"{labels}: {counts['predicted']} predictions and {counts['kept']} old labels; "
        f"{counts['replaced']} were replaced"
    )
    return labels


def _train_round(job: Job) -> None:
    """Train in this process, from the last checkpoint if there is one."""
    from promerge_fo.detector.loop import run

    # detectron2 reports an error at length before it raises it
    logging.getLogger("detectron2").addHandler(logging.NullHandler())
    try:
        run(job)
    except FloatingPointError as error:
        raise RuntimeError(
            f"{error}. Start anew in another folder with a smaller learning rate"
        ) from error
