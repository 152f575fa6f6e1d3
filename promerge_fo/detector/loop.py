"""One round of training, in one of its processes.

Importing this module imports detectron2.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.engine import AMPTrainer, SimpleTrainer, create_ddp_model, hooks
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.utils import comm
from detectron2.utils.events import TensorboardXWriter

from promerge_fo.detector.annotations import read_annotations
from promerge_fo.detector.checkpoints import SafeCheckpointer
from promerge_fo.detector.config import Layout, detectron2_config
from promerge_fo.detector.data import Batches
from promerge_fo.detector.heads import build
from promerge_fo.detector.job import FINAL, Job
from promerge_fo.detector.logs import Pictures, ProgressLine, write_losses
from promerge_fo.detector.losses import LOSSES, cut_losses
from promerge_fo.detector.weights import load_backbone, load_detector, read_detector
from promerge_fo.progress import Bar, progress_bar

__all__ = ["run"]


def run(job: Job) -> None:
    """Train from the last checkpoint, or from the start.

    Raises:
        FloatingPointError: the loss became infinite.
    """
    config, main = job.config, comm.is_main_process()
    rank, processes = comm.get_rank(), comm.get_world_size()
    annotations = read_annotations(job.labels, job.root, job.classes)
    batches = Batches(annotations, config, rank, processes)
    layout = Layout(classes=len(annotations.categories))
    cfg = detectron2_config(config, job.device, layout, processes)
    torch.manual_seed(config.seed)
    network = build(cfg)
    optimizer = build_optimizer(cfg, network)
    device_ids = [comm.get_local_rank()] if job.device == "cuda" else None
    model = create_ddp_model(network, broadcast_buffers=False, device_ids=device_ids)
    kind = AMPTrainer if _can_halve(job) else SimpleTrainer
    trainer = kind(model, None, optimizer)

    checkpointer = SafeCheckpointer(network, str(job.place), trainer=trainer)
    checkpointer.categories = annotations.categories
    made: list[Any] = [
        hooks.CallbackHook(before_step=partial(_key_randomness, config.seed)),
        hooks.IterationTimer(warmup_iter=0),
        hooks.LRScheduler(optimizer, build_lr_scheduler(cfg, optimizer)),
    ]
    if main:
        # before checkpoints: no iteration is in a checkpoint that is not in the file
        made.append(hooks.CallbackHook(after_step=partial(write_losses, job.place / LOSSES)))
        made.append(ProgressLine(config.batch_size, job.say))
    if config.precise_norm:
        # before the last checkpoint: batch normalisation takes its true statistics
        after = range(config.iterations, config.iterations + config.precise_norm)
        loader = _loader(batches, after, job.workers)
        made.append(hooks.PreciseBN(0, model, loader, config.precise_norm))
    if main:
        made.append(hooks.PeriodicCheckpointer(checkpointer, job.checkpoint_every, max_to_keep=2))
    trainer.register_hooks(made)
    start = 0
    if checkpointer.has_checkpoint():
        last = checkpointer.get_checkpoint_file()
        checkpointer.load(last)
        start = trainer.iter + 1
        if start == config.iterations:  # killed while the very last file was written
            checkpointer.save(Path(FINAL).stem)
            return
    elif job.start is not None and job.whole:
        load_detector(network, read_detector(job.start).state, job.start)
    elif job.start is not None:
        load_backbone(network, job.start)
    if main:
        if said := annotations.said():
            job.say(said)
        if start:
            job.say(f"going on at iteration {start:,}")
            _keep_only(Path(last))
        cut_losses(job.place / LOSSES, start)
        writer = TensorboardXWriter(str(job.place), purge_step=start)
        looks = Pictures(network, annotations, config, job.pictures_every)
        trainer.register_hooks([looks, hooks.PeriodicWriter([writer], period=20)])
    trainer.data_loader = _loader(batches, range(start, config.iterations), job.workers)
    with progress_bar(job.progress, config.iterations - start, "iterations") as bar:
        # the last hook of an iteration: what there is then is complete, and is kept
        trainer.register_hooks([hooks.CallbackHook(after_step=partial(_move, bar, checkpointer))])
        trainer.train(start, config.iterations)


def _move(bar: Bar, checkpointer: SafeCheckpointer, trainer: Any) -> None:
    """Move the bar; where it ends the training, keep a checkpoint of this iteration."""
    try:
        bar.update(1)
    except KeyboardInterrupt:
        if trainer.iter + 1 < trainer.max_iter:
            checkpointer.save(f"model_{trainer.iter:07d}", iteration=trainer.iter)
        raise


def _keep_only(last: Path) -> None:
    """Remove other checkpoints, which detectron2 has forgotten since it was stopped."""
    for path in last.parent.glob("model_[0-9]*.pth*"):  # also one that is half written
        if path != last:
            path.unlink()


def _loader(batches: Batches, numbers: range, workers: int) -> Any:
    """These batches, in this order, made ahead by so many processes.

    A loader draws a seed where its first batch is asked for, which is another iteration after a
    kill: it has a generator of its own, so that torch's stays as it was keyed.
    """
    return torch.utils.data.DataLoader(
        batches,  # type: ignore[arg-type]  # it has no length
        sampler=numbers,
        batch_size=None,
        num_workers=workers,
        generator=torch.Generator(),
    )


def _can_halve(job: Job) -> bool:
    """Whether to train in half precision: wanted, and on a GPU with units for it."""
    if not job.config.mixed_precision or job.device != "cuda":
        return False
    return torch.cuda.get_device_capability() >= (7, 0)


def _key_randomness(seed: int, trainer: Any) -> None:
    """Seed torch by the iteration, so that what it draws is the same after a kill.

    detectron2 draws the regions to train on from torch's generator.
    """
    key = np.random.SeedSequence((seed, trainer.iter, comm.get_rank()))
    torch.manual_seed(int(key.generate_state(1)[0]))
