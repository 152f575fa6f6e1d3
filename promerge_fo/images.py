"""Image files to RGB arrays: one orientation, one colour space, one bit depth, clear errors."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "ImageError",
    "ImageLike",
    "as_rgb",
    "image_files",
    "load_image",
]

ImageLike = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
"""A path, a PIL image, or an array (H, W, 3) uint8."""

IMAGE_SUFFIXES = {
    ".bmp", ".gif", ".jpeg", ".jpg", ".jp2", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp",
}  # fmt: skip
"""What the names of images end with, in lower case."""

MAX_PIXELS = 1_000_000_000
"""The most pixels of an image; larger files may be decompression bombs."""

_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_open_lock = threading.Lock()


def image_files(paths: Iterable[Path]) -> list[str]:
    """Those of the paths that are images by their names, sorted."""
    return sorted(str(path) for path in paths if path.suffix.lower() in IMAGE_SUFFIXES)


class ImageError(ValueError):
    """An image that cannot be used; the message says which one, why, and what to do."""


def load_image(image: str | os.PathLike[str] | Image.Image) -> NDArray[np.uint8]:
    """An image as viewers show it, in 8-bit RGB.

    - The EXIF orientation is applied, once. Width and height are those after it.
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
    if isinstance(image, Image.Image):
        return _decode(image, _describe(image))
    path = Path(image).expanduser()
    _check_file(path)
    try:
        opened = _open(path)
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{path} is not an image that Pillow can read; remove it, or convert it to JPEG or PNG"
        ) from error
    except Exception as error:  # decoders raise anything on broken files
        raise ImageError(_broken(str(path), error)) from error
    with opened:
        return _decode(opened, str(path))


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
    with _open_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _decode(image: Image.Image, name: str) -> NDArray[np.uint8]:
    width, height = image.size
    if width * height == 0:
        raise ImageError(f"{name} has no pixels ({width} x {height}); remove it")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name} has {width} x {height} = {width * height:,} pixels, but at most "
            f"{MAX_PIXELS:,} are read; cut it into tiles, shrink it, or raise "
            "promerge_fo.images.MAX_PIXELS"
        )
    try:
        image.load()  # before the orientation: Pillow applies it itself to TIFF files
        orientation = _orientation(image)
        pixels = _to_rgb(image, name)
        if orientation in _TRANSPOSE:
            pixels = pixels.transpose(_TRANSPOSE[orientation])
        return np.array(pixels)
    except ImageError:
        raise
    except Exception as error:  # decoders raise anything on broken files
        raise ImageError(_broken(name, error)) from error


def _orientation(image: Image.Image) -> int:
    """1 to 8; 1 ("as stored") also for unreadable EXIF data, since the pixels may be fine."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:
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
    reason = str(error) or type(error).__name__
    return f"{name} is broken or cut off ({reason}); copy, download or export it again"
