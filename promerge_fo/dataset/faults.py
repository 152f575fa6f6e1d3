"""Labels that cannot be used: what is wrong with them, and how they are counted and named."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import NamedTuple

from promerge_fo.annotations.untrusted_masks import EntryError

__all__ = ["FAULTS", "Fault", "Faults", "check_label", "four_numbers"]

logger = logging.getLogger("fiftyone.promerge")

FAULTS = ("bad_box", "bad_confidence", "bad_mask", "lost_mask")
"""What may be wrong with a label."""

_NAMED = 10  # labels in the log
_LISTED = 100  # labels in a report
_FARTHEST = 10  # images: how far a box may reach


class Fault(NamedTuple):
    """A label that cannot be used.

    Attributes:
        what: one of :data:`FAULTS`.
        where: the label: its image's path, and its id.
        reason: what is wrong.
    """

    what: str
    where: str
    reason: str


class Faults:
    """Labels that cannot be used, in constant memory: counted by reason, and some of them named.

    Attributes:
        counts: their numbers, by what is wrong.
        problems: one line for each of the first 100, with its image, its id and the reason.
    """

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self.problems: list[str] = []

    def add(self, faults: Sequence[Fault]) -> None:
        """Count and name labels."""
        self.counts.update(fault.what for fault in faults)
        room = _LISTED - len(self.problems)
        self.problems += [f"{fault.where}: {fault.reason}" for fault in faults[:room]]

    def warn(self) -> None:
        """Say in the log which labels are left out, if any."""
        if total := self.counts.total():
            more = f"\n  and {total - _NAMED} more" if total > _NAMED else ""
            logger.warning(
                "%d labels cannot be used and are left out:\n  %s%s",
                total, "\n  ".join(self.problems[:_NAMED]), more,
            )  # fmt: skip


def check_label(box: object, confidence: object) -> None:
    """Check a label's box and confidence, as the database stores them.

    Args:
        box: relative x, y, width and height.
        confidence: a number, or None.

    Raises:
        EntryError: the confidence is neither None nor a finite number; or the box is not four
            finite numbers, has no size, or lies outside of the image. ``what`` is one of
            :data:`FAULTS`.
    """
    if confidence is not None and not _is_finite(confidence):
        raise EntryError(
            "bad_confidence", f"its confidence is {confidence!r:.40}, and no finite number"
        )
    x, y, w, h = four_numbers(box)
    box = [x, y, w, h]
    if w <= 0 or h <= 0:
        raise EntryError("bad_box", f"its box {box} has no size")
    if not (x < 1 and y < 1 and x + w > 0 and y + h > 0) or max(map(abs, box)) > _FARTHEST:
        raise EntryError(
            "bad_box", f"its box {box} lies outside of its image, whose corners are 0, 0 and 1, 1"
        )


def four_numbers(box: object) -> tuple[float, float, float, float]:
    """The numbers of a box, x, y, width and height.

    Raises:
        EntryError: it is not four finite numbers.
    """
    numbers = list(box) if isinstance(box, Iterable) else []
    if len(numbers) != 4 or not all(map(_is_finite, numbers)):
        found = f"its box is {box!r:.80}" if numbers else "it has no box"
        raise EntryError("bad_box", f"{found}, and needs four finite numbers: x, y, width, height")
    x, y, w, h = numbers
    return x, y, w, h


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
