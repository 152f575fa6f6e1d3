"""A database that goes away is waited for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

import fiftyone.core.odm as foo
from pymongo.errors import ConnectionFailure, PyMongoError

__all__ = ["AWAY", "patiently", "wait_for_database"]

logger = logging.getLogger("fiftyone.promerge")

T = TypeVar("T")

WAIT_S = 600.0  #: how long a database may be away
_PAUSE_S = 1.0

AWAY = (ConnectionFailure,)
"""What pymongo raises while no server answers, or one stops answering."""


def patiently(action: Callable[[], T]) -> T:
    """Do something with the database, again and again while it is away.

    Args:
        action: that may be done twice: a server that breaks off may have done it already.

    Raises:
        pymongo.errors.ConnectionFailure: it was away for longer than :data:`WAIT_S` seconds.
    """
    while True:
        try:
            return action()
        except AWAY as error:
            wait_for_database(error)


def wait_for_database(reason: Exception) -> None:
    """Return as soon as the database answers.

    Args:
        reason: why it is waited for.

    Raises:
        Exception: the reason, after :data:`WAIT_S` seconds.
    """
    logger.warning("the database is away (%s); waiting for it", str(reason)[:200])
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        try:
            foo.get_db_conn().command("ping")
            return
        except PyMongoError:
            time.sleep(_PAUSE_S)
    raise reason
