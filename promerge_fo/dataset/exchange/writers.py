"""Write the files of an export: COCO's JSON as a stream, YOLO's folders by FiftyOne's exporter."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, get_args

import fiftyone as fo
from fiftyone.utils.yolo import YOLOv5DatasetExporter

from promerge_fo.dataset.labels import LABEL, pixel_crop
from promerge_fo.dataset.stored_labels import StoredLabel
from promerge_fo.files import sha256_of

__all__ = ["IMAGE_MODES", "CocoFile", "ExportedImage", "ImageMode", "YoloFolder", "place_image"]

ImageMode = Literal["refer", "link", "copy"]
IMAGE_MODES: tuple[ImageMode, ...] = get_args(ImageMode)


@dataclass(frozen=True)
class ExportedImage:
    """An image to write, and its chosen labels.

    Attributes:
        number: the COCO id of the image.
        path: the path of the image file.
        name: the path relative to the folder that contains all images.
        size: (height, width) in pixels.
        labels: the labels, each with its annotation for COCO's JSON.
    """

    number: int
    path: str
    name: str
    size: tuple[int, int]
    labels: Sequence[tuple[StoredLabel, dict[str, Any]]]


class CocoFile:
    """A COCO annotation file, written as a stream.

    Args:
        path: the file to write; its folder is made if it is missing.

    Attributes:
        counts: the numbers of "images" and "annotations" written so far.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.counts = Counter(images=0, annotations=0)
        self._path = path
        self._out = path.open("w")
        self._annotations = tempfile.TemporaryFile("w+", dir=path.parent)  # noqa: SIM115
        self._out.write('{"info": {"description": "ProMerge pseudo-labels"}, "images": [')

    def add(self, image: ExportedImage) -> None:
        """Write one image and its annotations. Annotations are numbered from 1."""
        height, width = image.size
        record = {"id": image.number, "file_name": image.name, "height": height, "width": width}
        self._append(record, self._out, "images")
        for label, entry in image.labels:
            annotation = {
                "id": self.counts["annotations"] + 1,
                "image_id": image.number,
                "category_id": 1,
                "score": label.confidence,
                **entry,
            }
            self._append(annotation, self._annotations, "annotations")

    def close(self) -> None:
        """Append the annotations, which were kept in a file of their own, and the categories."""
        with self._out as out, self._annotations as annotations:
            out.write('\n], "annotations": [')
            annotations.seek(0)
            shutil.copyfileobj(annotations, out)
            out.write(f'\n], "categories": [{{"id": 1, "name": "{LABEL}"}}]}}\n')

    def describe(self) -> dict[str, Any]:
        """The counts, and the size in bytes and the SHA-256 of the file, after it is closed."""
        return {
            **self.counts,
            "bytes": self._path.stat().st_size,
            "sha256": sha256_of(self._path),
        }

    def _append(self, entry: dict[str, Any], out: IO[str], kind: str) -> None:
        out.write((",\n" if self.counts[kind] else "\n") + json.dumps(entry))
        self.counts[kind] += 1


class YoloFolder:
    """One split of a YOLO segmentation dataset, written by FiftyOne's exporter.

    Each connected part of a mask becomes a polygon without holes, with a tolerance of 2 pixels.

    Args:
        folder: the folder of the dataset, which all splits share.
        split: the name of the split.
        root: the folder that contains all images; they keep their paths relative to it.
        images: "link" or "copy".

    Attributes:
        counts: the numbers of "images" and "annotations" (masks) written so far.
    """

    def __init__(self, folder: Path, split: str, root: Path, images: ImageMode) -> None:
        self.counts = Counter(images=0, annotations=0)
        self._labels = folder / "labels" / split
        self._exporter = YOLOv5DatasetExporter(
            export_dir=str(folder),
            split=split,
            classes=[LABEL],
            export_media="symlink" if images == "link" else True,
            rel_dir=str(root),
            use_masks=True,
            include_path=False,  # because the folder is moved when it is complete
        )
        self._exporter.setup()

    def add(self, image: ExportedImage) -> None:
        """Link or copy one image, and write the file with its polygons."""
        labels = [_detection(label, image.size) for label, _ in image.labels]
        self._exporter.export_sample(image.path, fo.Detections(detections=labels))
        self.counts.update(images=1, annotations=len(labels))

    def close(self) -> None:
        """Write the YAML file of the dataset, or add this split to it."""
        self._exporter.close()

    def describe(self) -> dict[str, Any]:
        """The counts, and one SHA-256 of the names and contents of all label files, by name."""
        digest = hashlib.sha256()
        for path in sorted(self._labels.rglob("*.txt")):
            digest.update(f"{path.relative_to(self._labels).as_posix()}\n".encode())
            digest.update(path.read_bytes() + b"\n")
        return {**self.counts, "sha256": digest.hexdigest()}


def _detection(label: StoredLabel, size: tuple[int, int]) -> fo.Detection:
    """A FiftyOne label whose mask has exactly the size of its box in pixels."""
    if not label.has_mask:
        return fo.Detection(label=LABEL, bounding_box=label.bounding_box)
    crop, top, left = pixel_crop(label, size)
    height, width = size
    box = [left / width, top / height, crop.shape[1] / width, crop.shape[0] / height]
    return fo.Detection(label=LABEL, bounding_box=box, mask=crop)


def place_image(source: str, target: Path, images: ImageMode) -> None:
    """Link or copy an image, and make the folders above it.

    Args:
        source: the path of the image.
        target: the path of the link or copy; if it exists, it is the same image already.
        images: "link" (a symbolic link to the absolute path) or "copy".

    Raises:
        FileNotFoundError: the image is missing.
        OSError: the file system does not support links.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if images == "copy":
        shutil.copyfile(source, target)
        return
    try:
        target.symlink_to(Path(source).absolute())
    except FileExistsError:
        return  # another thread made it, for a second sample of the same file
    except OSError as error:
        raise OSError(f"{source} cannot be linked ({error}); use images='copy'") from error
