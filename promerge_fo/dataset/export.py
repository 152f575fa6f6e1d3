"""Pseudo-labels: a field's masks as a COCO file that detectors train on."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

from promerge_fo.dataset.coco import annotation_of, image_size, read_documents, stored_labels
from promerge_fo.dataset.labels import LABEL, require_detections, require_images

__all__ = ["export_pseudo_labels"]


def export_pseudo_labels(
    samples: Any,
    label_field: str,
    path: str | os.PathLike[str],
    min_area: float = 0.05,
    tags: str | Collection[str] | None = None,
) -> dict[str, Any]:
    """Write the masks of a field as a COCO annotation file.

    Masks are compressed RLE at full resolution (``counts`` as text), with their own area and
    tight box, and the confidence as ``score``; the one category is 1, "fg". ``iscrowd`` is the
    label's own, 0 without. A label without a mask has its box alone, and no ``segmentation``.
    Annotations are numbered from 1; so are images, unless every sample has a number of its own in
    the field ``coco_id``. File names are relative to the folder that all images lie in. Images
    without masks are listed; images that cannot be read are not.

    The file is written as a stream, so memory does not grow with the dataset, and appears whole
    or not at all.

    Args:
        samples: a dataset or a view.
        label_field: the field with the masks.
        path: the JSON file to write; one that exists is replaced.
        min_area: the smallest mask to write, as a share of the image; 0 writes all.
        tags: write only labels that have one of these label tags.

    Returns:
        ``path``, ``image_root`` (the folder that file names are relative to), ``images``,
        ``annotations``, ``too_small`` and ``untagged`` (masks left out) and ``unreadable``
        (images left out).

    Raises:
        fiftyone.core.media.MediaTypeError: the samples have no images.
        ValueError: no samples, no such field of detections, or ``min_area`` out of [0, 1].
        FileNotFoundError: a mask's file is gone.
    """
    require_images(samples)
    require_detections(samples, label_field)
    if len(samples) == 0:
        raise ValueError("there are no samples to export; take another view")
    if not 0 <= min_area <= 1:
        raise ValueError(f"min_area is {min_area}, but must lie in [0, 1]: a share of the image")
    wanted = None if tags is None else {tags} if isinstance(tags, str) else set(tags)
    target = Path(path).expanduser().absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    root = Path(os.path.commonpath([Path(p).parent for p in samples.values("filepath")]))
    export = _Export(label_field, root, min_area, wanted)
    # beside the target, so that the last step is a rename
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".promerge-") as scratch:
        whole = Path(scratch, "whole.json")
        with whole.open("w") as out, Path(scratch, "annotations.json").open("w+") as annotations:
            out.write('{"info": {"description": "ProMerge pseudo-labels"}, "images": [')
            for image_id, document in read_documents(samples, [label_field]):
                export.write(image_id, document, out, annotations)
            out.write('\n], "annotations": [')
            annotations.seek(0)
            shutil.copyfileobj(annotations, out)
            out.write(f'\n], "categories": [{{"id": 1, "name": "{LABEL}"}}]}}\n')
        whole.replace(target)
    return {"path": str(target), "image_root": str(root), **export.counts}


class _Export:
    """Writes one image at a time and counts what was written and what was left out."""

    def __init__(
        self, label_field: str, root: Path, min_area: float, tags: set[str] | None
    ) -> None:
        self._label_field = label_field
        self._root = root
        self._min_area = min_area
        self._tags = tags
        names = ("images", "annotations", "too_small", "untagged", "unreadable")
        self.counts = dict.fromkeys(names, 0)

    def write(
        self, image_id: int, document: dict[str, Any], images: IO[str], annotations: IO[str]
    ) -> None:
        size = image_size(document)
        if size is None:
            self.counts["unreadable"] += 1
            return
        image = {
            "id": image_id,
            "file_name": Path(document["filepath"]).relative_to(self._root).as_posix(),
            "height": size[0],
            "width": size[1],
        }
        self._append(image, images, "images")
        for label in stored_labels(document, self._label_field):
            if self._tags is not None and self._tags.isdisjoint(label.tags):
                self.counts["untagged"] += 1
                continue
            record = annotation_of(label, size)
            if record is None or record["area"] < self._min_area * size[0] * size[1]:
                self.counts["too_small"] += 1
                continue
            annotation = {
                "id": self.counts["annotations"] + 1,
                "image_id": image_id,
                "category_id": 1,
                "score": label.confidence,
                **record,
            }
            self._append(annotation, annotations, "annotations")

    def _append(self, entry: dict[str, Any], out: IO[str], kind: str) -> None:
        out.write(",\n" if self.counts[kind] else "\n")
        json.dump(entry, out)
        self.counts[kind] += 1
