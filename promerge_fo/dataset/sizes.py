"""The sizes of images: what their files say, and what the dataset is told of it."""

from __future__ import annotations

import mimetypes
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fiftyone as fo
import fiftyone.core.utils as fou
from pymongo import UpdateOne

from promerge_fo.dataset.database import aggregate, bulk_update, reload_samples
from promerge_fo.dataset.samples import whole_images_of
from promerge_fo.images import ImageError, TooLargeError, read_header
from promerge_fo.machine import available_cpus
from promerge_fo.progress import ShowProgress, progress_bar

__all__ = ["correct_sizes", "image_size", "keep_size", "right_metadata"]

_CHUNK = 1000  # images whose headers are read before the database is told


def image_size(document: dict[str, Any]) -> tuple[int, int]:
    """The size of an image as it is shown: what its file says, and the metadata only without one.

    For FiftyOne computes metadata by another rule than browsers (:func:`correct_sizes`).

    Args:
        document: a sample's document in the database: ``filepath``, and perhaps ``metadata``.

    Returns:
        (height, width) in pixels.

    Raises:
        ImageError: the file has too many pixels; or it cannot be read, and there are no metadata.
    """
    try:
        return read_header(document["filepath"]).size
    except TooLargeError:
        raise
    except ImageError:
        size = _recorded(document)
        if size is None:
            raise
        return size


def _recorded(document: dict[str, Any]) -> tuple[int, int] | None:
    metadata = document.get("metadata") or {}
    height, width = metadata.get("height"), metadata.get("width")
    return (int(height), int(width)) if height and width else None


def correct_sizes(samples: Any, *, progress: ShowProgress = None) -> int:
    """Have the metadata of all samples say how large their images are shown.

    Runs do so for the images that they segment, and this package reads sizes from files in any
    case. But FiftyOne's ``compute_metadata`` knows the EXIF orientation of JPEG alone, and gives a
    PNG or AVIF that is turned the wrong shape, in the App as in FiftyOne's own evaluations and
    exports; call this after it. The rule is that of :func:`promerge_fo.images.read_header`.

    Args:
        samples: a dataset or a view of images; those that cannot be read stay as they are.
        progress: whether to show a progress bar (None: as FiftyOne's config says), or a function
            that makes one; see :data:`promerge_fo.progress.ShowProgress`.

    Returns:
        The number of samples whose metadata were wrong or missing.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images.
        ValueError: the samples are patches.
    """
    samples = whole_images_of(samples)
    corrected = 0
    documents = aggregate(samples.select_fields("metadata"))
    with (
        ThreadPoolExecutor(available_cpus()) as pool,
        progress_bar(progress, len(samples), "sizes") as bar,
    ):
        for chunk in fou.iter_batches(documents, _CHUNK):
            updates = [
                UpdateOne({"_id": document["_id"]}, {"$set": {"metadata": metadata}})
                for document, metadata in zip(chunk, pool.map(right_metadata, chunk), strict=True)
                if metadata is not None
            ]
            bulk_update(samples, updates)
            corrected += len(updates)
            bar.update(len(chunk))
    reload_samples(samples)
    return corrected


def keep_size(sample: Any) -> None:
    """Have a sample's metadata say how large its image is shown; the sample is not saved."""
    metadata = None if sample.metadata is None else sample.metadata.to_dict()
    right = right_metadata({"filepath": sample.filepath, "metadata": metadata})
    if right is not None:
        sample.metadata = fo.ImageMetadata.from_dict(right)


def right_metadata(
    document: dict[str, Any], size: tuple[int, int] | None = None
) -> dict[str, Any] | None:
    """An image's metadata as they must be; None if they are, or the file cannot be read.

    Args:
        document: the sample's document, as for :func:`image_size`.
        size: (height, width) in pixels, as the image is shown, where that is known.
    """
    path, known = document["filepath"], document.get("metadata") or {}
    made = fo.ImageMetadata()
    if size is None:
        try:
            header = read_header(path)
        except ImageError:
            return None
        size = header.size
        made.num_channels = header.channels
        made.size_bytes = os.path.getsize(path)  # noqa: PTH202
        made.mime_type = mimetypes.guess_type(path)[0]
    if _recorded(document) == size:
        return None
    return {**made.to_dict(), **known, "height": size[0], "width": size[1]}
