"""Which masks of a field become pseudo-labels, and which images go into which split."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from promerge_fo.dataset.stored_labels import StoredLabel, annotation_of

__all__ = ["LEFT_OUT", "REVIEWS", "Review", "Selection", "Split", "split_by_tags", "split_randomly"]

Review = Literal["accepted", "not_rejected"]
REVIEWS: tuple[Review, ...] = get_args(Review)

LEFT_OUT = ("untagged", "unreviewed", "low_score", "too_small", "beyond_limit")
"""Why a mask is left out, in the order in which it is asked."""


@dataclass(frozen=True)
class Selection:
    """Which masks to take.

    Attributes:
        min_area: the smallest, as a share of the image, 0 to 1.
        tags: only labels with one of these label tags; None asks for none.
        min_score: the lowest confidence, 0 to 1; a label without one counts as 1.
        review: by the labels' attribute ``review``: ``"accepted"`` takes those alone,
            ``"not_rejected"`` also undecided ones; None does not ask.
        max_per_image: of what is left, at most so many of an image, by confidence.

    Raises:
        ValueError: a value out of its range, with the range.
    """

    min_area: float = 0.05
    tags: tuple[str, ...] | None = None
    min_score: float | None = None
    review: Review | None = None
    max_per_image: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.min_area <= 1:
            raise ValueError(
                f"min_area is {self.min_area}, but must lie in [0, 1]: a share of the image"
            )
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score is {self.min_score}, but must lie in [0, 1]")
        if self.review is not None and self.review not in REVIEWS:
            known = ", ".join(map(repr, REVIEWS))
            raise ValueError(f"review is {self.review!r}, but must be one of {known}, or None")
        if self.max_per_image is not None and self.max_per_image < 1:
            raise ValueError(f"max_per_image is {self.max_per_image}, but must be at least 1")

    def settings(self) -> dict[str, Any]:
        """What was asked for, as JSON can hold it."""
        return asdict(self)

    def choose(
        self, labels: Sequence[StoredLabel], size: tuple[int, int]
    ) -> tuple[list[tuple[StoredLabel, dict[str, Any]]], Counter[str]]:
        """The wanted labels of one image.

        Args:
            labels: all that it has.
            size: (height, width) of the image in pixels.

        Returns:
            The labels, in stored order, with what
            :func:`~promerge_fo.dataset.stored_labels.annotation_of` says of them; and how many were
            left out, by the names of ``LEFT_OUT``.

        Raises:
            ValueError, FileNotFoundError: as :func:`promerge_fo.dataset.mask_of`.
        """
        chosen, left_out = [], Counter[str]()
        for label in labels:
            reason = self._refuses(label)
            if reason is not None:
                left_out[reason] += 1
                continue
            record = annotation_of(label, size)
            if record is None or record["area"] < self.min_area * size[0] * size[1]:
                left_out["too_small"] += 1
                continue
            chosen.append((label, record))
        if self.max_per_image is not None and len(chosen) > self.max_per_image:
            scores = np.array([_score(label) for label, _ in chosen])
            best = np.argsort(-scores, kind="stable")[: self.max_per_image]
            left_out["beyond_limit"] = len(chosen) - len(best)
            chosen = [chosen[i] for i in np.sort(best)]
        return chosen, left_out

    def _refuses(self, label: StoredLabel) -> str | None:
        """Why a label is left out without a look at its mask; None where it is not."""
        if self.tags is not None and not set(self.tags) & set(label.tags):
            return "untagged"
        if self.review == "accepted" and label.review != "accepted":
            return "unreviewed"
        if self.review == "not_rejected" and label.review == "rejected":
            return "unreviewed"
        if self.min_score is not None and _score(label) < self.min_score:
            return "low_score"
        return None


def _score(label: StoredLabel) -> float:
    return 1.0 if label.confidence is None else float(label.confidence)


@dataclass(frozen=True)
class Split:
    """Which images go where.

    Attributes:
        names: of the splits.
        of: (n,) int8, for each image the index of its split; -1 for none.
    """

    names: tuple[str, ...]
    of: NDArray[np.int8]


def split_randomly(names: Sequence[str], val_fraction: float, seed: int) -> Split:
    """Draw a share of the images for validation.

    What is drawn depends on the seed and the images' names alone, not on their order or labels:
    another export of the same images is split in the same way.

    Args:
        names: of the images, below the folder that they all lie in.
        val_fraction: the share for validation, in (0, 1); rounded to whole images.
        seed: any integer.

    Returns:
        "train" and "val".

    Raises:
        ValueError: a fraction out of its range, or one that leaves a split without an image.
    """
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction is {val_fraction}, but must lie between 0 and 1")
    count = round(val_fraction * len(names))
    if not 0 < count < len(names):
        raise ValueError(
            f"val_fraction is {val_fraction}: of {len(names)} images, that leaves none for "
            f"{'validation' if count == 0 else 'training'}; take more images, or another fraction"
        )
    digests = b"".join(
        hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest() for name in names
    )
    order = np.argsort(np.frombuffer(digests, dtype=np.uint64), kind="stable")
    of = np.zeros(len(names), dtype=np.int8)
    of[order[:count]] = 1
    return Split(("train", "val"), of)


def split_by_tags(
    names: Sequence[str], tags: Sequence[Collection[str]], wanted: Sequence[str]
) -> Split:
    """One split for each of some sample tags; images with none of them go nowhere.

    Args:
        names: of the images, for messages.
        tags: of each image.
        wanted: the tags, which also name the splits' files.

    Raises:
        ValueError: tags that cannot name a file or that no image has, or images with two of them.
    """
    if isinstance(wanted, str) or len(set(wanted)) != len(wanted) or not wanted:
        raise ValueError(f"split_tags is {wanted!r}, but must be different tags, as a list")
    unfit = [tag for tag in wanted if not re.fullmatch(r"\w[\w.-]*", tag)]
    if unfit:
        raise ValueError(f"the tag {unfit[0]!r} cannot name a file; use letters, digits, _ . and -")
    of = np.full(len(tags), -1, dtype=np.int8)
    for i, (name, given) in enumerate(zip(names, tags, strict=True)):
        found = [k for k, tag in enumerate(wanted) if tag in given]
        if len(found) > 1:
            both = " and ".join(repr(wanted[k]) for k in found)
            raise ValueError(f"{name} has the tags {both}; an image can go into one split alone")
        if found:
            of[i] = found[0]
    for k, tag in enumerate(wanted):
        if not (of == k).any():
            raise ValueError(f"no image has the sample tag {tag!r}")
    return Split(tuple(wanted), of)
