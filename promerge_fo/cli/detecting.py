"""``promerge train`` and ``promerge predict``: the detector that pseudo-labels train."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from promerge_fo.cli.arguments import Commands, add, add_command, add_parameters, positive
from promerge_fo.cli.progress import TerminalBar
from promerge_fo.detector.config import DetectorConfig


def add_commands(commands: Commands) -> None:
    """Declare the commands."""
    usage = "ANNOTATIONS --output DIR (--weights FILE | --from-scratch) [options]"
    made = add_command(commands, train, usage)
    add(made, "annotations", "ANNOTATIONS", "COCO JSON, or an export's folder")
    add(made, "--output", "DIR", "folder for everything that training writes", required=True)
    start = made.add_mutually_exclusive_group(required=True)
    add(start, "--weights", "FILE", "DINO's ResNet-50 (dino_resnet50_pretrain.pth)")
    add(start, "--from-scratch", bool, "start from random weights")
    add(made, "--image-root")
    add(made, "--classes", bool, "learn the categories apart; all is one class otherwise")
    text = "2 trains again, on the detector's confident predictions as well"
    add(made, "--rounds", positive, text, default=1)
    add(made, "--gpus", int, "how many GPUs; 0 is the CPU (all)")
    add(made, "--num-workers")
    add(made, "--checkpoint-every", positive, "iterations", default=5000)
    add(made, "--pictures-every", positive, "iterations", default=1000)
    group = made.add_argument_group("settings", "defaults are the paper's training")
    add_parameters(group, DetectorConfig.describe())

    made = add_command(commands, predict, "DETECTOR DATASET|DIR|JSON [options]")
    add(made, "detector", "DETECTOR", "a training's folder, or a .pth file")
    text = "a dataset's name, the folder of its images, or COCO JSON"
    add(made, "images", "DATASET|DIR|JSON", text)
    add(made, "--output", "FILE", "file to write", default="coco_instances_results.json")
    add(made, "--image-root")
    add(made, "--min-score", float, "lowest score to write", default=0.0)
    add(made, "--batch-size", positive, "images taken together", default=1)
    add(made, "--device")
    add(made, "--num-workers")


def train(annotations: str, output: str, from_scratch: bool, **options: Any) -> int:
    r"""Train a detector on exported masks (ProMerge+; needs detectron2).

    A class-agnostic Cascade Mask R-CNN is trained on pseudo-labels, as the paper trains ProMerge+.
    ANNOTATIONS is what promerge export wrote: a .json file, or the folder. A training that was
    stopped goes on by the same command, with the losses that it would have had.

    The settings are the paper's: 160,000 batches of 16 images. --batch-size scales them to other
    batches by the linear scaling rule; other settings that are given beside it are taken as they
    are. Losses and sample predictions: tensorboard --logdir DIR

    All masks are of one class, whatever their categories. With --classes, the categories of the
    export (promerge export --classes) are the detector's classes, and what it predicts has their
    names.

      promerge train pseudo.json --output detector/ --weights dino_resnet50_pretrain.pth
      promerge train train/ --output detector/ --weights dino_resnet50_pretrain.pth \
        --batch-size 4 --gpus 1 --rounds 2
      promerge train named/ --output detector/ --weights dino_resnet50_pretrain.pth --classes
    """
    from promerge_fo.detector.training import train as run

    given = {record["name"]: options.pop(record["name"]) for record in DetectorConfig.describe()}
    changes = {name: value for name, value in given.items() if value is not None}
    config = DetectorConfig()
    if "batch_size" in changes:
        config = config.scaled(changes["batch_size"])
    say = partial(print, flush=True)
    detector = run(annotations, output, config.replace(**changes), say=say, **options)
    print(f"{detector}\npredict with it: promerge predict {output} DATASET")
    return 0


def predict(detector: str, images: str, output: str, **options: Any) -> int:
    """Run a trained detector over images (needs detectron2).

    The images are those of a dataset, or of a COCO annotation file. What the detector finds is
    written as coco_instances_results.json, for promerge import; the names of its classes, where it
    was trained with some, are in it. DETECTOR is the folder of a training, whose last round is
    taken, or a checkpoint: one of its own, or CutLER's (.pth). Where images cannot be read, they
    are listed, the others are done, and the exit status is 1.

      promerge predict detector/ my-dataset
      promerge import my-dataset coco_instances_results.json --label-field promerge_plus
      promerge predict model_final.pth train/annotations/val.json --min-score 0.3
    """
    from promerge_fo.detector.prediction import predict as run

    report = run(detector, _images(images), output, progress=TerminalBar, **options)
    print(report)
    return 1 if report.failed else 0


def _images(given: str) -> Any:
    """An annotation file or the folder of an export as it is; else a dataset."""
    if given.lower().endswith(".json") or Path(given, "annotations").is_dir():
        return given
    from promerge_fo.dataset.samples import find_dataset

    return find_dataset(given)
