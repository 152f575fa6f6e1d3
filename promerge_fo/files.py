"""Files: what names their content, and names that strangers give them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path, PureWindowsPath

__all__ = ["require_inside", "sha256_of"]


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits; reads it in blocks."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def require_inside(name: str) -> str:
    """The name of a file that lies in a folder or below it, wherever that folder is.

    Args:
        name: as an annotation file gives it, with slashes of either kind.

    Returns:
        The name as it is.

    Raises:
        ValueError: it is an absolute path, or leads up.
    """
    path = PureWindowsPath(name)  # knows both kinds of separators
    if ".." in path.parts or path.root or path.drive:
        raise ValueError(
            f"the image {name!a:.200} leads out of the folder of the images; a file with such "
            "names is not to be trusted"
        )
    return name
