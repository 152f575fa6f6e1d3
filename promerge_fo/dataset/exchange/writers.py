"""The files of an export: COCO's JSON as a stream, and YOLO's folders by FiftyOne's exporter."""

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

__all__ = ["IMAGES", "CocoFile", "ExportedImage", "Images", "YoloFolder", "place_image"]

Images = Literal["refer", "link", "copy"]
IMAGES: tuple[Images, ...] = get_args(Images)


@dataclass(frozen=True)
class ExportedImage:
    """One image and the labels that were chosen.

    Attributes:
        number: its COCO id.
        path: of its file.
        name: the path below the folder that all images lie in.
        size: (height, width) in pixels.
        labels: the labels, and what COCO's JSON says of them.
    """

    number: int
    path: str
    name: str
    size: tuple[int, int]
    labels: Sequence[tuple[StoredLabel, dict[str, Any]]]


class CocoFile:
    """A COCO annotation file, written as a stream.

    Attributes:
        counts: "images" and "annotations" that were written.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.counts = Counter(images=0, annotations=0)
        self._path = path
        self._out = path.open("w")
        self._annotations = tempfile.TemporaryFile("w+", dir=path.parent)  # noqa: SIM115
        self._out.write('{"info": {"description": "ProMerge pseudo-labels"}, "images": [')

    def add(self, image: ExportedImage) -> None:
        """Write one image and its annotations, which are numbered from 1."""
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
        """Put the two lists together."""
        with self._out as out, self._annotations as annotations:
            out.write('\n], "annotations": [')
            annotations.seek(0)
            shutil.copyfileobj(annotations, out)
            out.write(f'\n], "categories": [{{"id": 1, "name": "{LABEL}"}}]}}\n')

    def describe(self) -> dict[str, Any]:
        """Counts, and the bytes and SHA-256 of the file, once it is closed."""
        return {
            **self.counts,
            "bytes": self._path.stat().st_size,
            "sha256": sha256_of(self._path),
        }

    def _append(self, entry: dict[str, Any], out: IO[str], kind: str) -> None:
        out.write((",\n" if self.counts[kind] else "\n") + json.dumps(entry))
        self.counts[kind] += 1


class YoloFolder:
    """One split of a YOLO segmentation dataset, by FiftyOne's exporter.

    Masks become polygons of a tolerance of 2 pixels, one for each connected part, without holes.

    Args:
        folder: that all splits share.
        split: its name.
        root: the folder that all images lie in; they keep their places below it.
        images: "link" or "copy".

    Attributes:
        counts: "images" and "annotations" (masks) that were written.
    """

    def __init__(self, folder: Path, split: str, root: Path, images: Images) -> None:
        self.counts = Counter(images=0, annotations=0)
        self._labels = folder / "labels" / split
        self._exporter = YOLOv5DatasetExporter(
            export_dir=str(folder),
            split=split,
            classes=[LABEL],
            export_media="symlink" if images == "link" else True,
            rel_dir=str(root),
            use_masks=True,
            include_path=False,  # the folder is moved once it is whole
        )
        self._exporter.setup()

    def add(self, image: ExportedImage) -> None:
        """Write one image and the file of its polygons."""
        labels = [_detection(label, image.size) for label, _ in image.labels]
        self._exporter.export_sample(image.path, fo.Detections(detections=labels))
        self.counts.update(images=1, annotations=len(labels))

    def close(self) -> None:
        """Write the dataset's YAML, or the split's line of it."""
        self._exporter.close()

    def describe(self) -> dict[str, Any]:
        """Counts, and the SHA-256 of all names and contents of label files in their order."""
        digest = hashlib.sha256()
        for path in sorted(self._labels.rglob("*.txt")):
            digest.update(f"{path.relative_to(self._labels).as_posix()}\n".encode())
            digest.update(path.read_bytes() + b"\n")
        return {**self.counts, "sha256": digest.hexdigest()}


def _detection(label: StoredLabel, size: tuple[int, int]) -> fo.Detection:
    """A label with a mask as large as its pixel box."""
    if not label.has_mask:
        return fo.Detection(label=LABEL, bounding_box=label.bounding_box)
    crop, top, left = pixel_crop(label, size)
    height, width = size
    box = [left / width, top / height, crop.shape[1] / width, crop.shape[0] / height]
    return fo.Detection(label=LABEL, bounding_box=box, mask=crop)


def place_image(source: str, target: Path, images: Images) -> None:
    """Link or copy an image, with the folders on its way.

    Args:
        source: the image's path.
        target: where it goes; what is there already is the same image.
        images: "link" (symbolic, by the absolute path) or "copy".

    Raises:
        FileNotFoundError: the image is gone.
        OSError: links are not possible here.
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
        return  # a second sample of the same file, at the same time
    except OSError as error:
        raise OSError(f"{source} cannot be linked ({error}); use images='copy'") from error
