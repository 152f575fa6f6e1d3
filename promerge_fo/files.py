"""Files: written whole, named by their content, kept inside their folder; images by their names."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path, PureWindowsPath
from typing import IO, Any, Literal

from PIL import features

__all__ = [
    "KINDS",
    "REMEDIES",
    "ImageFolder",
    "find_images",
    "image_files",
    "not_shown",
    "register_readers",
    "require_inside",
    "sha256_of",
    "whole_file",
    "write_json_list",
]

_AVIF = (".avif", ".avifs")
_HEIC = (".heic", ".heif", ".hif")
_SHOWN = {
    ".apng", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".png", ".webp",
    *_AVIF,
}  # fmt: skip
_NOT_SHOWN = {
    ".j2k", ".jp2", ".jpx", ".pbm", ".pgm", ".pnm", ".ppm", ".tga", ".tif", ".tiff", *_HEIC,
}  # fmt: skip
#: Other pictures, which Pillow does not read, or not as they are seen.
_PICTURES = {
    ".arw", ".cr2", ".cr3", ".dcm", ".dng", ".exr", ".hdr", ".ico", ".jxl", ".nef", ".orf", ".pef",
    ".psd", ".raf", ".raw", ".rw2", ".srw", ".svg", ".xcf",
}  # fmt: skip


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


def _remedies() -> dict[str, str]:
    """What to do about pictures of each kind that cannot be read here."""
    remedies = dict.fromkeys(_PICTURES, "convert them to JPEG or PNG")
    if find_spec("pillow_heif") is None:
        text = "install a reader for them (pip install pillow-heif), or convert them to JPEG or PNG"
        remedies |= dict.fromkeys(_HEIC, text)
    if "avif" not in features.modules or not features.check("avif"):
        text = (
            "install a Pillow that reads them (pip install 'pillow>=11.3'), or convert them to "
            "JPEG or PNG"
        )
        remedies |= dict.fromkeys(_AVIF, text)
    return remedies


#: What to do about pictures that cannot be read here, by what their names end with.
REMEDIES = _remedies()
#: What the names of images that can be read end with, in lower case.
KINDS = (_SHOWN | _NOT_SHOWN) - REMEDIES.keys()


@cache
def register_readers() -> None:
    """Let Pillow read HEIC, where the package pillow-heif is installed."""
    if not KINDS.isdisjoint(_HEIC):
        import pillow_heif  # type: ignore[import-not-found, unused-ignore]

        pillow_heif.register_heif_opener()


@dataclass(frozen=True)
class ImageFolder:
    """The images in a folder and the folders in it, and what else is there.

    Attributes:
        images: the paths of the images, sorted.
        skipped: the number of other files, by what their names end with, in lower case.
        closed: what cannot be looked into, with the reasons.
    """

    images: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    closed: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """What was skipped, by kind and with what to do: a line each."""
        lines = [
            f"{_files(n, kind)} skipped: {REMEDIES[kind]}"
            for kind, n in sorted(self.skipped.items())
            if kind in REMEDIES
        ]
        others = {kind: n for kind, n in sorted(self.skipped.items()) if kind not in REMEDIES}
        if others:
            kinds = ", ".join(f"{n} {kind or 'without an ending'}" for kind, n in others.items())
            lines.append(f"{_files(sum(others.values()))} skipped, no images: {kinds}")
        return [*lines, *(f"a folder was skipped: {reason}" for reason in self.closed)]


def find_images(folder: str | os.PathLike[str]) -> ImageFolder:
    """The images in a folder and all folders in it, by their names.

    Links to folders are followed. A folder that is reached in several ways is taken once, by its
    own path if that lies in the given folder.

    Args:
        folder: a folder; one that is not there holds nothing.
    """
    found = ImageFolder()
    seen: set[tuple[int, int]] = set()
    inner, links = [os.fspath(folder)], list[str]()
    while inner or links:
        here = inner.pop() if inner else links.pop(0)
        try:
            status = os.stat(here)  # noqa: PTH116
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(here) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            continue
        except OSError as error:
            found.closed.append(f"{here} ({error.strerror})")
            continue
        for entry in listed:
            if _is_folder(entry):
                (links if entry.is_symlink() else inner).append(entry.path)
            elif (kind := _kind(entry.path)) in KINDS:
                found.images.append(entry.path)
            else:
                found.skipped[kind] += 1
    found.images.sort()
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _kind(path: str) -> str:
    """What the name of a file ends with, in lower case."""
    return os.path.splitext(path)[1].lower()  # noqa: PTH122


def image_files(paths: Iterable[Path]) -> list[str]:
    """Those of the paths that are images by their names, sorted."""
    return sorted(str(path) for path in paths if path.suffix.lower() in KINDS)


def not_shown(paths: Iterable[str]) -> list[str]:
    """Which kinds of images browsers do not show, and what to do: a line for each kind of file."""
    kinds = Counter(map(_kind, paths))
    return [
        f"browsers do not show {_files(n, kind, verb=False)}, and nor does the App; to look at the "
        f"masks, convert to PNG (magick mogrify -format png '*{kind}'), and segment that"
        for kind, n in sorted(kinds.items())
        if kind in _NOT_SHOWN
    ]


def _files(count: int, kind: str = "", verb: bool = True) -> str:
    """So many files in words, as "1 .heic file was" or, without the verb, "12 files"."""
    named = " ".join(filter(None, [str(count), kind, "file" if count == 1 else "files"]))
    if not verb:
        return named
    return f"{named} was" if count == 1 else f"{named} were"
