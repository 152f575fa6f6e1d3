"""Numbers in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeGuard

import humanize

__all__ = ["duration", "is_text", "markdown_table", "reason_of"]


def duration(seconds: float) -> str:
    """A length of time in one or two units, rounded to the smaller one.

    Args:
        seconds: 0 or more.

    Examples:
        >>> [duration(s) for s in (42, 125, 7500)]
        ['42 seconds', '2 minutes', '2 hours and 5 minutes']
        >>> duration(3 * 86400 - 60)
        '3 days'
    """
    unit, length = "hours", 3600
    if seconds < 120:
        unit, length = "seconds", 1
    elif seconds < 86400:
        unit, length = "minutes", 60
    # rounded here: humanize would round the smaller unit by itself, up to "2 days and 24 hours"
    whole = round(seconds / length) * length
    return humanize.precisedelta(whole, unit, suppress=["months", "years"], format="%d")


def reason_of(error: BaseException) -> str:
    """What went wrong, by an exception: its kind and its message, which may be empty.

    Examples:
        >>> reason_of(ValueError("no such image")), reason_of(KeyError())
        ('ValueError: no such image', 'KeyError, without a message')
        >>> reason_of(MemoryError())
        'MemoryError: there was not enough memory'
    """
    message = " ".join(str(error).split())
    if message:
        return f"{type(error).__name__}: {message}"
    if isinstance(error, MemoryError):
        return f"{type(error).__name__}: there was not enough memory"
    return f"{type(error).__name__}, without a message"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as Markdown shows it.

    Args:
        header: the titles of the columns; the first is often empty.
        rows: their cells, as many as there are columns.

    Examples:
        >>> print(markdown_table(["", "AP"], [["promerge", "2.4"], ["maskcut", "1.9"]]))
        | | AP |
        | --- | --- |
        | promerge | 2.4 |
        | maskcut | 1.9 |
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("|" + "".join(f" {cell}".rstrip() + " |" for cell in line) for line in lines)


def is_text(value: object) -> TypeGuard[str]:
    """Whether a value is text that can be stored and printed.

    JSON and Python's reading of paths may give lone surrogates, which cannot.
    """
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
