"""Image files to RGB arrays: one orientation, one colour space, one bit depth, clear errors."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from promerge_fo.files import REMEDIES, register_readers
from promerge_fo.machine import AtOnce

__all__ = [
    "MAX_PIXELS",
    "PIXELS_AT_ONCE",
    "READING",
    "Header",
    "ImageError",
    "ImageLike",
    "TooLargeError",
    "as_rgb",
    "load_image",
    "read_header",
    "read_image",
]

T = TypeVar("T")

ImageLike = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
"""A path, a PIL image, or an array (H, W, 3) uint8."""

MAX_PIXELS = 1_000_000_000
"""The most pixels of an image, as larger files may be decompression bombs. The environment variable
PROMERGE_MAX_PIXELS sets another limit."""

PIXELS_AT_ONCE = 200_000_000
"""The most pixels of images that are read at a time in a process; a larger image is read alone."""

_LIMIT = "PROMERGE_MAX_PIXELS"
READING = AtOnce(PIXELS_AT_ONCE)
"""What the pixels of images take of memory while they are read."""

_STRIP = 1 << 22  # pixels that are converted at a time

_ORIENTATION = [0x0112, 3, 1]  # the entry of a TIFF directory: tag, type (16 bits) and count
#: The formats, by Pillow's names, whose EXIF orientation browsers apply; None: a PIL image that was
#: made in memory. See :func:`read_header`.
_TURNED_BY_EXIF = {"JPEG", "MPO", "PNG", "AVIF", None}
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES = (5, 6, 7, 8)
_LAST_ROW_FIRST = (3, 4, 6, 7)  # the last stored row is the first row or column that is shown
_open_lock = threading.Lock()


class ImageError(ValueError):
    """An image that cannot be used; the message says which one, why, and what to do."""


class TooLargeError(ImageError):
    """An image with more pixels than are read (:data:`MAX_PIXELS`)."""


class Header(NamedTuple):
    """What is known of an image file without decoding it.

    Attributes:
        size: (height, width) in pixels, as the image is shown.
        channels: of the file: 1 for grey values and palettes, 3, or 4 with alpha.
    """

    size: tuple[int, int]
    channels: int


def read_header(path: str | os.PathLike[str]) -> Header:
    """The size of an image as it is shown, from the file's header alone.

    This is the one rule for what an image's size is; :func:`load_image` gives arrays of this size.
    It is that of browsers, in which images are looked at and masks are drawn (measured in Chromium
    156, all eight orientations of each format, pixel by pixel):

    ============  =====================================================================
    JPEG, MPO     turned by the EXIF orientation
    PNG           turned by the EXIF orientation in a chunk ``eXIf`` before the pixels
    AVIF          turned by the properties ``irot`` and ``imir``; EXIF is ignored
    WebP          as it is stored: its EXIF orientation is ignored
    GIF, BMP      as it is stored; they have no orientation
    ============  =====================================================================

    An orientation in XMP data alone, or in a PNG's text, turns nothing. Formats that browsers do
    not show have the size of what they become when they are converted: TIFF is turned by its
    orientation tag, HEIC by ``irot`` and ``imir``.

    Args:
        path: an image file.

    Raises:
        ImageError: as :func:`load_image`, except that broken pixels go unnoticed.

    Examples:
        >>> Image.new("RGB", (640, 480)).save("photo.jpg")
        >>> read_header("photo.jpg").size
        (480, 640)
    """
    with _opened(path) as image:
        _check_size(image, str(path))
        width, height = image.size
        turn = _orientation(image)
        if image.format == "TIFF":  # Pillow's versions differ in whether they turn it here
            tags = image.tag_v2  # type: ignore[attr-defined]
            width, height, turn = tags[256], tags[257], tags.get(0x0112, 1)
        size = (width, height) if turn in _SWAPS_SIDES else (height, width)
        return Header(size, len(image.getbands()))


def load_image(image: str | os.PathLike[str] | Image.Image) -> NDArray[np.uint8]:
    """An image as viewers show it, in 8-bit RGB.

    - It is turned as :func:`read_header` says. Width and height are those after it.
    - 16-bit grey values become 8-bit ones by v / 257, rounded. The range is always the file's,
      not that of the values in it, so that images of one camera stay comparable.
    - Files of 32-bit integers and floats do not say which value is white: it is the smallest of
      1 (floats only), 255 and 65535 that no value exceeds. Negative values and NaN are black.
    - 16-bit colour loses its lower bytes.
    - Transparent pixels are drawn over white: without alpha, hidden colours would show.
    - Only the first frame of an animation, or page of a file, is read; of a PIL image, the frame
      that it is at.
    - CMYK, palettes and the other colour modes are converted by Pillow.

    Args:
        image: a path, or a PIL image, which is not changed.

    Returns:
        (H, W, 3) uint8, contiguous and writable.

    Raises:
        ImageError: the file is missing, empty, no image, broken or too large (:data:`MAX_PIXELS`),
            or its values are too high for a brightness.
    """
    return read_image(image, lambda pixels: pixels)


def read_image(
    image: str | os.PathLike[str] | Image.Image, use: Callable[[NDArray[np.uint8]], T]
) -> T:
    """What a function makes of an image's pixels, in bounded memory however many threads read.

    At most 200 megapixels (:data:`PIXELS_AT_ONCE`) are decoded and used at a time in a process, and
    a larger image alone. A pixel takes 7 bytes while it is decoded (15 with transparency), and then
    3, beside what ``use`` takes.

    Args:
        image: a path, or a PIL image, which is not changed.
        use: takes the pixels, (H, W, 3) uint8, as of :func:`load_image`.

    Raises:
        ImageError: as :func:`load_image`.
    """
    if isinstance(image, Image.Image):
        name = _describe(image)
        _check_size(image, name)
        with READING.taking(image.width * image.height):
            return use(_decode(image, name))
    with _opened(image) as opened:
        _check_size(opened, str(image))
        with READING.taking(opened.width * opened.height):
            pixels = _decode(opened, str(image))
            opened.close()  # frees Pillow's pixels, too
            return use(pixels)


def as_rgb(image: Image.Image | NDArray[Any]) -> NDArray[np.uint8]:
    """A PIL image or an array as 8-bit RGB.

    Args:
        image: a PIL image (see :func:`load_image`), or an array (H, W), (H, W, 1), (H, W, 3) or
            (H, W, 4) of uint8, uint16 (divided by 257) or bool (black and white). A fourth
            channel is alpha; such images are drawn over white.

    Returns:
        (H, W, 3) uint8; the given array itself if it is one already.

    Raises:
        ImageError: an array of another shape or type, or one without pixels.
        TypeError: neither a PIL image nor an array.
    """
    if isinstance(image, Image.Image):
        return load_image(image)
    if not isinstance(image, np.ndarray):
        raise TypeError(
            f"an image is a {type(image).__name__}, but must be a PIL image or a uint8 array "
            "(H, W, 3); read files with load_image(path)"
        )
    given = f"an image is a {image.dtype} array {image.shape}"
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        hint = "; move the channels to the end" if image.ndim == 3 and len(image) in (1, 3) else ""
        raise ImageError(f"{given}, but must be (H, W, 3), (H, W, 4) or (H, W){hint}")
    if image.size == 0:
        raise ImageError(f"{given}, which has no pixels")
    if image.dtype == np.uint16:
        image = _from_16_bits(image)
    elif image.dtype == np.bool_:
        image = image.astype(np.uint8) * np.uint8(255)
    elif image.dtype != np.uint8:
        raise ImageError(
            f"{given}, but must be uint8; multiply floats in [0, 1] by 255, round and convert them"
        )
    if image.ndim == 3 and image.shape[2] == 4:
        return load_image(Image.fromarray(np.ascontiguousarray(image), "RGBA"))
    if image.ndim == 2:
        image = image[:, :, None]
    return image if image.shape[2] == 3 else np.repeat(image, 3, axis=2)


def _opened(given: str | os.PathLike[str]) -> Image.Image:
    """An image file whose header is read; a context manager, which closes it."""
    path = Path(given).expanduser()
    try:
        return _open(path)
    except Exception as error:  # decoders raise anything on broken files
        _check_file(path)
        if isinstance(error, UnidentifiedImageError):
            raise ImageError(
                f"{path} is not an image that Pillow can read; {_remedy(path)}"
            ) from error
        raise ImageError(_broken(str(path), error)) from error


def _remedy(path: Path) -> str:
    """What to do about a file that Pillow does not know."""
    known = REMEDIES.get(path.suffix.lower())
    if known is None:
        return "remove it, or convert it to JPEG or PNG"
    return known.replace("them", "it")


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise ImageError(f"{path} is a directory, not an image; give a file")
        if not path.exists():
            raise ImageError(f"{path} does not exist; check the path")
        if path.is_file() and path.stat().st_size == 0:
            raise ImageError(f"{path} is empty (0 bytes); copy or download it again")
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(
            f"{path} cannot be read ({error}); check the path and its rights"
        ) from error


def _open(path: Path) -> Image.Image:
    """``Image.open`` under this module's size limit.

    Pillow's limit is a global variable. It is lifted only while a header is read, by one thread at
    a time, so that it still holds for other code.
    """
    register_readers()
    with _open_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height == 0:
        raise ImageError(f"{name} has no pixels ({width} x {height}); remove it")
    limit = _limit()
    if width * height > limit:
        raise TooLargeError(
            f"{name} has {width} x {height} = {width * height:,} pixels, but at most {limit:,} are "
            f"read; cut it into tiles, shrink it, or set {_LIMIT} in the environment to more"
        )


def _limit() -> int:
    given = os.environ.get(_LIMIT)
    if given is None:
        return MAX_PIXELS
    if not given.isdecimal():
        raise ValueError(f"{_LIMIT} is {given!r}, but must be a whole number of pixels")
    return int(given)


def _decode(image: Image.Image, name: str) -> NDArray[np.uint8]:
    try:
        # before load(), which reads on to EXIF data behind the pixels, and turns TIFF by itself
        turn = _orientation(image)
        image.load()
        return _turned(_to_rgb(image, name), turn)
    except ImageError:
        raise
    except Exception as error:  # decoders raise anything on broken files
        raise ImageError(_broken(name, error)) from error


def _turned(image: Image.Image, turn: int) -> NDArray[np.uint8]:
    """An RGB image as an array, turned; in strips, since Pillow makes copies on the way."""
    width, height = image.size
    shape = (width, height) if turn in _SWAPS_SIDES else (height, width)
    pixels = np.empty((*shape, 3), dtype=np.uint8)
    step = max(1, _STRIP // width)
    for first in range(0, height, step):
        last = min(first + step, height)
        strip = image if last - first == height else image.crop((0, first, width, last))
        if turn in _TRANSPOSE:
            strip = strip.transpose(_TRANSPOSE[turn])
        place = slice(first, last)
        if turn in _LAST_ROW_FIRST:
            place = slice(height - last, height - first)
        pixels[(slice(None), place) if turn in _SWAPS_SIDES else place] = np.asarray(strip)
    return pixels


def _orientation(image: Image.Image) -> int:
    """1 to 8, or what turns nothing; 1 for unreadable EXIF data, since the pixels may be fine.

    Not by ``getexif()``: it also takes an orientation from XMP data, from a PNG's text and from
    entries of other types.
    """
    if image.format not in _TURNED_BY_EXIF:
        return 1
    tiff = image.info.get("exif", b"").removeprefix(b"Exif\0\0")
    order = ">" if tiff[:2] == b"MM" else "<"
    with suppress(struct.error):
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, start)
        for place in range(start + 2, start + 2 + 12 * entries, 12):
            *entry, value = struct.unpack_from(f"{order}HHIH", tiff, place)
            if entry == _ORIENTATION:
                return int(value)
    return 1


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray(_from_16_bits(np.asarray(image))).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_from_32_bits(np.asarray(image), name)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _from_16_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """0 to 65535 become 0 to 255: v / 257, rounded."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _from_32_bits(values: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Scaled so that the smallest possible white that no value exceeds is 255."""
    high = float(np.nanmax(np.append(values.ravel(), 0)))
    whites = [255, 65535] if values.dtype.kind in "iu" else [1, 255, 65535]
    white = next((white for white in whites if high <= white), None)
    if white is None:
        raise ImageError(
            f"{name} has values up to {high:g}, but at most 65535 can be taken for brightness; "
            "scale it to 8 or 16 bits first"
        )
    scaled = np.nan_to_num(values.astype(np.float32) * np.float32(255 / white), nan=0.0)
    return np.asarray(np.rint(np.clip(scaled, 0, 255)), dtype=np.uint8)


def _describe(image: Image.Image) -> str:
    name = getattr(image, "filename", "")
    return str(name) if name else f"a PIL image ({image.mode}, {image.width} x {image.height})"


def _broken(name: str, error: Exception) -> str:
    if isinstance(error, MemoryError):
        return f"{name}: there was not enough memory to read the image; use fewer workers"
    reason = str(error) or type(error).__name__
    return f"{name} is broken or cut off ({reason}); copy, download or export it again"
