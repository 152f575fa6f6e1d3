"""What a training writes while it runs: losses, pictures for TensorBoard, a line of progress.

Importing this module imports detectron2.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from detectron2.engine import HookBase
from numpy.typing import NDArray

from promerge_fo.detector.annotations import Annotations
from promerge_fo.detector.config import DetectorConfig
from promerge_fo.detector.data import resized, target_size
from promerge_fo.detector.prediction import detect
from promerge_fo.figures import draw_masks
from promerge_fo.images import ImageError, load_image
from promerge_fo.words import duration

__all__ = ["Bar", "LossFile", "Pictures", "ProgressLine"]


class LossFile(HookBase):  # type: ignore[misc]
    """Writes the losses of every iteration, unsmoothed.

    Args:
        path: of the file, which grows.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def before_train(self) -> None:
        """Open the file."""
        self._file = self._path.open("a", buffering=1)  # a line that is written outlives a kill

    def after_step(self) -> None:
        """Write this iteration's line."""
        assert self._file is not None
        iteration = self.trainer.iter
        line: dict[str, float] = {"iteration": iteration}
        for name, (value, when) in self.trainer.storage.latest().items():
            if when == iteration and (name == "lr" or "loss" in name):
                line[name] = float(value)
        self._file.write(json.dumps(line) + "\n")

    def after_train(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


class ProgressLine(HookBase):  # type: ignore[misc]
    """Says now and then how far the training is, how fast, and how long it will take.

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
        self._losses: list[float] = []
        self._since = 0.0

    def before_train(self) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    def after_step(self) -> None:
        """Say it, if it is time."""
        trainer = self.trainer
        self._losses.append(trainer.storage.latest()["total_loss"][0])
        seconds = time.perf_counter() - self._since
        done, last = trainer.iter + 1, trainer.iter + 1 == trainer.max_iter
        if seconds < self._every and not last:
            return
        rate = len(self._losses) / seconds
        self._say(
            f"iteration {done:,} of {trainer.max_iter:,}  "
            f"loss {np.mean(self._losses):.3f}  "
            f"lr {trainer.storage.latest()['lr'][0]:.2g}  "
            f"{rate * self._batch_size:.1f} images/s  "
            + ("done" if last else f"{duration((trainer.max_iter - done) / rate)} left")
        )
        self._losses.clear()
        self._since = time.perf_counter()


class Bar(HookBase):  # type: ignore[misc]
    """Moves a bar, and ends the training where that wants it to end.

    The last hook of an iteration: what there is then is whole, and is kept.

    Args:
        progress: given the number of iterations to do, makes a bar with ``update(n)``, which may
            raise KeyboardInterrupt, and ``close()``.
        keep: saves a checkpoint of the iteration that it is given.
    """

    def __init__(self, progress: Callable[[int], Any], keep: Callable[[int], Any]) -> None:
        self._progress = progress
        self._keep = keep
        self._bar: Any = None

    def before_train(self) -> None:
        """Make the bar."""
        self._bar = self._progress(self.trainer.max_iter - self.trainer.start_iter)

    def after_step(self) -> None:
        """Move it."""
        try:
            self._bar.update(1)
        except KeyboardInterrupt:
            if self.trainer.iter + 1 < self.trainer.max_iter:
                self._keep(self.trainer.iter)
            raise

    def after_train(self) -> None:
        """Put it away."""
        self._bar.close()


class Pictures(HookBase):  # type: ignore[misc]
    """Shows TensorBoard what the detector finds on some of the images: labels left, finds right.

    Args:
        model: the detector.
        annotations: images and labels.
        config: of the training.
        every: iterations between two looks; there is one at the end.
        images: how many images; they are spread over the data.
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
        """Look, if it is time."""
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
        """(3, H, W) uint8: an image with its labels, and with what is found."""
        image = load_image(self._annotations.path(index))
        size = target_size(image.shape[:2], self.SIDE, 2 * self.SIDE)
        image, masks = resized(image, size), self._annotations.masks(index)
        found = detect(self._model, [image], self._config)[0].pred_masks[: self.BEST].numpy()
        rows, columns = (
            (np.arange(new) * old // new) for new, old in zip(size, masks.shape[1:], strict=True)
        )
        labels = masks[:, rows[:, None], columns]
        halves = [draw_masks(image, labels), draw_masks(image, found)]
        return np.concatenate(halves, axis=1).transpose(2, 0, 1)
