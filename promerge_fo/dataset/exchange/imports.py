"""Import a detector's predictions, from a file as the detector wrote it, as a field of labels."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import fiftyone as fo
from bson.raw_bson import RawBSONDocument

from promerge_fo.annotations.json_stream import holds_object
from promerge_fo.config import run_hash
from promerge_fo.dataset.database import root_dataset
from promerge_fo.dataset.exchange.entries import Images, ImportReport, Intake
from promerge_fo.dataset.exchange.image_index import ImageIndex
from promerge_fo.dataset.exchange.replace_field import replaced_field, require_free_field
from promerge_fo.dataset.exchange.tensor_file import is_tensor_file
from promerge_fo.dataset.provenance import register
from promerge_fo.dataset.samples import whole_images_of
from promerge_fo.files import sha256_of
from promerge_fo.run_record import RunClock

__all__ = ["import_predictions"]

logger = logging.getLogger("fiftyone.promerge")


def import_predictions(
    samples: Any,
    path: str | os.PathLike[str],
    label_field: str,
    *,
    annotations: str | os.PathLike[str] | None = None,
    min_score: float | None = None,
    top_k: int | None = None,
    class_names: Mapping[int, str] | Literal["annotations"] | None = None,
    overwrite: bool = False,
    drop_decisions: bool = False,
) -> ImportReport:
    """Store a detector's predictions as labels.

    The file is a ``coco_instances_results.json``, as detectron2 and pycocotools write it: a list of
    entries with ``image_id``, ``category_id``, ``bbox`` (XYWH in pixels), ``score`` and
    ``segmentation`` (polygons, or RLE with ``counts`` as text or as numbers; without a
    segmentation, only the box is stored). A whole COCO file, which is an object with
    ``annotations`` and ``images`` such as an export, can be imported as well. A prediction without
    a score becomes a label without confidence; for ``min_score`` and ``top_k`` its score is 1.

    The ``predictions.json`` of ultralytics (``save_json=True``) is such a list. Its ``image_id`` is
    made of the file's name, so its ``file_name`` finds the image, where there is one. What
    torchvision's detectors return is read from a file of ``torch.save`` (``.pt``, ``.pth``): a list
    with a dictionary for each sample, or such dictionaries by image id or file name, with ``boxes``
    (XYXY), ``scores``, ``labels`` and ``masks`` (foreground over 0.5).

    An image is found

    - by the ``images`` of the annotation file, if there is one: their ``file_name`` is compared
      with the samples' paths, from the end;
    - otherwise by the samples' ``coco_id``;
    - if the samples have no such field, by its position among the samples, counted from 1.
      :func:`~promerge_fo.dataset.export_pseudo_labels` numbers the same samples in the same way;
    - if ``image_id`` is text, by path or file name.

    The file may come from an unknown source. Every entry is checked before anything is written. A
    malformed entry is left out, and listed in the report that is returned (``problems``). A file is
    refused if it is not JSON to its end, or if none of its entries can be imported. Memory grows
    with the number of images and of predictions (about 30 bytes each, 100 if they have ids), but
    not with the size of the file or of its masks. If writing fails or is interrupted by Ctrl-C, the
    field is restored.

    The labels look like those of a segmentation: ``label``, ``confidence``, the tight box of the
    mask, ``mask``, ``area`` and ``touches_border``. Images without predictions get empty
    Detections. The import is recorded as one of the dataset's runs.

    Args:
        samples: a dataset or a view of images.
        path: the file of predictions.
        label_field: the field for the labels.
        annotations: a JSON file with ``images`` (``id``, ``file_name``), which defines the ids.
        min_score: the lowest score to import, in [0, 1].
        top_k: import at most this many labels per image, those with the highest scores.
        class_names: label names by ``category_id``, or "annotations" for the names in the
            annotation file's ``categories``. Entries of other categories are left out. None takes
            the entries' ``category_name``, which detectors that were trained with classes here
            write; entries without one are "fg".
        overwrite: replace the labels that the field already has on these samples. What people did
            to them goes to the new ones that nearly equal them (IoU over 0.9).
        drop_decisions: go on where none does; see :func:`~promerge_fo.dataset.segment_dataset`.

    Returns:
        What was stored, and what was left out and why.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples are not images.
        ValueError: the samples are patches, or there are none; an option is out of its range; the
            field already has labels, or holds something else; image ids are not unique; the file
            is not such a JSON file; or none of its entries can be imported.
        promerge_fo.dataset.DecisionsLostError: what people did to labels would be lost. The field
            is as it was.
        FileNotFoundError: there is no such file.
    """
    samples = whole_images_of(samples)
    if len(samples) == 0:
        raise ValueError("there are no samples to import to; take another view")
    if min_score is not None and not 0 <= min_score <= 1:
        raise ValueError(f"min_score is {min_score}, but must lie in [0, 1]")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}, but must be at least 1")
    require_free_field(samples, label_field, overwrite)
    file = Path(path).expanduser()
    if annotations is not None:
        annotations = Path(annotations).expanduser()
    elif not is_tensor_file(file) and holds_object(file):
        annotations = file
    images = Images(samples, annotations)
    names = _class_names(class_names, images.index)
    clock = RunClock()
    source = {
        "method": "import",
        "sha256": sha256_of(file),
        "annotations_sha256": None if annotations is None else sha256_of(annotations),
        "settings": {
            "min_score": min_score,
            "top_k": top_k,
            "class_names": None if names is None else {str(k): v for k, v in names.items()},
        },
    }
    run = run_hash(source)
    with tempfile.TemporaryFile() as scratch:
        intake = Intake(images, names, min_score, top_k, scratch)
        intake.read(file)
        chosen = intake.choose()
        report = intake.report(file, label_field, run, chosen)
        documents = (_detections(labels, run) for labels in intake.labels(chosen))
        with replaced_field(samples, label_field, images.ids, documents, drop_decisions):
            record = clock.record(
                run,
                label_field=label_field,
                identity=source,
                counts={"ok": report.images},
                instances=report.labels,
                file=file.name,
            )
            register(root_dataset(samples), record)
    if report.unmatched or report.skipped:
        logger.warning(
            "%d predictions are malformed, and %d are of images that are not among the samples; "
            "problems and unmatched_ids of the report that is returned have them, and promerge "
            "import prints them",
            sum(report.skipped.values()),
            report.unmatched,
        )
    return report


def _class_names(
    given: Mapping[int, str] | Literal["annotations"] | None, index: ImageIndex
) -> Mapping[int, str] | None:
    if given == "annotations":
        if not index.categories:
            raise ValueError(
                "class_names is 'annotations', but there is no annotation file with categories; "
                "give one as annotations=..., or give a dictionary of names as class_names"
            )
        return index.categories
    if isinstance(given, str):
        raise ValueError(f"class_names is {given!r}, but must be a dictionary or 'annotations'")
    return given


def _detections(labels: list[RawBSONDocument], run: str) -> dict[str, Any]:
    """The Detections document of one image; its status is "ok" if it has labels, else None."""
    status = "ok" if labels else None
    document = fo.Detections(detections=[], status=status, error=None, run=run).to_dict()
    return {**document, "detections": labels}
