"""Labels of the next round: confident predictions, and the old labels that they do not replace.

As CutLER describes it: a detector cleans its labels and finds objects that they miss. So its
confident predictions become labels; an old label of the same object as such a prediction is
replaced by it, and the other old labels stay.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from promerge_fo.annotations.json_stream import read_elements
from promerge_fo.detector.annotations import Annotations, read_annotations
from promerge_fo.files import whole_file, write_json_list

__all__ = ["merge_labels", "same_objects"]


def same_objects(
    labels: list[dict[str, Any]], predictions: list[dict[str, Any]], iou: float
) -> NDArray[np.bool_]:
    """Which labels are the same object as one of the predictions.

    Args:
        labels: n masks as compressed RLE.
        predictions: m masks as compressed RLE.
        iou: IoU above which two masks are one object.

    Returns:
        (n,) bool.
    """
    if not labels or not predictions:
        return np.zeros(len(labels), dtype=np.bool_)
    ious = np.asarray(coco_mask.iou(labels, predictions, [0] * len(predictions)))
    return np.asarray(ious.max(axis=1) > iou)


def merge_labels(
    annotations: str | os.PathLike[str],
    predictions: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    min_score: float = 0.7,
    iou: float = 0.5,
    classes: bool = False,
) -> dict[str, int]:
    """Write the labels of the next round, in the layout of the old ones.

    Args:
        annotations: the labels that the detector was trained on.
        predictions: its predictions on the same images, in their order, as
            :func:`~promerge_fo.detector.predict` writes them.
        output: the file to write.
        min_score: the lowest score of a prediction that becomes a label.
        iou: IoU with such a prediction above which an old label is replaced, whatever its class.
        classes: whether the labels' categories were learned apart; the new labels have them, too.

    Returns:
        ``images``, ``predicted`` (new labels), ``kept`` and ``replaced`` (old ones).

    Raises:
        ValueError: the predictions are not of these images in this order.
    """
    labels = read_annotations(annotations, "", classes)
    numbers = list(labels.categories)
    groups = _by_image(predictions, min_score)
    counts = Counter(images=len(labels), predicted=0, kept=0, replaced=0)

    def merged() -> Iterator[dict[str, Any]]:
        number, found = next(groups, (None, []))
        for k, image_id in enumerate(labels.ids.tolist()):
            new: list[dict[str, Any]] = []
            if number == image_id:
                new = found
                number, found = next(groups, (None, []))
            old = labels.rles(k)
            replaced = same_objects(old, [entry["segmentation"] for entry in new], iou)
            entries = [
                {"score": entry["score"], **_mask(entry["segmentation"], entry["category_id"])}
                for entry in new
            ]
            kept = zip(old, labels.classes(k).tolist(), replaced, strict=True)
            entries += [_mask(rle, numbers[place]) for rle, place, gone in kept if not gone]
            for entry in entries:
                counts["predicted" if "score" in entry else "kept"] += 1
                yield {"image_id": image_id, **entry}
            counts["replaced"] += int(replaced.sum())
        if number is not None:
            raise ValueError(
                f"{predictions} has predictions of image {number} where none were expected; it "
                f"must be of the images of {annotations}, in their order"
            )

    with whole_file(output, "w") as out:
        out.write('{"images": ')
        write_json_list(out, (_image(labels, k) for k in range(len(labels))))
        out.write(', "annotations": ')
        write_json_list(out, ({"id": k, **entry} for k, entry in enumerate(merged(), start=1)))
        named = [{"id": number, "name": name} for number, name in labels.categories.items()]
        out.write(f', "categories": {json.dumps(named)}}}\n')
    return dict(counts)


def _by_image(path: str | os.PathLike[str], min_score: float) -> Iterator[tuple[int, list[Any]]]:
    """Each image's id and its confident predictions; images without any are passed over."""
    entries = (e.value for e in read_elements(path) if e.value["score"] >= min_score)
    for image_id, group in groupby(entries, key=lambda entry: int(entry["image_id"])):
        yield image_id, list(group)


def _image(labels: Annotations, k: int) -> dict[str, Any]:
    height, width = labels.sizes[k].tolist()
    number, name = int(labels.ids[k]), labels.path(k)
    return {"id": number, "file_name": name, "height": height, "width": width}


def _mask(rle: dict[str, Any], category: int) -> dict[str, Any]:
    """What COCO's JSON says of a mask."""
    counts = rle["counts"]
    return {
        "category_id": category,
        "iscrowd": 0,
        "area": int(coco_mask.area(rle)),
        "bbox": coco_mask.toBbox(rle).tolist(),
        "segmentation": {
            "size": list(rle["size"]),
            "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts,
        },
    }
