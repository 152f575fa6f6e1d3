"""One round of training, in one of its processes.

Importing this module imports detectron2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.engine import AMPTrainer, HookBase, SimpleTrainer, create_ddp_model, hooks
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.utils import comm
from detectron2.utils.events import TensorboardXWriter

from promerge_fo.detector.annotations import read_annotations
from promerge_fo.detector.checkpoints import SafeCheckpointer
from promerge_fo.detector.config import DetectorConfig, detectron2_config
from promerge_fo.detector.data import Batches
from promerge_fo.detector.job import FINAL, Job
from promerge_fo.detector.logs import Bar, LossFile, Pictures, ProgressLine
from promerge_fo.detector.losses import LOSSES, cut_losses
from promerge_fo.detector.network import build
from promerge_fo.detector.weights import load_backbone, load_detector, read_detector

__all__ = ["run"]


def run(job: Job) -> None:
    """Train from the last checkpoint, or from the start.

    Raises:
        FloatingPointError: the loss became infinite.
    """
    config = job.config
    rank, processes = comm.get_rank(), comm.get_world_size()
    annotations = read_annotations(job.labels, job.root)
    batches = Batches(annotations, config, rank, processes)
    cfg = detectron2_config(config, job.device, processes=processes)
    torch.manual_seed(config.seed)
    network = build(cfg)
    optimizer = build_optimizer(cfg, network)
    model = create_ddp_model(network, broadcast_buffers=False, device_ids=_device_ids(job.device))
    kind = AMPTrainer if _can_halve(job) else SimpleTrainer
    trainer = kind(model, None, optimizer)

    checkpointer = SafeCheckpointer(network, str(job.place), trainer=trainer)
    made: list[Any] = [
        _KeyedRandomness(config.seed),
        hooks.IterationTimer(warmup_iter=0),
        hooks.LRScheduler(optimizer, build_lr_scheduler(cfg, optimizer)),
    ]
    if comm.is_main_process():
        # before checkpoints: no iteration is in a checkpoint that is not in the file
        made += [LossFile(job.place / LOSSES), ProgressLine(config.batch_size, job.say)]
    made.append(_precise_norm(model, batches, config, job.workers))
    if comm.is_main_process():
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
        load_detector(network, read_detector(job.start), job.start)
    elif job.start is not None:
        load_backbone(network, job.start)
    if comm.is_main_process():
        if start:
            job.say(f"going on at iteration {start:,}")
            _keep_only(Path(last))
        cut_losses(job.place / LOSSES, start)
        writer = TensorboardXWriter(str(job.place), purge_step=start)
        trainer.register_hooks(
            [
                Pictures(network, annotations, config, job.pictures_every),
                hooks.PeriodicWriter([writer], period=20),
            ]
        )
    if job.progress is not None:
        trainer.register_hooks(
            [Bar(job.progress, lambda k: checkpointer.save(f"model_{k:07d}", iteration=k))]
        )
    trainer.data_loader = _loader(batches, range(start, config.iterations), job.workers)
    trainer.train(start, config.iterations)


def _keep_only(last: Path) -> None:
    """Remove other checkpoints, which detectron2 has forgotten since it was stopped."""
    for path in last.parent.glob("model_[0-9]*.pth"):
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
        collate_fn=_as_it_is,
        generator=torch.Generator(),
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def _device_ids(device: str) -> list[int] | None:
    return [comm.get_local_rank()] if device == "cuda" else None


def _can_halve(job: Job) -> bool:
    """Whether to train in half precision: wanted, and on a GPU with units for it."""
    if not job.config.mixed_precision or job.device != "cuda":
        return False
    return torch.cuda.get_device_capability() >= (7, 0)


def _precise_norm(model: Any, batches: Batches, config: DetectorConfig, workers: int) -> Any:
    """The hook that, before the last checkpoint, takes batch normalisation's true statistics."""
    if not config.precise_norm:
        return None
    after = range(config.iterations, config.iterations + config.precise_norm)
    return hooks.PreciseBN(0, model, _loader(batches, after, workers), config.precise_norm)


class _KeyedRandomness(HookBase):  # type: ignore[misc]
    """Seeds torch by the iteration, so that what it draws is the same after a kill.

    detectron2 draws the regions to train on from torch's generator.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def before_step(self) -> None:
        """Seed it."""
        key = np.random.SeedSequence((self._seed, self.trainer.iter, comm.get_rank()))
        torch.manual_seed(int(key.generate_state(1)[0]))
