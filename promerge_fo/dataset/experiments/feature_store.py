"""Patch features on disk: calculated once for each encoder and image."""

from __future__ import annotations

import json
import logging
import os
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promerge_fo.config import run_hash
from promerge_fo.encoder.base import Encoder

__all__ = ["FeatureStore", "StoredFeatures"]

logger = logging.getLogger("fiftyone.promerge")

LARGE = 10 * 1024**3  #: bytes; more than this is not written without a word


@dataclass(frozen=True)
class StoredFeatures:
    """What an encoder made of one image.

    Attributes:
        features: (C, h, w) float32.
        prompt_scores: (h, w) float32; None from an encoder that has none.
        seconds: that the encoder took.
    """

    features: NDArray[np.float32]
    prompt_scores: NDArray[np.float32] | None
    seconds: float


class FeatureStore:
    """A folder of features: a file an image, in a folder for each encoder.

    The encoder's folder is named by a hash of all that decides its features, the image's file by
    the SHA-256 of the image's file: another encoder, other weights or a changed image have other
    names. Files carry checksums; one that is damaged counts as missing. Features are kept in
    float32, so that masks made of them are those of the pipeline to the last pixel: of DINO
    ViT-B/8 at 480 pixels 11 MB an image (5,000 images are 55 GB), of the texture encoder 0.2 MB.

    Args:
        folder: for the features of all encoders.
        encoder: whose features they are.
    """

    def __init__(self, folder: str | os.PathLike[str], encoder: Encoder) -> None:
        identity = encoder.identity()
        self.folder = Path(folder) / run_hash(identity)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "encoder.json").write_text(json.dumps(identity, indent=2) + "\n")

    def __contains__(self, image: str) -> bool:
        return self._path(image).is_file()

    def load(self, image: str) -> StoredFeatures | None:
        """The features of an image; None where there are none, or the file is damaged.

        Args:
            image: SHA-256 of its file.
        """
        try:
            with np.load(self._path(image), allow_pickle=False) as arrays:
                scores = arrays.get("prompt_scores")
                return StoredFeatures(arrays["features"], scores, float(arrays["seconds"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            logger.warning("%s is damaged and made again (%s)", self._path(image), error)
            return None

    def save(self, image: str, stored: StoredFeatures) -> None:
        """Write the features of an image: whole, or not at all.

        Args:
            image: SHA-256 of its file.
            stored: what to write.
        """
        arrays: dict[str, Any] = {"features": stored.features, "seconds": stored.seconds}
        if stored.prompt_scores is not None:
            arrays["prompt_scores"] = stored.prompt_scores
        path = self._path(image)
        part = path.with_suffix(f".{os.getpid()}.part")
        with part.open("wb") as file:
            np.savez(file, **arrays)
        part.replace(path)

    def require_room(self, each: int, images: int) -> None:
        """Warn where a number of images takes much of the disk.

        Args:
            each: bytes that an image takes.
            images: how many are to be written.

        Raises:
            OSError: the disk does not hold them.
        """
        total, free = each * images, shutil.disk_usage(self.folder).free
        size = f"the features of {images:,} images take {total / 1024**3:.1f} GiB in {self.folder}"
        if total > free:
            raise OSError(
                f"{size}, which has {free / 1024**3:.1f} GiB left; take fewer images, a smaller "
                "encoder or another folder"
            )
        if total > LARGE:
            logger.warning("%s; delete the folder when they are no longer wanted", size)

    def _path(self, image: str) -> Path:
        return self.folder / f"{image}.npz"
