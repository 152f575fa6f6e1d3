"""What a training writes while it runs: losses, images for TensorBoard, a line of progress.

Importing this module imports detectron2.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.engine import HookBase
from numpy.typing import NDArray

from promerge_fo.detector.annotations import Annotations
from promerge_fo.detector.config import DetectorConfig
from promerge_fo.detector.data import resized, resized_masks, target_size
from promerge_fo.detector.prediction import detect
from promerge_fo.figures import draw_masks
from promerge_fo.images import ImageError, load_image
from promerge_fo.words import duration

__all__ = ["Pictures", "ProgressLine", "write_losses"]


def write_losses(path: Path, trainer: Any) -> None:
    """Add a line with the losses of this iteration, unsmoothed, to a file.

    The file is opened for each line, so that a line that is written outlives a kill.
    """
    line: dict[str, float | None] = {"iteration": trainer.iter}
    for name, (value, when) in trainer.storage.latest().items():
        if when == trainer.iter and (name == "lr" or "loss" in name):
            line[name] = float(value) if math.isfinite(value) else None  # JSON has no NaN
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, allow_nan=False) + "\n")


class ProgressLine(HookBase):  # type: ignore[misc]
    """Prints now and then how far the training is, how fast, and how long it will take.

    Args:
        batch_size: images of an iteration.
        say: takes a line of text.
        every: seconds between two lines.
    """

    def __init__(
        self, batch_size: int, say: Callable[[str], Any] = print, every: float = 10.0
    ) -> None:
        self._batch_size = batch_size
        self._say = say
        self._every = every
        self._since, self._steps = 0.0, 0  # of the last line

    def before_train(self) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    def after_step(self) -> None:
        """Print a line, if it is time."""
        trainer, storage = self.trainer, self.trainer.storage
        self._steps += 1
        seconds = time.perf_counter() - self._since
        done, last = trainer.iter + 1, trainer.iter + 1 == trainer.max_iter
        if seconds < self._every and not last:
            return
        rate = self._steps / seconds
        self._say(
            f"iteration {done:,} of {trainer.max_iter:,}  "
            f"loss {storage.history('total_loss').avg(self._steps):.3f}  "
            f"lr {storage.latest()['lr'][0]:.2g}  "
            f"{rate * self._batch_size:.1f} images/s  "
            + ("done" if last else f"{duration((trainer.max_iter - done) / rate)} left")
        )
        self._since, self._steps = time.perf_counter(), 0


class Pictures(HookBase):  # type: ignore[misc]
    """Shows TensorBoard some of the images: with their labels left, with predictions right.

    Args:
        model: the detector.
        annotations: images and labels.
        config: of the training.
        every: iterations between two writings; there is one at the end.
        images: how many images; they are spread evenly over the data.
    """

    SIDE = 400  #: pixels of a picture's shorter side
    BEST = 10  #: predictions that are drawn

    def __init__(
        self,
        model: Any,
        annotations: Annotations,
        config: DetectorConfig,
        every: int,
        images: int = 4,
    ) -> None:
        self._model = model
        self._annotations = annotations
        self._config = config
        self._every = every
        labelled = annotations.with_masks()
        places = np.linspace(0, len(labelled) - 1, min(images, len(labelled))).astype(np.int64)
        self._indices: Sequence[int] = labelled[places].tolist()

    def after_step(self) -> None:
        """Write the images, if it is time."""
        done = self.trainer.iter + 1
        if done % self._every and done != self.trainer.max_iter:
            return
        self._model.eval()
        try:
            for place, index in enumerate(self._indices):
                try:
                    picture = self._draw(index)
                except ImageError:
                    continue  # batches pass over it, too, and say so
                self.trainer.storage.put_image(f"labels, predictions/{place}", picture)
        finally:
            self._model.train()

    def _draw(self, index: int) -> NDArray[np.uint8]:
        """(3, H, W) uint8: an image with its labels, and beside it with what is found."""
        image = load_image(self._annotations.path(index))
        size = target_size(image.shape[:2], self.SIDE, 2 * self.SIDE)
        image, labels = resized(image, size), resized_masks(self._annotations.masks(index), size)
        found = detect(self._model, [image], self._config)[0].pred_masks[: self.BEST].numpy()
        halves = [draw_masks(image, labels), draw_masks(image, found)]
        return np.concatenate(halves, axis=1).transpose(2, 0, 1)
