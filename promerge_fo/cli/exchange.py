"""``promerge export`` and ``import``: pseudo-labels for detectors, and their predictions back."""

from __future__ import annotations

from typing import Any

from promerge_fo.cli.arguments import Commands, add, add_command, positive


def add_commands(commands: Commands) -> None:
    """Declare the commands."""
    made = add_command(commands, export, "DATASET PATH [options]")
    add(made, "dataset")
    add(made, "path", "PATH", "a .json file, or a folder")
    add(made, "--view")
    add(made, "--label-field", default="promerge")
    text = "smallest mask, as a share of its image; 0 writes all, and the paper trains with 0.05"
    add(made, "--min-area", float, text, default=0.05)
    add(made, "--min-score", float, "lowest confidence")
    add(made, "--tags", "TAG", "only labels with one of these tags", nargs="+")
    text = "labels that no reviewer has rejected, that one has accepted, or all"
    reviews = ("not_rejected", "accepted", "all")
    add(made, "--review", reviews, text, default="not_rejected")
    add(made, "--max-per-image", positive, "only the best masks of an image")
    add(made, "--val-fraction", float, "share of the images for validation")
    add(made, "--seed", int, "seed of that random split", default=0)
    add(made, "--split-tags", "TAG", "sample tags, each of which becomes a split", nargs="+")
    text = "leave the images where they are, or put links or copies into the folder"
    add(made, "--images", ("refer", "link", "copy"), text, default="refer")
    add(made, "--format", ("coco", "yolo"), "format of the annotations", default="coco")
    text = "names that become categories, or a file with one a line, or the word labels for all"
    add(made, "--classes", "NAME", text, nargs="+")
    add(made, "--other-class", "NAME", "category of labels with other names; left out otherwise")
    add(made, "--overwrite", bool, "replace a folder that an earlier export made")

    made = add_command(commands, import_, "DATASET FILE --label-field NAME [options]", "import")
    add(made, "dataset")
    add(
        made,
        "file",
        "FILE",
        "predictions: JSON in COCO's format, also of ultralytics; torchvision's in a .pt file",
    )
    add(made, "--view")
    add(made, "--label-field", "NAME", "field for the labels", required=True)
    add(made, "--annotations", "JSON", "COCO file with the images that the ids are of")
    add(made, "--min-score", float, "lowest score to take")
    add(made, "--top-k", positive, "only the best predictions of an image")
    text = "name labels by the categories of --annotations, and not as the predictions say"
    add(made, "--class-names", bool, text)
    add(made, "--overwrite", bool, "replace the labels that the field has")
    text = "replace labels that people worked on, too; their run keeps what they did"
    add(made, "--drop-decisions", bool, text)


def export(
    dataset: str,
    view: str | None,
    label_field: str,
    path: str,
    min_area: float,
    tags: list[str] | None,
    classes: list[str] | None,
    **options: Any,
) -> int:
    """Write masks as annotations that detectors train on.

    The masks of a dataset become COCO annotations (RLE at full resolution), or YOLO polygons. A
    path that ends in .json is one file; any other is a folder with annotations, images if they are
    linked or copied, and a manifest that says what was exported from what.

      promerge export my-dataset pseudo.json
      promerge export my-dataset train/ --val-fraction 0.05 --images link
      promerge export my-dataset train/ --review accepted --max-per-image 10
      promerge export my-dataset yolo/ --format yolo --images link --classes cat dog
    """
    from promerge_fo.dataset.exchange.categories import classes_of_words
    from promerge_fo.dataset.exchange.export import export_pseudo_labels
    from promerge_fo.dataset.exchange.selection import LEFT_OUT
    from promerge_fo.dataset.samples import find_dataset

    samples = find_dataset(dataset, view)
    options["classes"] = None if classes is None else classes_of_words(classes)
    summary = export_pseudo_labels(samples, label_field, path, min_area, tags, **options)
    print(f"{summary['path']}: {summary['annotations']} masks of {summary['images']} images")
    left_out = [f"{summary[name]} {name.replace('_', ' ')}" for name in LEFT_OUT if summary[name]]
    if left_out:
        print("masks left out: " + ", ".join(left_out))
    if summary["unlisted_names"]:
        names = [f"{n} {name!r}" for name, n in list(summary["unlisted_names"].items())[:10]]
        print("names of no class: " + ", ".join(names))
    for name in ("holes_filled", "parts_left_out"):
        if summary[name]:
            print(f"polygons: {summary[name]} {name.replace('_', ' ')}")
    for name in ("unreadable", "unsplit"):
        if summary[name]:
            print(f"images left out: {summary[name]} {name}")
    print(f"images lie in {summary['image_root']}; {summary['manifest']} says what this is made of")
    if options["format"] == "yolo":
        index = summary["files"]["dataset"]
        data = f'data="{index}"' if " " in index else f"data={index}"
        print(f"ultralytics trains on it: yolo segment train model=yolo11n-seg.pt {data}")
    return 1 if summary["unreadable"] and not summary["images"] else 0


def import_(
    dataset: str, view: str | None, file: str, label_field: str, class_names: bool, **options: Any
) -> int:
    r"""Take in a detector's predictions.

    The predictions (coco_instances_results.json, as detectron2 writes it, predictions.json of
    ultralytics, or what torchvision's detectors return, in a .pt file) become labels in a field of
    a dataset. Images are found by their coco_id, by the ids of an annotation file
    (--annotations, such as the export that the detector was trained or tested on), or by path or
    name. Predictions that do not fit are named and left out. A file that is not complete is
    refused, and then nothing changes.

      promerge import my-dataset coco_instances_results.json --label-field promerge_plus
      promerge import my-dataset results.json --annotations train/annotations/val.json \
        --label-field promerge_plus --min-score 0.5 --top-k 20
    """
    from promerge_fo.dataset.exchange.imports import import_predictions
    from promerge_fo.dataset.samples import find_dataset

    report = import_predictions(
        find_dataset(dataset, view),
        file,
        label_field,
        class_names="annotations" if class_names else None,
        **options,
    )
    print(report)
    return 0
