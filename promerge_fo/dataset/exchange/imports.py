"""A detector's predictions, from the file that COCO's tools exchange, as a field of labels."""

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
from promerge_fo.dataset.provenance import register
from promerge_fo.dataset.samples import require_whole_images
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
) -> ImportReport:
    """Store a detector's predictions as labels.

    The file is a ``coco_instances_results.json``, as detectron2 and pycocotools exchange it: a list
    of ``image_id``, ``category_id``, ``bbox`` (XYWH in pixels), ``score`` and ``segmentation`` (RLE
    with ``counts`` as text or as numbers, or polygons; without one, the box alone is stored). An
    object with ``annotations`` and ``images``, as exports are, is read as well. A prediction
    without a score has no confidence, and counts as 1.

    Images are found by their ``coco_id``; without that field, by their place among the samples,
    from 1, which is how :func:`~promerge_fo.dataset.export_pseudo_labels` numbers the same samples;
    by the ``images`` of an annotation file, whose ``file_name`` is compared with the samples' paths
    from the end; and where ``image_id`` is text, by path or name.

    The file may come from anywhere. Every entry is checked before anything is written: one that is
    malformed is left out and named in the report; a file that is not JSON to its end, or of which
    nothing fits, is refused. Memory grows with the numbers of images and predictions (some 30 bytes
    each, 100 where they have ids), not with the file or its masks. If anything fails while labels
    are written, or Ctrl-C is pressed, the field becomes what it was.

    Labels are stored as this package's own: "fg", ``confidence``, the tight box of the mask,
    ``mask``, ``area`` and ``touches_border``; images that the file says nothing of get empty
    Detections. The import is one of the dataset's runs.

    Args:
        samples: a dataset or a view of images.
        path: the JSON file.
        label_field: the field for the labels.
        annotations: a JSON file with ``images`` (``id``, ``file_name``), which defines the ids.
        min_score: the lowest score to take, in [0, 1].
        top_k: at most so many labels of an image, by score.
        class_names: names by ``category_id``, or "annotations": those of the annotation file's
            ``categories``. Entries of other categories are left out. None calls all "fg".
        overwrite: replace the labels that the field has on these samples.

    Returns:
        What was stored and what was not, and why.

    Raises:
        fiftyone.core.media.MediaTypeError: the samples have no images.
        ValueError: patches, no samples, options out of range, a field with something in it or of
            another kind, ids that are not unique, a file that is not what it should be, or of which
            no entry fits.
        FileNotFoundError: there is no such file.
    """
    require_whole_images(samples)
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
    elif holds_object(file):
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
        with replaced_field(samples, label_field, images.ids, documents):
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
            "%d predictions are malformed, %d of images that are not here; the report names them",
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
                "give one as annotations=..., or a dictionary of names"
            )
        return index.categories
    if isinstance(given, str):
        raise ValueError(f"class_names is {given!r}, but must be a dictionary or 'annotations'")
    return given


def _detections(labels: list[RawBSONDocument], run: str) -> dict[str, Any]:
    """What the database holds of one image; the status says "ok" where there are labels."""
    status = "ok" if labels else None
    document = fo.Detections(detections=[], status=status, error=None, run=run).to_dict()
    return {**document, "detections": labels}
