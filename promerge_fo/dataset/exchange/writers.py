"""Write the files of an export: COCO's JSON as a stream, and YOLO's folders."""

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

import numpy as np

from promerge_fo.annotations.polygons import least_iou, polygon_of
from promerge_fo.dataset.exchange.categories import Categories
from promerge_fo.dataset.labels import pixel_crop
from promerge_fo.dataset.stored_labels import StoredLabel
from promerge_fo.files import sha256_of

__all__ = [
    "IMAGE_MODES",
    "CocoFile",
    "ExportedImage",
    "ImageMode",
    "YoloFolder",
    "place_image",
    "write_yolo_index",
]

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
        entries: what the writer's ``encode`` made of its labels.
    """

    number: int
    path: str
    name: str
    size: tuple[int, int]
    entries: Sequence[Any]


Labels = Sequence[tuple[StoredLabel, dict[str, Any]]]
"""The labels of an image, each with its annotation for COCO's JSON."""


class CocoFile:
    """A COCO annotation file, written as a stream.

    Args:
        path: the file to write; its folder is made if it is missing.
        categories: the categories of the labels, numbered from 1.

    Attributes:
        counts: the numbers of "images" and "annotations" written so far.
    """

    def __init__(self, path: Path, categories: Categories) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.counts = Counter(images=0, annotations=0)
        self._path = path
        self._categories = categories
        self._out = path.open("w", encoding="utf-8")
        self._annotations = tempfile.TemporaryFile("w+", dir=path.parent)  # noqa: SIM115
        self._out.write('{"info": {"description": "ProMerge pseudo-labels"}, "images": [')

    def encode(
        self, labels: Labels, size: tuple[int, int]
    ) -> tuple[list[dict[str, Any]], Counter[str]]:
        """The annotations of an image, without ids; from any thread. All can be written."""
        of = self._categories.of
        return [
            {"category_id": (of(label.label) or 0) + 1, "score": label.confidence, **record}
            for label, record in labels
        ], Counter()

    def add(self, image: ExportedImage) -> None:
        """Write one image and its annotations. Annotations are numbered from 1."""
        height, width = image.size
        record = {"id": image.number, "file_name": image.name, "height": height, "width": width}
        self._append(record, self._out, "images")
        for entry in image.entries:
            ids = {"id": self.counts["annotations"] + 1, "image_id": image.number}
            self._append({**ids, **entry}, self._annotations, "annotations")

    def close(self) -> None:
        """Append the annotations, which were kept in a file of their own, and the categories."""
        with self._out as out, self._annotations as annotations:
            out.write('\n], "annotations": [')
            annotations.seek(0)
            shutil.copyfileobj(annotations, out)
            names = enumerate(self._categories.names, start=1)
            categories = [{"id": number, "name": name} for number, name in names]
            out.write(f'\n], "categories": {json.dumps(categories)}}}\n')

    def describe(self) -> dict[str, Any]:
        """The counts, and the size in bytes and the SHA-256 of the file, after it is closed."""
        return {
            **self.counts,
            "bytes": self._path.stat().st_size,
            "sha256": sha256_of(self._path),
        }

    def _append(self, entry: dict[str, Any], out: IO[str], kind: str) -> None:
        out.write((",\n" if self.counts[kind] else "\n") + json.dumps(entry, allow_nan=False))
        self.counts[kind] += 1


class YoloFolder:
    """One split of a YOLO segmentation dataset: a file of lines for each image.

    Args:
        folder: the folder of the dataset, which all splits share.
        split: the name of the split.
        categories: the categories of the labels, numbered from 0.
        images: "link" or "copy".

    Attributes:
        counts: the numbers of "images" and "annotations" (lines) written so far.
    """

    def __init__(self, folder: Path, split: str, categories: Categories, images: ImageMode) -> None:
        self.counts = Counter(images=0, annotations=0)
        self._images, self._labels = folder / "images" / split, folder / "labels" / split
        self._categories = categories
        self._mode = images

    def encode(self, labels: Labels, size: tuple[int, int]) -> tuple[list[str], Counter[str]]:
        """The lines of an image's labels; from any thread.

        Returns:
            One line for each label that can be written; and the numbers of those that cannot
            ("scattered"), of holes that are filled, and of parts that are left out.
        """
        lines, counts = [], Counter[str]()
        height, width = size
        digits = len(str(max(size))) + 3  # a thousandth of a pixel
        for label, record in labels:
            if label.has_mask:
                crop, top, left = pixel_crop(label, size)
                polygon = polygon_of(crop)
                if polygon is None or polygon.iou < least_iou(record["area"]):
                    counts["scattered"] += 1
                    continue
                counts.update(holes_filled=polygon.holes, parts_left_out=polygon.parts_left_out)
                points = (polygon.points + np.array([left, top])) / (width, height)
            else:
                x, y, w, h = label.bounding_box
                (x0, x1), (y0, y1) = np.clip([(x, x + w), (y, y + h)], 0, 1)
                points = np.array([[x0, y0], [x0, y1], [x1, y1], [x1, y0]])
            numbers = [f"{value:.{digits}f}" for value in points.ravel().tolist()]
            lines.append(" ".join([str(self._categories.of(label.label)), *numbers]))
        return lines, counts

    def add(self, image: ExportedImage) -> None:
        """Link or copy one image, and write the file with its lines."""
        # ultralytics looks for labels where the last folder "images" of a path is "labels"
        parts = Path(image.name).parts
        own = name = Path(*("images_" if part == "images" else part for part in parts))
        number = 1
        while (labels := self._labels / name.with_suffix(".txt")).exists():
            number += 1  # images that differ in their suffixes alone would share a file
            name = own.with_stem(f"{own.stem}-{number}")
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text("".join(f"{line}\n" for line in image.entries), encoding="utf-8")
        place_image(image.path, self._images / name, self._mode)
        self.counts.update(images=1, annotations=len(image.entries))

    def close(self) -> None:
        """Nothing is left to write: :func:`write_yolo_index` writes what all splits share."""

    def describe(self) -> dict[str, Any]:
        """The counts, and one SHA-256 of the names and contents of all label files, by name."""
        digest = hashlib.sha256()
        for path in sorted(self._labels.rglob("*.txt")):
            digest.update(f"{path.relative_to(self._labels).as_posix()}\n".encode())
            digest.update(path.read_bytes() + b"\n")
        return {**self.counts, "sha256": digest.hexdigest()}


def write_yolo_index(path: Path, splits: Sequence[str], categories: Categories) -> None:
    """Write the YAML file of a YOLO dataset: where the images of each split lie, and the names.

    Raises:
        ValueError: a split has the name of something else that such a file says.
    """
    taken = sorted({"names", "nc", "path", "download", "channels"} & set(splits))
    if taken:
        raise ValueError(f"a split of a YOLO dataset cannot be named {taken[0]!r}; use other tags")
    quoted = [json.dumps(name, ensure_ascii=False) for name in categories.names]
    names = "".join(f"  {k}: {name}\n" for k, name in enumerate(quoted))
    places = "".join(f"{json.dumps(split)}: ./images/{split}/\n" for split in splits)
    path.write_text(f"names:\n{names}{places}", encoding="utf-8")


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
