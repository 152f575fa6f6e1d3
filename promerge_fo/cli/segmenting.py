"""``promerge segment``, ``demo`` and ``explain``: masks, and how they come about."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promerge_fo.cli.arguments import FACETS, Commands, add, add_command, flag_of, positive
from promerge_fo.cli.model import add_model_options, model_of, setting_of
from promerge_fo.cli.progress import TerminalBar

if TYPE_CHECKING:
    from promerge_fo.dataset.runs.model import ProMergeModel
    from promerge_fo.dataset.runs.passes import Report

_SHOWN = 20  # failures that are listed
#: Options that only one of the engines has.
_ENGINES = {
    "local": ("output_dir", "num_workers"),
    "ray": ("address", "shards", "shard_size", "workers"),
}
_EVERY_ENGINE = ("batch_size", "limit", "overwrite", "retry_failed", "drop_decisions")


def add_commands(commands: Commands) -> None:
    """Declare the commands."""
    made = add_command(commands, segment, "DIR|DATASET|IMAGE... [options]")
    text = "a folder of images, a dataset's name, or image files"
    add(made, "sources", "DIR|DATASET|IMAGE", text, nargs="+")
    add(made, "--name", "NAME", "name of the dataset made of a folder (the folder's name)")
    add(made, "--label-field", "NAME", "field for the masks (the method's name)")
    add(made, "--group-slice", "NAME", "of groups, the slice to segment (the active one)")
    add(made, "--output", "JSON", "also write the masks as COCO JSON (RLE)")
    add(made, "--embed", bool, "also give the masks embeddings, to group and name them by")
    text = "features that embeddings are made of (those of the masks)"
    add(made, "--embed-facet", FACETS, text)
    add(made, "--embed-block", positive, "block that they are of, from 1 (that of the masks)")
    add(made, "--output-dir", "DIR", "keep masks as PNGs here, not in the database")
    add(made, "--limit")
    again = made.add_mutually_exclusive_group()
    add(again, "--overwrite", bool, "redo images that are done")
    add(again, "--retry-failed", bool, "redo images that failed, and no others")
    text = (
        "go on where no new mask equals one that people worked on; the old run keeps what they did"
    )
    add(made, "--drop-decisions", bool, text)
    add(made, "--batch-size", positive, "images that a GPU encodes together", default=8)
    add(made, "--num-workers", positive, "threads that read images (one for each CPU core)")
    ray = made.add_argument_group("on Ray (docs/cluster.md)")
    add(ray, "--engine", _ENGINES, "what runs it", default="local")
    add(ray, "--address", "ADDRESS", "of a Ray cluster, or auto; without it, this machine alone")
    add(ray, "--shards", "DIR", "folder that all machines see (./promerge-shards)")
    add(ray, "--shard-size", positive, "images that are written together (128)")
    text = "workers in all (one for each GPU; without GPUs, one for each machine)"
    add(ray, "--workers", positive, text)
    add_model_options(made, takes_tuned=True)

    made = add_command(commands, demo)
    add(made, "--folder", "DIR", "for the photographs and the picture", default="promerge-demo")
    add(made, "--encoder", "NAME", "an encoder's name, in place of that choice")

    made = add_command(commands, explain, "IMAGE [options]")
    add(made, "image", "IMAGE", "an image file")
    add(made, "--output", "FILE", "png, pdf or svg (IMAGE-explained.png)")
    add_model_options(made, takes_tuned=True)


def segment(
    sources: list[str],
    name: str | None,
    label_field: str | None,
    group_slice: str | None,
    output: str | None,
    engine: str,
    **options: Any,
) -> int:
    """Give a folder of images, single images, or a dataset of images or videos, instance masks.

    A folder becomes a dataset of the same name, or adds its new images to that dataset; so do
    single images, by the folder that they share, and nothing else of it is segmented. Images that
    have masks of the very same settings are skipped, so a run that was stopped goes on where it
    was; --overwrite makes them anew, --retry-failed runs only those that failed. "promerge status"
    says how far a run is, and with --failed which images failed and why; "promerge stop" ends it.
    Where images failed, the others are done, and the exit status is 1. Of videos, the frames are
    segmented, and counted.

      promerge segment photos/
      promerge segment photos/ --preset fast --output masks.json
      promerge segment photos/cat.jpg photos/dog.jpg
      promerge segment my-dataset --label-field fine --tau-b 0.3 --limit 20
      promerge segment photos/ --method maskcut --cuts 6
      promerge segment photos/ --settings tuned.json
      promerge segment photos/ --engine ray --shards /shared/shards --address auto
    """
    from promerge_fo.dataset.database import root_dataset
    from promerge_fo.dataset.runs.calibrating import calibrate_once
    from promerge_fo.dataset.runs.resume import finished
    from promerge_fo.dataset.samples import images_of, open_images, open_source, require_images
    from promerge_fo.files import not_shown

    for other in _ENGINES.keys() - {engine}:
        for given in _ENGINES[other]:
            if options[given] is not None:
                raise ValueError(f"{flag_of(given)} is for --engine {other}")
    setting = setting_of(**options)  # what is cheap to check comes before what takes time
    notes: list[str] = []  # of files that are skipped, for the end
    if len(sources) > 1 or Path(sources[0]).expanduser().is_file():
        samples = open_images(sources, name)
    else:
        samples = open_source(sources[0], name, notes.append)
    if not samples:
        raise ValueError(f"the dataset {root_dataset(samples).name!r} is empty; add images to it")
    samples = images_of(samples, group_slice, or_videos=engine == "local")
    if output is not None:
        require_images(samples)
    model = model_of(setting, **options)
    if not model.is_left_uncalibrated:
        calibrate_once(samples, model, progress=TerminalBar)
    label_field = label_field or model.config.method
    run = _on_ray if engine == "ray" else _here
    report = run(samples, model, label_field, options)
    if report.skipped:
        print(f"{report.skipped} {report.unit} were done before (--overwrite does them again)")
    name = root_dataset(samples).name
    failed = _tell_failures(samples, label_field, model.hash, shlex.quote(name), report.unit)
    if output is not None:
        from promerge_fo.dataset.exchange.export import export_pseudo_labels

        summary = export_pseudo_labels(samples, label_field, output, min_area=0.0)
        print(f"{summary['path']}: {summary['annotations']} masks of {summary['images']} images")
        if summary["unreadable"]:
            print(f"{summary['unreadable']} images are not in it: they cannot be read")
    shown = not_shown(samples.values("filepath")) if report.unit == "images" else []
    for note in [*notes, *shown]:
        print(note, file=sys.stderr)
    if report.interrupted:
        print("stopped; what was done is kept. Run the same command again to go on.")
        return 130
    if report.unstored:
        print(f"{report.unstored} images have no labels, as the log says", file=sys.stderr)
    if finished([samples], label_field, model.hash).total() > failed:
        print(f"look at the masks: fiftyone app launch {shlex.quote(name)}")
    return 1 if failed or report.unstored else 0


def _here(samples: Any, model: ProMergeModel, label_field: str, options: dict[str, Any]) -> Report:
    from promerge_fo.dataset.runs.segment import segment_dataset

    is_video = samples.media_type == "video"
    if options["num_workers"] is not None:
        model.pipeline.readers = options["num_workers"]
    return segment_dataset(
        samples,
        model,
        label_field,
        output_dir=options["output_dir"],
        calibrate=False,  # it was, where it should be
        progress=partial(TerminalBar, unit="frames" if is_video else "images"),
        **{name: options[name] for name in _EVERY_ENGINE},
    )


def _on_ray(
    samples: Any, model: ProMergeModel, label_field: str, options: dict[str, Any]
) -> Report:
    from promerge_fo.cluster.driver import segment_on_ray
    from promerge_fo.cluster.worker import Recipe

    checkpoint = options["checkpoint"] and str(Path(options["checkpoint"]).expanduser().resolve())
    return segment_on_ray(
        samples,
        Recipe(
            model.pipeline.identity(),
            checkpoint,
            options["compile"],
            **{name: options[name] for name in ("embed", "embed_facet", "embed_block")},
        ),
        label_field,
        shards=options["shards"] or "promerge-shards",
        shard_size=options["shard_size"] or 128,
        progress=TerminalBar,
        **{name: options[name] for name in ("address", "workers", "device", *_EVERY_ENGINE)},
    )


def _tell_failures(samples: Any, label_field: str, run: str, dataset: str, unit: str) -> int:
    """Name images or frames that failed, up to a screenful, and what to do; returns how many."""
    from promerge_fo.dataset.runs.resume import failures

    failed = list(failures(samples, label_field, run))
    for failure in failed[:_SHOWN]:
        print(f"failed: {failure}", file=sys.stderr)
    if failed:
        print(
            f"{len(failed)} {unit} failed; --retry-failed runs them again, and promerge status "
            f"{dataset} --failed lists them all",
            file=sys.stderr,
        )
    return len(failed)


def demo(folder: str, encoder: str | None) -> int:
    """Run on photographs that scikit-image carries.

    They become a dataset with their masks; a table and a picture show them. DINO is used when its
    weights can be had; else, and the demo says so, the weight-free texture encoder.
    """
    from promerge_fo.demo import run

    return run(Path(folder), encoder)


def explain(image: str, output: str | None, **options: Any) -> int:
    """Show every step of the method on one image.

    One figure shows the prompts and what they select, the background candidates and their vote,
    what filtering kept and dropped and why, the merged masks, and the masks before and after
    refinement. For an encoder that wants a calibration, it is made on the images beside this one.
    """
    from promerge_fo.images import read_header

    read_header(image)  # says what is wrong with it before anything large is loaded
    from promerge_fo.figures import explain_image, save
    from promerge_fo.files import image_files

    model = model_of(setting_of(**options), **options)
    if model.pipeline.wants_calibration and not model.is_left_uncalibrated:
        beside = image_files(Path(image).resolve().parent.iterdir())
        print(model.calibrate(beside, progress=TerminalBar))
    figure = explain_image(image, model.pipeline)
    output = output or Path(image).stem + "-explained.png"
    save(figure, output)
    print(output)
    return 0
