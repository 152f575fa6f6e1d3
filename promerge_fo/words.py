"""Numbers as people say them."""

from __future__ import annotations

__all__ = ["duration"]


def duration(seconds: float) -> str:
    """A time.

    Examples:
        >>> [duration(s) for s in (42, 125, 7500, 200_000)]
        ['42 s', '2 min', '2 h 5 min', '2 d 8 h']
    """
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if minutes < 2:
        return f"{seconds:.0f} s"
    if hours < 2:
        return f"{minutes:.0f} min"
    if days < 2:
        return f"{int(hours)} h {int(minutes % 60)} min"
    return f"{int(days)} d {hours % 24:.0f} h"
