"""Choose the masks that become pseudo-labels, and the split that each image goes to."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from promerge_fo.annotations.untrusted_masks import EntryError
from promerge_fo.dataset.exchange.categories import Categories
from promerge_fo.dataset.faults import FAULTS, Fault, check_label
from promerge_fo.dataset.stored_labels import StoredLabel, annotation_of

__all__ = [
    "LEFT_OUT",
    "REVIEWS",
    "Chosen",
    "Review",
    "Selection",
    "Split",
    "split_by_tags",
    "split_randomly",
]

Review = Literal["not_rejected", "accepted", "all"]
REVIEWS: tuple[Review, ...] = get_args(Review)

LEFT_OUT = (
    "untagged", "unreviewed", "unlisted", *FAULTS, "low_score", "too_small", "beyond_limit",
    "scattered",
)  # fmt: skip
"""The reasons to leave out a mask, in the order in which they are checked."""


@dataclass
class Chosen:
    """The labels of an image that are exported, and what is left out.

    Attributes:
        labels: the chosen labels, in stored order, each with its annotation from
            :func:`~promerge_fo.dataset.stored_labels.annotation_of`.
        counts: the numbers of the others, by the reasons of ``LEFT_OUT``, and of what the
            file cannot show.
        unlisted: the numbers of labels whose names are no category, by their names.
        faults: the labels that cannot be used.
    """

    labels: list[tuple[StoredLabel, dict[str, Any]]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    unlisted: Counter[str] = field(default_factory=Counter)
    faults: list[Fault] = field(default_factory=list)


@dataclass(frozen=True)
class Selection:
    """The rules by which masks are chosen.

    Attributes:
        min_area: the smallest area of a mask, as a share of the image, in [0, 1].
        tags: choose only labels with at least one of these label tags; None ignores tags.
        min_score: the lowest confidence, in [0, 1]; a label without confidence counts as 1.
        review: choose by the label attribute ``review``: ``"not_rejected"`` chooses accepted and
            undecided labels, ``"accepted"`` accepted ones only; ``"all"`` ignores it.
        max_per_image: of the masks that are left, choose at most this many per image, those with
            the highest confidence.

    Raises:
        ValueError: a value is out of its range.
    """

    min_area: float = 0.05
    tags: tuple[str, ...] | None = None
    min_score: float | None = None
    review: Review = "not_rejected"
    max_per_image: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.min_area <= 1:
            raise ValueError(
                f"min_area is {self.min_area}, but must lie in [0, 1]: a share of the image"
            )
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score is {self.min_score}, but must lie in [0, 1]")
        if self.review not in REVIEWS:
            known = ", ".join(map(repr, REVIEWS))
            raise ValueError(f"review is {self.review!r}, but must be one of {known}")
        if self.max_per_image is not None and self.max_per_image < 1:
            raise ValueError(f"max_per_image is {self.max_per_image}, but must be at least 1")

    def settings(self) -> dict[str, Any]:
        """The rules as a dictionary that can be written as JSON."""
        return asdict(self)

    def choose(
        self,
        path: str,
        labels: Sequence[StoredLabel],
        size: tuple[int, int],
        categories: Categories,
    ) -> Chosen:
        """Choose labels of one image.

        Args:
            path: the image's path, to name it.
            labels: all labels of the image.
            size: (height, width) of the image in pixels.
            categories: the names that are exported.
        """
        chosen = Chosen()
        for label in labels:
            reason = self._reason_against(label)
            if reason is None and categories.of(label.label) is None:
                chosen.unlisted[str(label.label)] += 1
                reason = "unlisted"
            if reason is not None:
                chosen.counts[reason] += 1
                continue
            try:
                check_label(label.bounding_box, label.confidence)
                if self.min_score is not None and _score(label) < self.min_score:
                    chosen.counts["low_score"] += 1
                    continue
                record = annotation_of(label, size)
            except EntryError as error:
                chosen.counts[error.what] += 1
                chosen.faults.append(label.fault(path, error))
                continue
            if record is None or record["area"] < self.min_area * size[0] * size[1]:
                chosen.counts["too_small"] += 1
                continue
            chosen.labels.append((label, record))
        if self.max_per_image is not None and len(chosen.labels) > self.max_per_image:
            scores = np.array([_score(label) for label, _ in chosen.labels])
            best = np.argsort(-scores, kind="stable")[: self.max_per_image]
            chosen.counts["beyond_limit"] = len(chosen.labels) - len(best)
            chosen.labels = [chosen.labels[i] for i in np.sort(best)]
        return chosen

    def _reason_against(self, label: StoredLabel) -> str | None:
        """The reason to leave out a label, as far as its tags and its review say, or None."""
        if self.tags is not None and not set(self.tags) & set(label.tags):
            return "untagged"
        if self.review == "accepted" and label.review != "accepted":
            return "unreviewed"
        if self.review == "not_rejected" and label.review == "rejected":
            return "unreviewed"
        return None


def _score(label: StoredLabel) -> float:
    return 1.0 if label.confidence is None else float(label.confidence)


@dataclass(frozen=True)
class Split:
    """The split that each image goes to.

    Attributes:
        names: the names of the splits.
        of: (n,) int8, the index of each image's split; -1 for an image that is in no split.
    """

    names: tuple[str, ...]
    of: NDArray[np.int8]


def split_randomly(names: Sequence[str], val_fraction: float, seed: int) -> Split:
    """Draw a share of the images for validation at random.

    The draw depends only on the seed and the names of the images, not on their order or labels, so
    another export of the same images is split in the same way.

    Args:
        names: the paths of the images, relative to the folder that contains all of them.
        val_fraction: the share for validation, in (0, 1); rounded to whole images.
        seed: any integer.

    Returns:
        The splits "train" and "val".

    Raises:
        ValueError: the fraction is out of its range, or leaves a split without images.
    """
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction is {val_fraction}, but must lie between 0 and 1")
    count = round(val_fraction * len(names))
    if not 0 < count < len(names):
        raise ValueError(
            f"val_fraction is {val_fraction}: of {len(names)} images, that leaves none for "
            f"{'validation' if count == 0 else 'training'}; give more images or another fraction"
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
    """Make one split for each of these sample tags; images with none of the tags are in no split.

    Args:
        names: the names of the images, for messages.
        tags: the tags of each image.
        wanted: the tags to split by; each also names the file of its split.

    Raises:
        ValueError: a tag is given twice, cannot name a file, or is on no image; or an image has two
            of the tags.
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
            raise ValueError(
                f"{name} has the tags {both}, but an image can go into only one split; remove one "
                "of the tags"
            )
        if found:
            of[i] = found[0]
    for k, tag in enumerate(wanted):
        if not (of == k).any():
            raise ValueError(f"no image has the sample tag {tag!r}; give tags that images have")
    return Split(tuple(wanted), of)
