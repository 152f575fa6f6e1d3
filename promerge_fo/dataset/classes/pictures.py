"""Small pictures of masks, for lists of groups."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from bson import ObjectId
from numpy.typing import NDArray
from PIL import Image

from promerge_fo.dataset.database import documents_of
from promerge_fo.dataset.labels import pixel_crop
from promerge_fo.dataset.stored_labels import StoredLabel, stored_labels
from promerge_fo.images import load_image

__all__ = ["picture_of"]

_MARGIN = 0.15  # around a mask's box, as a share of its longer side
_OUTSIDE = 0.4  # of the brightness that is left outside of the mask


def picture_of(
    samples: Any, label_field: str, ids: Sequence[str], sample_ids: Sequence[str], side: int = 96
) -> NDArray[np.uint8]:
    """The images of some masks beside each other, each cut to the mask, dark outside of it.

    Args:
        samples: the dataset that stores the labels, or a view of it.
        label_field: the field with the masks.
        ids: the ids of n labels.
        sample_ids: those of their samples.
        side: of one picture, in pixels.

    Returns:
        (side, n * side, 3) uint8; grey where an image or a mask is gone or cannot be read.
    """
    wanted = [ObjectId(i) for i in dict.fromkeys(map(str, sample_ids))]
    found = {
        str(each["_id"]): each for each in documents_of(samples, wanted, "filepath", label_field)
    }
    tiles = np.full((side, len(ids), side, 3), 128, dtype=np.uint8)
    for number, (label_id, sample_id) in enumerate(zip(ids, sample_ids, strict=True)):
        document = found.get(str(sample_id), {})
        labels = [each for each in stored_labels(document, label_field) if each.id == label_id]
        with suppress(Exception):  # decoders raise anything on broken files
            tiles[:, number] = _tile(load_image(document["filepath"]), labels[0], side)
    return tiles.reshape(side, -1, 3)


def _tile(image: NDArray[np.uint8], label: StoredLabel, side: int) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    mask, top, left = pixel_crop(label, (height, width))
    h, w = mask.shape
    half = (0.5 + _MARGIN) * max(h, w)
    cy, cx = top + h / 2, left + w / 2
    y0, x0, y1, x1 = (round(v) for v in (cy - half, cx - half, cy + half, cx + half))
    inside = slice(max(y0, 0), min(y1, height)), slice(max(x0, 0), min(x1, width))
    shown = np.zeros((y1 - y0, x1 - x0, 3), dtype=np.float32)
    covered = np.zeros((height, width), dtype=np.bool_)
    covered[top : top + h, left : left + w] = mask
    part = image[inside] * np.where(covered[inside], 1, _OUTSIDE)[..., None]
    oy, ox = inside[0].start - y0, inside[1].start - x0
    shown[oy : oy + part.shape[0], ox : ox + part.shape[1]] = part
    made = Image.fromarray(shown.astype(np.uint8)).resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(made)
