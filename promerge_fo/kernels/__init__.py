"""Kernels: functions that numba compiles once, and keeps on disk for the next process.

Where no such place can be written to, as in a container without a home, they are kept among the
temporary files, or else compiled in memory by each process.
"""

from __future__ import annotations

import inspect
import logging
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

from numba import config, njit

__all__ = ["kernel"]

# Shown also where FiftyOne is not imported: Python itself writes warnings that nobody else takes.
logger = logging.getLogger("fiftyone.promerge")


def kernel(function: Any = None, /, **options: Any) -> Any:
    """Compile a function at its first call, without Python's global lock.

    The compiled code is kept where numba keeps it: in ``NUMBA_CACHE_DIR``, beside the source or in
    the user's cache; else in a folder of the user's among the temporary files; else nowhere.

    Args:
        function: at module level, so that its code can be kept.
        options: what ``numba.njit`` takes besides.
    """
    if function is None:
        return partial(kernel, **options)
    compiled = njit(nogil=True, **options)(function)
    if not hasattr(compiled, "enable_caching"):  # NUMBA_DISABLE_JIT: a plain function
        return compiled
    try:
        _keep_in_usual_place(compiled, Path(inspect.getfile(function)).parent)
    except RuntimeError:  # there is no such place
        _keep_in_temporary_place(compiled)
    return compiled


def _keep_in_usual_place(compiled: Any, source: Path) -> None:
    if not os.access(source, os.W_OK):
        Path.home()  # raises where it is not known: numba would make a folder "~" anywhere
    compiled.enable_caching()
    _forgive(compiled._cache)


def _keep_in_temporary_place(compiled: Any) -> None:
    folder = _temporary_place()
    if folder is not None:
        with _cache_dir(folder):
            compiled.enable_caching()
        _forgive(compiled._cache)


@cache  # so that it is said once
def _temporary_place() -> str | None:
    """A folder of this user's own among the temporary files; None where there is none."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    why = "neither the folder of the package nor a cache of this user's can be written to"
    try:
        folder = Path(tempfile.gettempdir(), f"promerge-kernels-{user}")
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        tempfile.TemporaryFile(dir=folder).close()
        # What lies there is loaded as code, so others must not have put it there.
        if found.st_uid == user and stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o022:
            logger.warning(
                "promerge: %s, so compiled kernels are kept in %s; NUMBA_CACHE_DIR names another "
                "place",
                why, folder,
            )  # fmt: skip
            return str(folder)
    except OSError:
        pass
    logger.warning(
        "promerge: %s, so kernels are compiled in memory, anew by each process; NUMBA_CACHE_DIR "
        "names a place for them",
        why,
    )
    return None


@contextmanager
def _cache_dir(folder: str) -> Iterator[None]:
    before, config.CACHE_DIR = config.CACHE_DIR, folder
    try:
        yield
    finally:
        config.CACHE_DIR = before


def _forgive(kept: Any) -> None:
    """Have a cache that fails cost time alone: a full disk or a damaged file is no error."""
    for name in ("load_overload", "save_overload"):
        setattr(kept, name, partial(_unless_it_fails, getattr(kept, name)))


def _unless_it_fails(method: Callable[..., Any], *args: Any) -> Any:
    try:
        return method(*args)
    except Exception as error:
        _say_of_cache(str(error) or type(error).__name__)
        return None


@cache  # so that each reason is said once
def _say_of_cache(reason: str) -> None:
    logger.warning("promerge: a compiled kernel is not kept on disk, or not read (%s)", reason)
