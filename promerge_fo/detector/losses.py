"""The losses of a training, as it writes them and as they are read."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from promerge_fo.detector.config import DetectorConfig
from promerge_fo.detector.job import FINAL, RECORD

__all__ = ["LOSSES", "Losses", "cut_losses", "read_losses"]

LOSSES = "losses.jsonl"
"""The file with a line of JSON for each iteration: its number, losses and learning rate."""


@dataclass(frozen=True)
class Losses:
    """The losses of one round, as far as it is.

    Attributes:
        iterations: (n,) float64, numbers from 0, ascending; means of these where they are thinned.
        values: by name, (n,) float64: ``total_loss``, its parts (``loss_mask``, ...) and ``lr``;
            NaN where a line lacks one.
        wanted: iterations of the whole round.
        finished: whether the detector is there.
    """

    iterations: NDArray[np.float64]
    values: dict[str, NDArray[np.float64]]
    wanted: int
    finished: bool

    def thinned(self, points: int) -> Losses:
        """Means of consecutive iterations, at most so many."""
        n = len(self.iterations)
        if n <= points:
            return self
        starts = np.linspace(0, n, points + 1).astype(np.int64)[:-1]
        counts = np.diff(np.append(starts, n))

        def means(values: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.asarray(np.add.reduceat(values, starts) / counts)

        values = {name: means(each) for name, each in self.values.items()}
        return Losses(means(self.iterations), values, self.wanted, self.finished)

    def __str__(self) -> str:
        done, total = len(self.iterations), self.values.get("total_loss")
        text = f"{done:,} of {self.wanted:,} iterations"
        if total is None:
            return text
        tenth = max(1, done // 10)
        return (
            f"{text}, loss {total[:tenth].mean():.2f} in the first tenth and "
            f"{total[-tenth:].mean():.2f} in the last"
        )


def read_losses(folder: str | os.PathLike[str]) -> dict[int, Losses]:
    """The losses of a training, under way or done; detectron2 is not needed.

    Args:
        folder: what :func:`~promerge_fo.detector.train` was given as output.

    Returns:
        By the rounds' numbers; those that have begun.

    Raises:
        FileNotFoundError: there is no training.
    """
    root = Path(folder).expanduser()
    try:
        record = json.loads((root / RECORD).read_text())
        wanted = DetectorConfig.from_dict(record["config"]).iterations
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileNotFoundError(
            f"{root} holds no training (there is no {RECORD} that can be read); give the folder "
            "that promerge train was given as --output"
        ) from error
    rounds = {}
    for path in root.glob(f"round*/{LOSSES}"):
        finished = (path.parent / FINAL).is_file()
        rounds[int(path.parent.name.removeprefix("round"))] = _read(path, wanted, finished)
    return dict(sorted(rounds.items()))


def _read(path: Path, wanted: int, finished: bool) -> Losses:
    lines = _whole_lines(path)
    names = [name for name in lines[0] if name != "iteration"] if lines else []
    columns = ("iteration", *names)
    table = np.array([[line.get(n, np.nan) for n in columns] for line in lines], dtype=np.float64)
    if not lines:
        return Losses(np.zeros(0), {}, wanted, finished)
    return Losses(table[:, 0], dict(zip(names, table[:, 1:].T, strict=True)), wanted, finished)


def _whole_lines(path: Path) -> list[dict[str, float]]:
    """What the lines say; a last line that was cut off, or is being written, is left out."""
    lines = []
    for line in path.read_text().splitlines():
        try:
            lines.append(dict(json.loads(line)))
        except ValueError:
            break
    return lines


def cut_losses(path: Path, iteration: int) -> None:
    """Take out of a file of losses what will be trained again.

    Args:
        path: the file; it need not be there.
        iteration: the first that will be trained again. A last line that was cut off goes, too.
    """
    if not path.is_file():
        return
    kept = [line for line in _whole_lines(path) if line["iteration"] < iteration]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
    partial.replace(path)
