"""The categories of an export: which names of labels become which."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from promerge_fo.dataset.labels import LABEL

__all__ = ["Categories", "Classes", "categories_of", "classes_of_words"]

Classes = Sequence[str] | str | os.PathLike[str] | Literal["labels"] | None
"""Names, a file with one name a line, "labels" for those of the labels; None for no names."""


@dataclass(frozen=True)
class Categories:
    """The categories of an export, in their order.

    Attributes:
        names: the name of each category.
        places: the index of the category of each name of labels; None puts all labels into the one
            category there is.
        other: the index of the category of all other labels; None leaves them out.
    """

    names: tuple[str, ...] = (LABEL,)
    places: Mapping[str, int] | None = None
    other: int | None = None

    def of(self, name: str | None) -> int | None:
        """The index of the category of labels of this name; None if they are left out."""
        if self.places is None:
            return 0
        return self.places.get(str(name), self.other)


def categories_of(
    samples: Any, label_field: str, classes: Classes, other_class: str | None
) -> Categories:
    """The categories that are asked for.

    Args:
        samples: a dataset or a view.
        label_field: the field that is exported.
        classes: the names in the order of the categories, a file with one name a line, or "labels":
            the names that the field has, sorted, except "fg", which stands for no name. None makes
            one category, "fg", of all labels.
        other_class: the category of labels with other names, which comes last if it is not listed;
            None leaves them out.

    Raises:
        ValueError: there is no name, one is empty or given twice; or ``other_class`` is given
            alone.
        FileNotFoundError: there is no such file.
    """
    if classes is None:
        if other_class is not None:
            raise ValueError(
                f"other_class is {other_class!r}, but without classes all labels are of one class, "
                f"{LABEL!r}; give classes, too"
            )
        return Categories()
    if isinstance(classes, str) and classes == "labels":
        found = samples.distinct(f"{label_field}.detections.label")
        names = sorted(name for name in found if name != LABEL)
        if not names:
            raise ValueError(
                f"classes is 'labels', but no label of {label_field!r} has a name other than "
                f"{LABEL!r}; name some, or leave out classes"
            )
    elif isinstance(classes, (str, os.PathLike)):
        names = _read(Path(classes).expanduser())
    else:
        names = list(classes)
    if other_class is not None and other_class not in names:
        names.append(other_class)
    _check(names)
    places = {name: k for k, name in enumerate(names)}
    return Categories(tuple(names), places, None if other_class is None else places[other_class])


def classes_of_words(words: Sequence[str]) -> Classes:
    """What a user means by words: names; or, by a single one, a file that is there, or "labels"."""
    if len(words) == 1 and (words[0] == "labels" or Path(words[0]).expanduser().is_file()):
        return words[0]
    return list(words)


def _read(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file {path}; give classes as a list of names, as a file with one name a "
            "line, or as 'labels' for the names that the labels have"
        )
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return [name for line in lines if (name := line.strip())]


def _check(names: Sequence[Any]) -> None:
    for name in names:
        if not isinstance(name, str) or not name.strip() or len(name.splitlines()) > 1:
            raise ValueError(f"the class {name!r:.80} is no name; give texts of one line each")
    twice = [name for name in names if names.count(name) > 1]
    if twice or not names:
        problem = f"{twice[0]!r} stands there twice" if twice else "there are none"
        raise ValueError(f"classes must be different names, and {problem}")
