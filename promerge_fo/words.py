"""Numbers in words."""

from __future__ import annotations

import humanize

__all__ = ["duration"]


def duration(seconds: float) -> str:
    """A length of time in one or two units, rounded to the smaller one.

    Args:
        seconds: 0 or more.

    Examples:
        >>> [duration(s) for s in (42, 125, 7500)]
        ['42 seconds', '2 minutes', '2 hours and 5 minutes']
        >>> duration(3 * 86400 - 60)  # not "2 days and 24 hours"
        '3 days'
    """
    unit, length = "hours", 3600
    if seconds < 120:
        unit, length = "seconds", 1
    elif seconds < 2 * 86400:
        unit, length = "minutes", 60
    # rounded before: humanize rounds the smaller unit alone, and up to a whole larger one
    whole = round(seconds / length) * length
    return humanize.precisedelta(
        whole, minimum_unit=unit, suppress=["months", "years"], format="%d"
    )
