"""The losses of a training, read from the file that it writes."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from promerge_fo.detector.config import DetectorConfig
from promerge_fo.detector.job import FINAL, RECORD
from promerge_fo.files import whole_file

__all__ = ["LOSSES", "Losses", "cut_losses", "read_losses"]

LOSSES = "losses.jsonl"
"""The file with a line of JSON for each iteration: its number, losses and learning rate."""


@dataclass(frozen=True)
class Losses:
    """The losses of one round, up to the iteration that it has reached.

    Attributes:
        iterations: (n,) float64, numbers from 0, ascending; means of these where they are thinned.
        values: by name, (n,) float64: ``total_loss``, its parts (``loss_mask``, ...) and ``lr``;
            NaN where a line lacks one.
        wanted: iterations that the round has in all.
        finished: whether the round has ended with a detector.
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
        record = json.loads((root / RECORD).read_text(encoding="utf-8"))
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
    names = list(lines[0]) if lines else ["iteration"]
    values = {
        name: np.array([line.get(name, np.nan) for line in lines], dtype=np.float64)
        for name in names
    }
    return Losses(values.pop("iteration"), values, wanted, finished)


def _whole_lines(path: Path) -> list[dict[str, float]]:
    """What the lines say; a last line that was cut off, or is being written, is left out."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(dict(json.loads(line)))
        except ValueError:
            break
    return lines


def cut_losses(path: Path, iteration: int) -> None:
    """Remove the lines of iterations that will be trained again.

    Args:
        path: a file of losses; it need not be there.
        iteration: the first that will be trained again. A last line that was cut off goes, too.
    """
    if not path.is_file():
        return
    kept = [line for line in _whole_lines(path) if line["iteration"] < iteration]
    with whole_file(path, "w") as file:
        file.writelines(json.dumps(line) + "\n" for line in kept)
