"""``promerge export`` and ``import``: pseudo-labels for detectors, and their predictions back."""

from __future__ import annotations

import argparse
from typing import Any

from promerge_fo.cli.arguments import add_command, positive


def add_commands(commands: Any) -> None:
    """Declare the commands."""
    made = add_command(
        commands,
        "export",
        export,
        "write masks as annotations that detectors train on",
        """
        Write the masks of a dataset as COCO annotations (RLE at full resolution), or as YOLO
        polygons. A path that ends in .json is one file; any other is a folder with annotations,
        images if they are linked or copied, and a manifest that says what was exported from what.

          promerge export my-dataset pseudo.json
          promerge export my-dataset train/ --val-fraction 0.05 --images link
          promerge export my-dataset train/ --review accepted --max-per-image 10
        """,
        usage="promerge export DATASET PATH [options]",
    )
    made.add_argument("dataset", metavar="DATASET", help="a dataset's name")
    made.add_argument("path", metavar="PATH", help="a .json file, or a folder")
    made.add_argument("--view", metavar="NAME", help="one of the dataset's saved views")
    made.add_argument("--label-field", default="promerge", help="field with the masks (promerge)")
    made.add_argument(
        "--min-area",
        type=float,
        default=0.05,
        metavar="X",
        help="smallest mask, as a share of its image (0.05, as the paper trains); 0 writes all",
    )
    made.add_argument("--min-score", type=float, metavar="X", help="lowest confidence")
    made.add_argument("--tags", nargs="+", metavar="TAG", help="only labels with one of these tags")
    made.add_argument(
        "--review",
        choices=("accepted", "not_rejected"),
        help="only labels that a reviewer has accepted, or has not rejected",
    )
    made.add_argument(
        "--max-per-image", type=positive, metavar="N", help="only the best masks of an image"
    )
    made.add_argument(
        "--val-fraction", type=float, metavar="X", help="share of the images for validation"
    )
    made.add_argument("--seed", type=int, default=0, metavar="N", help="of that split (0)")
    made.add_argument(
        "--split-tags", nargs="+", metavar="TAG", help="sample tags, each of which becomes a split"
    )
    made.add_argument(
        "--images",
        choices=("refer", "link", "copy"),
        default="refer",
        help="leave the images where they are, or put them into the folder (refer)",
    )
    made.add_argument("--format", choices=("coco", "yolo"), default="coco", help="(coco)")
    made.add_argument(
        "--overwrite", action="store_true", help="replace a folder that an earlier export made"
    )

    made = add_command(
        commands,
        "import",
        import_,
        "take in a detector's predictions",
        """
        Store the predictions of a detector (coco_instances_results.json, as detectron2 writes it)
        in a field of a dataset. Images are found by their coco_id, by the ids of an annotation file
        (--annotations, such as the export that the detector was trained or tested on), or by path
        or name. What does not fit is named and left out; what is not whole is refused, and then
        nothing changes.

          promerge import my-dataset coco_instances_results.json --label-field promerge_plus
          promerge import my-dataset results.json --annotations train/annotations/val.json \\
            --label-field promerge_plus --min-score 0.5 --top-k 20
        """,
        usage="promerge import DATASET FILE --label-field NAME [options]",
    )
    made.add_argument("dataset", metavar="DATASET", help="a dataset's name")
    made.add_argument("file", metavar="FILE", help="predictions in COCO's format (JSON)")
    made.add_argument("--view", metavar="NAME", help="one of the dataset's saved views")
    made.add_argument("--label-field", required=True, metavar="NAME", help="field for the labels")
    made.add_argument("--annotations", metavar="JSON", help="COCO file whose images define the ids")
    made.add_argument("--min-score", type=float, metavar="X", help="lowest score to take")
    made.add_argument("--top-k", type=positive, metavar="N", help="only the best of an image")
    made.add_argument(
        "--class-names",
        action="store_true",
        help='name labels by the categories of --annotations; all are "fg" otherwise',
    )
    made.add_argument(
        "--overwrite", action="store_true", help="replace the labels that the field has"
    )


def export(arguments: argparse.Namespace) -> int:
    """``promerge export``."""
    from promerge_fo.dataset.exchange.export import export_pseudo_labels
    from promerge_fo.dataset.exchange.selection import LEFT_OUT

    summary = export_pseudo_labels(
        _samples(arguments),
        arguments.label_field,
        arguments.path,
        arguments.min_area,
        arguments.tags,
        min_score=arguments.min_score,
        review=arguments.review,
        max_per_image=arguments.max_per_image,
        val_fraction=arguments.val_fraction,
        seed=arguments.seed,
        split_tags=arguments.split_tags,
        images=arguments.images,
        format=arguments.format,
        overwrite=arguments.overwrite,
    )
    print(f"{summary['path']}: {summary['annotations']} masks of {summary['images']} images")
    left_out = {name.replace("_", " "): summary[name] for name in LEFT_OUT if summary[name]}
    if left_out:
        print("masks left out: " + ", ".join(f"{n} {name}" for name, n in left_out.items()))
    for name in ("unreadable", "unsplit"):
        if summary[name]:
            print(f"images left out: {summary[name]} {name}")
    print(f"images lie in {summary['image_root']}; {summary['manifest']} says what this is made of")
    return 0


def import_(arguments: argparse.Namespace) -> int:
    """``promerge import``."""
    from promerge_fo.dataset.exchange.imports import import_predictions

    report = import_predictions(
        _samples(arguments),
        arguments.file,
        arguments.label_field,
        annotations=arguments.annotations,
        min_score=arguments.min_score,
        top_k=arguments.top_k,
        class_names="annotations" if arguments.class_names else None,
        overwrite=arguments.overwrite,
    )
    print(report)
    return 0


def _samples(arguments: argparse.Namespace) -> Any:
    """The dataset, or one of its saved views."""
    import fiftyone as fo

    if not fo.dataset_exists(arguments.dataset):
        known = ", ".join(fo.list_datasets()[:20]) or "none"
        raise ValueError(f"there is no dataset {arguments.dataset!r}; the datasets are: {known}")
    dataset = fo.load_dataset(arguments.dataset)
    if arguments.view is None:
        return dataset
    if not dataset.has_saved_view(arguments.view):
        known = ", ".join(dataset.list_saved_views()) or "none"
        raise ValueError(f"{dataset.name!r} has no saved view {arguments.view!r}; it has: {known}")
    return dataset.load_saved_view(arguments.view)
