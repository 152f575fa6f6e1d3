"""Files: written whole or not at all, named by their content, and kept inside their folder."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath
from typing import IO, Any, Literal

__all__ = ["require_inside", "sha256_of", "whole_file", "write_json_list"]


@contextmanager
def whole_file(
    path: str | os.PathLike[str], mode: Literal["w", "wb"] = "wb", durable: bool = False
) -> Iterator[IO[Any]]:
    """A file to write, which appears under its name once all of it is written.

    Until then it lies beside its place as ``NAME.<random>.part``. An error removes it, and leaves
    an older file of this name as it was. Several processes and machines may write the same file at
    a time: the last one to finish wins.

    Args:
        path: where the file goes; its folder is made if it is missing.
        mode: "wb" for bytes, "w" for text in UTF-8.
        durable: whether the file must survive a power failure from the end of the block on.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "a.txt")
        ...     with whole_file(path, "w") as file:
        ...         _ = file.write("all of it")
        ...         print(path.exists())
        ...     print(path.read_text())
        False
        all of it
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open(mode, encoding="utf-8" if mode == "w" else None) as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(target)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    if durable:
        _sync_folder(target.parent)


def write_json_list(file: IO[str], elements: Iterable[Any]) -> int:
    r"""Write a JSON list, each element on a line, as its elements come; returns their number.

    Args:
        file: to write to.
        elements: what JSON can hold; never all in memory.

    Examples:
        >>> import sys
        >>> write_json_list(sys.stdout, [{"id": 1}, {"id": 2}])
        [
        {"id": 1},
        {"id": 2}
        ]2
    """
    count = 0
    file.write("[")
    for count, element in enumerate(elements, start=1):
        file.write("\n" if count == 1 else ",\n")
        json.dump(element, file, allow_nan=False)
    file.write("\n]")
    return count


def _sync_folder(folder: Path) -> None:
    """Have the folder's list of names on the disk, where the system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits; reads it in blocks."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def require_inside(name: str) -> str:
    """Check that the name of a file leads into its folder, wherever that folder is.

    Args:
        name: as an annotation file gives it, with slashes of either kind.

    Returns:
        The name as it is.

    Raises:
        ValueError: it is an absolute path, or leads out of the folder.
    """
    path = PureWindowsPath(name)  # knows both kinds of separators
    if ".." in path.parts or path.root or path.drive:
        raise ValueError(
            f"the image {name!a:.200} leads out of the folder of the images; a file with such "
            "names is not to be trusted"
        )
    return name
