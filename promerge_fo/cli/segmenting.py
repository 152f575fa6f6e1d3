"""``promerge segment``, ``demo`` and ``explain``: masks, and how they come about."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from promerge_fo.cli.arguments import add_command, positive
from promerge_fo.cli.model import add_model_arguments, config_of, model_of
from promerge_fo.cli.progress import Progress


def add_commands(commands: Any) -> None:
    """Declare the commands."""
    made = add_command(
        commands,
        "segment",
        segment,
        "give a folder of images or a dataset instance masks",
        """
        Give a folder of images, or a dataset that is in FiftyOne, instance masks.

        A folder becomes a dataset of the same name, or adds its new images to that dataset.
        Images that have masks of the very same settings are skipped, so a run that was stopped
        goes on where it was; --overwrite makes them anew.

          promerge segment photos/
          promerge segment photos/ --preset fast --output masks.json
          promerge segment my-dataset --label-field fine --tau-b 0.3 --limit 20
          promerge segment photos/ --method maskcut --cuts 6
        """,
        usage="promerge segment DIR|DATASET [options]",
    )
    made.add_argument(
        "source", metavar="DIR|DATASET", help="a folder of images, or a dataset's name"
    )
    made.add_argument("--name", help="name of the dataset made of a folder (the folder's name)")
    made.add_argument("--label-field", help="field for the masks (the method's name)")
    made.add_argument("--output", metavar="JSON", help="also write the masks as COCO JSON (RLE)")
    made.add_argument(
        "--output-dir", metavar="DIR", help="keep masks as PNGs here, not in the database"
    )
    made.add_argument("--limit", type=positive, metavar="N", help="only the first N images")
    made.add_argument("--overwrite", action="store_true", help="redo images that are done")
    made.add_argument(
        "--batch-size",
        type=positive,
        default=8,
        metavar="N",
        help="images that a GPU encodes together (8)",
    )
    made.add_argument(
        "--num-workers", type=positive, metavar="N", help="threads that read images (CPU cores)"
    )
    add_model_arguments(made)

    made = add_command(
        commands,
        "demo",
        demo,
        "run on photographs that scikit-image carries",
        """
        Run ProMerge on photographs that scikit-image carries: a dataset with their masks, a
        table and a picture. DINO is used when its weights can be had; else, and it says so, the
        weight-free texture encoder.
        """,
    )
    made.add_argument(
        "--folder",
        default="promerge-demo",
        help="for the photographs and the picture (./promerge-demo)",
    )
    made.add_argument("--encoder", help="an encoder's name, in place of that choice")

    made = add_command(
        commands,
        "explain",
        explain,
        "show every step of the method on one image",
        """
        One figure of every step on an image: the prompts and what they select, the background
        candidates and their vote, what filtering kept and dropped and why, the merged masks,
        and the masks before and after refinement.
        """,
        usage="promerge explain IMAGE [options]",
    )
    made.add_argument("image", metavar="IMAGE", help="an image file")
    made.add_argument("--output", metavar="FILE", help="png, pdf or svg (IMAGE-explained.png)")
    add_model_arguments(made)


def segment(arguments: argparse.Namespace) -> int:
    """``promerge segment``."""
    from promerge_fo.dataset.segment import open_source, segment_dataset

    config = config_of(arguments)  # what is cheap to check comes before what takes time
    dataset = open_source(arguments.source, arguments.name)
    model = model_of(arguments, config)
    label_field = arguments.label_field or arguments.method
    if arguments.num_workers is not None:
        model.pipeline.readers = arguments.num_workers
    report = segment_dataset(
        dataset,
        model,
        label_field,
        batch_size=arguments.batch_size,
        output_dir=arguments.output_dir,
        limit=arguments.limit,
        overwrite=arguments.overwrite,
        progress=Progress,
    )
    if report.skipped:
        print(f"{report.skipped} images were done before (--overwrite does them again)")
    if arguments.output is not None:
        from promerge_fo.dataset.export import export_pseudo_labels

        summary = export_pseudo_labels(dataset, label_field, arguments.output, min_area=0.0)
        print(f"{summary['path']}: {summary['annotations']} masks of {summary['images']} images")
    if report.interrupted:
        print("stopped; what was done is kept. Run the same command again to go on.")
        return 130
    print(f"look at the masks: fiftyone app launch {dataset.name}")
    return 0


def demo(arguments: argparse.Namespace) -> int:
    """``promerge demo``."""
    from promerge_fo.demo import run

    return run(Path(arguments.folder), arguments.encoder)


def explain(arguments: argparse.Namespace) -> int:
    """``promerge explain``."""
    from promerge_fo.figures import explain_image, save

    figure = explain_image(arguments.image, model_of(arguments, config_of(arguments)).pipeline)
    output = arguments.output or Path(arguments.image).stem + "-explained.png"
    save(figure, output)
    print(output)
    return 0
