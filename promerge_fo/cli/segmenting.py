"""``promerge segment``, ``demo`` and ``explain``: masks, and how they come about."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promerge_fo.cli.arguments import add_command, positive
from promerge_fo.cli.model import add_model_arguments, config_of, model_of
from promerge_fo.cli.progress import Progress

if TYPE_CHECKING:
    from promerge_fo.dataset.runs.model import ProMergeModel
    from promerge_fo.dataset.runs.segment import Report

_SHOWN = 20  # failures that are listed
_RAY_ONLY = ("address", "shards", "shard_size", "workers")
_LOCAL_ONLY = ("output_dir", "num_workers")


def add_commands(commands: Any) -> None:
    """Declare the commands."""
    made = add_command(
        commands,
        "segment",
        segment,
        "give a folder of images, single images or a dataset instance masks",
        """
        Give a folder of images, single images, or a dataset that is in FiftyOne, instance masks.

        A folder becomes a dataset of the same name, or adds its new images to that dataset; so
        do single images, by the folder that they share, and nothing else of it is segmented.
        Images that have masks of the very same settings are skipped, so a run that was stopped
        goes on where it was; --overwrite makes them anew, --retry-failed runs those alone that
        failed. "promerge status" says how far a run is.

          promerge segment photos/
          promerge segment photos/ --preset fast --output masks.json
          promerge segment photos/cat.jpg photos/dog.jpg
          promerge segment my-dataset --label-field fine --tau-b 0.3 --limit 20
          promerge segment photos/ --method maskcut --cuts 6
          promerge segment photos/ --engine ray --shards /shared/shards --address auto
        """,
        usage="promerge segment DIR|DATASET|IMAGE... [options]",
    )
    made.add_argument(
        "sources",
        nargs="+",
        metavar="DIR|DATASET|IMAGE",
        help="a folder of images, a dataset's name, or image files",
    )
    made.add_argument("--name", help="name of the dataset made of a folder (the folder's name)")
    made.add_argument("--label-field", help="field for the masks (the method's name)")
    made.add_argument("--output", metavar="JSON", help="also write the masks as COCO JSON (RLE)")
    made.add_argument(
        "--output-dir", metavar="DIR", help="keep masks as PNGs here, not in the database"
    )
    made.add_argument("--limit", type=positive, metavar="N", help="only the first N images")
    again = made.add_mutually_exclusive_group()
    again.add_argument("--overwrite", action="store_true", help="redo images that are done")
    again.add_argument(
        "--retry-failed", action="store_true", help="redo images that failed, and no others"
    )
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
    ray = made.add_argument_group("on Ray (docs/cluster.md)")
    ray.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="what runs it (local)"
    )
    ray.add_argument("--address", help="of a Ray cluster, or auto; without it, this machine alone")
    ray.add_argument("--shards", metavar="DIR", help="seen by all machines (./promerge-shards)")
    ray.add_argument(
        "--shard-size", type=positive, metavar="N", help="images that are written together (128)"
    )
    ray.add_argument(
        "--workers", type=positive, metavar="N", help="(one a GPU; without GPUs, one a machine)"
    )
    add_model_arguments(made)

    made = add_command(
        commands,
        "status",
        status,
        "how far a run is: done, failed, rate, time left",
        """
        How far the last run of each field of a dataset is, local or on Ray, from anywhere that
        reaches the same database.
        """,
    )
    made.add_argument(
        "source", metavar="DIR|DATASET", help="a dataset's name, or the folder it was made of"
    )
    made.add_argument("--failed", action="store_true", help="also list the images that failed")

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
    from promerge_fo.dataset.samples import open_images, open_source

    _check_engine(arguments)
    config = config_of(arguments)  # what is cheap to check comes before what takes time
    sources = arguments.sources
    if len(sources) > 1 or Path(sources[0]).expanduser().is_file():
        samples = open_images(sources, arguments.name)
    else:
        samples = open_source(sources[0], arguments.name)
    model = model_of(arguments, config)
    label_field = arguments.label_field or arguments.method
    shared = {
        "batch_size": arguments.batch_size,
        "limit": arguments.limit,
        "overwrite": arguments.overwrite,
        "retry_failed": arguments.retry_failed,
        "progress": Progress,
    }
    run = _on_ray if arguments.engine == "ray" else _here
    report = run(arguments, samples, model, label_field, shared)
    if report.skipped:
        print(f"{report.skipped} images were done before (--overwrite does them again)")
    _tell_failures(samples, label_field, model.hash)
    if arguments.output is not None:
        from promerge_fo.dataset.exchange.export import export_pseudo_labels

        summary = export_pseudo_labels(samples, label_field, arguments.output, min_area=0.0)
        print(f"{summary['path']}: {summary['annotations']} masks of {summary['images']} images")
    if report.interrupted:
        print("stopped; what was done is kept. Run the same command again to go on.")
        return 130
    print(f"look at the masks: fiftyone app launch {root_dataset(samples).name}")
    return 0


def _here(
    arguments: argparse.Namespace,
    samples: Any,
    model: ProMergeModel,
    label_field: str,
    shared: dict[str, Any],
) -> Report:
    from promerge_fo.dataset.runs.segment import segment_dataset

    if arguments.num_workers is not None:
        model.pipeline.readers = arguments.num_workers
    return segment_dataset(samples, model, label_field, output_dir=arguments.output_dir, **shared)


def _on_ray(
    arguments: argparse.Namespace,
    samples: Any,
    model: ProMergeModel,
    label_field: str,
    shared: dict[str, Any],
) -> Report:
    from promerge_fo.cluster.driver import segment_on_ray
    from promerge_fo.cluster.worker import Recipe

    checkpoint = arguments.checkpoint and str(Path(arguments.checkpoint).expanduser().resolve())
    return segment_on_ray(
        samples,
        Recipe(model.pipeline.identity(), checkpoint, arguments.compile),
        label_field,
        shards=arguments.shards or "promerge-shards",
        address=arguments.address,
        workers=arguments.workers,
        device=arguments.device,
        shard_size=arguments.shard_size or 128,
        **shared,
    )


def _check_engine(arguments: argparse.Namespace) -> None:
    """Refuse options of the other engine."""
    others = _RAY_ONLY if arguments.engine == "local" else _LOCAL_ONLY
    for name in others:
        if getattr(arguments, name) is not None:
            engine = "ray" if arguments.engine == "local" else "local"
            raise ValueError(f"--{name.replace('_', '-')} is for --engine {engine}")


def _tell_failures(samples: Any, label_field: str, run: str) -> None:
    """The images that failed, up to a screenful, and what to do about them."""
    from promerge_fo.dataset.runs.resume import failures

    failed = list(failures(samples, label_field, run))
    for failure in failed[:_SHOWN]:
        print(f"failed: {failure.path}: {failure.reason}", file=sys.stderr)
    if failed:
        more = (
            f" ({len(failed) - _SHOWN} more: promerge status --failed)"
            if len(failed) > _SHOWN
            else ""
        )
        print(f"{len(failed)} images failed{more}; --retry-failed runs them again", file=sys.stderr)


def status(arguments: argparse.Namespace) -> int:
    """``promerge status``."""
    from promerge_fo.dataset.runs.resume import failures
    from promerge_fo.dataset.runs.status import run_statuses
    from promerge_fo.dataset.samples import find_dataset

    dataset = find_dataset(arguments.source)
    runs = list(run_statuses(dataset))
    if not runs:
        print(f"{dataset.name} has no run of promerge segment")
    for run in runs:
        print(run)
        if arguments.failed:
            for failure in failures(dataset, run.label_field, run.run):
                print(f"  {failure.path}: {failure.reason}")
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
