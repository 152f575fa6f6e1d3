"""``promerge train`` and ``promerge predict``: the detector that pseudo-labels train."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from promerge_fo.cli.arguments import add_command, positive
from promerge_fo.cli.progress import Progress
from promerge_fo.detector.config import DetectorConfig


def add_commands(commands: Any) -> None:
    """Declare the commands."""
    _add_train(commands)
    _add_predict(commands)


def _add_train(commands: Any) -> None:
    made = add_command(
        commands,
        "train",
        train,
        "train a detector on exported masks (ProMerge+; needs detectron2)",
        """
        Train a class-agnostic Cascade Mask R-CNN on pseudo-labels, as the paper trains ProMerge+.
        ANNOTATIONS is what promerge export wrote: a .json file, or the folder. A training that was
        stopped goes on by the same command, with the losses that it would have had.

        The settings are the paper's: 160,000 batches of 16 images. --batch-size scales them to
        other batches by the linear scaling rule; what is given beside it is taken as it is.
        Losses and sample predictions: tensorboard --logdir DIR

          promerge train pseudo.json --output detector/ --weights dino_resnet50_pretrain.pth
          promerge train train/ --output detector/ --weights dino_resnet50_pretrain.pth \\
            --batch-size 4 --gpus 1 --rounds 2
        """,
        usage="promerge train ANNOTATIONS --output DIR (--weights FILE | --from-scratch) [options]",
    )
    made.add_argument("annotations", metavar="ANNOTATIONS", help="COCO JSON, or an export's folder")
    made.add_argument("--output", required=True, metavar="DIR", help="folder for all that is made")
    start = made.add_mutually_exclusive_group(required=True)
    start.add_argument(
        "--weights", metavar="FILE", help="DINO's ResNet-50 (dino_resnet50_pretrain.pth)"
    )
    start.add_argument("--from-scratch", action="store_true", help="start from random weights")
    made.add_argument(
        "--image-root", metavar="DIR", help="folder of the images (an export knows its own)"
    )
    made.add_argument(
        "--rounds",
        type=positive,
        default=1,
        metavar="N",
        help="2 trains again, on what the detector is sure of as well (1)",
    )
    made.add_argument("--gpus", type=int, metavar="N", help="how many; 0 is the CPU (all)")
    _add_workers(made)
    made.add_argument(
        "--checkpoint-every", type=positive, default=5000, metavar="N", help="iterations (5000)"
    )
    made.add_argument(
        "--pictures-every", type=positive, default=1000, metavar="N", help="iterations (1000)"
    )
    group = made.add_argument_group("settings", "defaults are the paper's training")
    for record in DetectorConfig.describe():
        flag = "--" + record["name"].replace("_", "-")
        default = f"{record['default']:g}" if record["type"] == "float" else record["default"]
        text = f"{record['meaning']}; {record['source']} ({default})".replace("%", "%%")
        if record["type"] == "bool":
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            kind = {"int": int, "float": float}[record["type"]]
            group.add_argument(flag, type=kind, metavar="X" if kind is float else "N", help=text)


def _add_predict(commands: Any) -> None:
    made = add_command(
        commands,
        "predict",
        predict,
        "run a trained detector over images (needs detectron2)",
        """
        Run a detector over the images of a dataset, or of a COCO annotation file, and write what it
        finds as coco_instances_results.json, for promerge import. DETECTOR is the folder of a
        training, whose last round is taken, or a checkpoint: one of its own, or CutLER's (.pth).

          promerge predict detector/ my-dataset
          promerge import my-dataset coco_instances_results.json --label-field promerge_plus
          promerge predict model_final.pth train/annotations/val.json --min-score 0.3
        """,
        usage="promerge predict DETECTOR DATASET|JSON [options]",
    )
    made.add_argument("detector", metavar="DETECTOR", help="a training's folder, or a .pth file")
    made.add_argument("images", metavar="DATASET|JSON", help="a dataset's name, or COCO JSON")
    made.add_argument(
        "--output",
        default="coco_instances_results.json",
        metavar="FILE",
        help="file to write (coco_instances_results.json)",
    )
    made.add_argument("--image-root", metavar="DIR", help="folder of the images of a JSON file")
    made.add_argument(
        "--min-score", type=float, default=0.0, metavar="X", help="lowest score to write (0)"
    )
    made.add_argument(
        "--batch-size", type=positive, default=1, metavar="N", help="images taken together (1)"
    )
    made.add_argument("--device", help="cuda, cuda:1, cpu (a GPU if there is one)")
    _add_workers(made)


def _add_workers(made: Any) -> None:
    made.add_argument(
        "--num-workers", type=int, metavar="N", help="processes that read images (CPU cores)"
    )


def train(arguments: argparse.Namespace) -> int:
    """``promerge train``."""
    from promerge_fo.detector.training import train as run

    names = [record["name"] for record in DetectorConfig.describe()]
    given = {name: getattr(arguments, name) for name in names}
    changes = {name: value for name, value in given.items() if value is not None}
    config = DetectorConfig()
    if "batch_size" in changes:
        config = config.scaled(changes["batch_size"])
    detector = run(
        arguments.annotations,
        arguments.output,
        config.replace(**changes),
        weights=arguments.weights,
        image_root=arguments.image_root,
        rounds=arguments.rounds,
        gpus=arguments.gpus,
        num_workers=arguments.num_workers,
        checkpoint_every=arguments.checkpoint_every,
        pictures_every=arguments.pictures_every,
        say=_say,
    )
    print(f"{detector}\npredict with it: promerge predict {arguments.output} DATASET")
    return 0


def predict(arguments: argparse.Namespace) -> int:
    """``promerge predict``."""
    from promerge_fo.detector.prediction import predict as run

    report = run(
        arguments.detector,
        _images(arguments.images),
        arguments.output,
        image_root=arguments.image_root,
        min_score=arguments.min_score,
        batch_size=arguments.batch_size,
        device=arguments.device,
        num_workers=arguments.num_workers,
        progress=Progress,
    )
    print(report)
    return 0


def _images(given: str) -> Any:
    """An annotation file or the folder of an export as it is; else the dataset of that name."""
    if given.lower().endswith(".json") or Path(given, "annotations").is_dir():
        return given
    import fiftyone as fo

    if not fo.dataset_exists(given):
        known = ", ".join(fo.list_datasets()[:20]) or "none"
        raise ValueError(
            f"there is no dataset {given!r}; give a COCO annotation file (.json), or one of the "
            f"datasets: {known}"
        )
    return fo.load_dataset(given)


def _say(line: str) -> None:
    """A line of progress, at once."""
    print(line, flush=True)
