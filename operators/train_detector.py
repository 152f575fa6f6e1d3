"""``train_detector``: ProMerge+, a detector that learns from exported pseudo-labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from fiftyone.operators import types

from ..forms import Form, absolute, add_parameter, filled, require_writable
from ..jobs import Job, Outcome
from ..memory import keep_training, last_settings
from ..operator import LongOperator

STARTS = {
    "weights": "DINO's ResNet-50, as in the paper, or another in torchvision's layout",
    "scratch": "random weights: for trying things out",
}
DEVICES = {"gpu": "the first GPU, where there is one", "cpu": "the CPU, and no GPU"}


class TrainDetector(LongOperator):
    """A form and a call of ``promerge_fo.detector.train``."""

    label = "ProMerge: train a detector"
    description = "ProMerge+: a Cascade Mask R-CNN that learns from exported pseudo-labels"
    icon = "model_training"
    heading = "ProMerge: train a detector on pseudo-labels"
    button = "Train"
    shows_groups = "show_settings"
    needs_images = False

    def groups(self, params: Mapping[str, Any]) -> dict[str, Collection[str]]:
        names = {record["name"] for record in config_of({}).describe()}
        return {"settings": names - {"batch_size"}}

    def ask(self, form: Form) -> None:
        refuse_without_detectron2(form)
        _ask_paths(form)
        about = "the paper's 16; others scale iterations and learning rate"
        form.count("batch_size", "Images a batch", about, 16)
        about = "2 trains again, on what the detector is sure of as well"
        form.count("rounds", "Rounds", about, 1)
        form.choose("device", DEVICES, "On", default="gpu")
        _ask_settings(form)
        form.attempt("settings", lambda: config_of(form.ctx.params))
        form.note(
            "cost",
            "The paper's training takes days: schedule it",
            "The panel 'ProMerge: training' shows its losses. A training that was stopped goes on "
            "by the same form. Several GPUs: promerge train, on the command line.",
        )

    def about(self, ctx: Any) -> str:
        return f"in {ctx.params['output']}"

    def work(self, ctx: Any, job: Job) -> Outcome:  # type: ignore[override]
        from promerge_fo.detector import read_losses, require_detectron2, train

        require_detectron2()
        import torch

        params = ctx.params
        folder = params["output"]
        keep_training(ctx, folder)
        detector: Path | None = None
        try:
            detector = train(
                params["annotations"],
                folder,
                config_of(params),
                weights=params.get("weights") if params.get("start") != "scratch" else None,
                image_root=params.get("image_root") or None,
                classes=bool(params.get("classes")),
                rounds=params.get("rounds", 1),
                gpus=0 if params.get("device") == "cpu" else min(1, torch.cuda.device_count()),
                num_workers=None if ctx.delegated else 0,
                checkpoint_every=params.get("checkpoint_every") or 5000,
                pictures_every=params.get("pictures_every") or 1000,
                progress=job.progress("iterations"),
            )
        except KeyboardInterrupt:
            if not job.stopped.is_set():
                raise
        rounds = [f"round {number}: {losses}" for number, losses in read_losses(folder).items()]
        ended = "Stopped; the same form goes on from here" if detector is None else detector
        result = {"detector": None if detector is None else str(detector), "folder": folder}
        return Outcome(f"{ended}. {'; '.join(rounds)}", result, panel="promerge_training")


def _ask_paths(form: Form) -> None:
    """Where everything is, and what the training would refuse of it."""
    from promerge_fo.detector.annotations import find_annotations
    from promerge_fo.detector.weights import require_backbone

    root = form.given("image_root") or None
    exported = last_settings(form.ctx, "@promerge/promerge/export_pseudo_labels")
    form.path(
        "annotations",
        "Pseudo-labels",
        "what 'export pseudo-labels' wrote: a .json file, or the folder",
        lambda path: find_annotations(absolute(path), root),
        "Say where the pseudo-labels are.",
        None if exported.get("format") == "yolo" else exported.get("path"),
    )
    about = "the categories of an export with classes; all masks are of one class otherwise"
    form.tick("classes", "Learn classes", about, keep=True)
    about = "empty for an export, which knows its own"
    form.path("image_root", "Folder of the images", about)
    form.path(
        "output",
        "Folder for the training",
        "a new one, or that of a training which was stopped, to go on",
        _check_folder,
        "Say where the training is to be.",
    )
    if form.choose("start", STARTS, "Start from", default="weights") == "weights":
        form.path(
            "weights",
            "Weights",
            "dino_resnet50_pretrain.pth",
            lambda path: require_backbone(absolute(path)),
            "Say which weights to start from, or start from random ones.",
        )


def _check_folder(path: str) -> None:
    from promerge_fo.detector.training import require_folder

    require_writable(absolute(path))
    require_folder(absolute(path))


def _ask_settings(form: Form) -> None:
    """All settings, as the paper's are for the size of the batch."""
    shown = form.tick("show_settings", "Show all settings", keep=True)
    if not shown and not filled(form.ctx.params, "settings", "checkpoint_every", "pictures_every"):
        return  # from Python, some may be given
    group = types.Object()
    scaled = config_of({"batch_size": form.given("batch_size", 16)})
    for record in scaled.describe():
        if record["name"] == "batch_size":
            continue
        value = getattr(scaled, record["name"])
        is_flag = isinstance(value, bool)
        text = f"{record['meaning']}; {record['source']} ({value if is_flag else f'{value:g}'})"
        add_parameter(group, record, text, value if is_flag else None)
    form.group("settings", group)
    form.count("checkpoint_every", "Iterations between two checkpoints (5000)")
    form.count("pictures_every", "Iterations between two looks at predictions (1000)")


def refuse_without_detectron2(form: Form) -> None:
    """Say how to get detectron2 where it is missing."""
    from promerge_fo.detector.requirement import why_no_detectron2

    reason = why_no_detectron2()
    if reason is not None:
        form.refuse(reason, "detectron2_refused")


def config_of(params: dict[str, Any]) -> Any:
    """The settings: the paper's, scaled to the batch, but for what the user has set."""
    from promerge_fo.detector import DetectorConfig

    settings = params.get("settings") or {}
    changes = {name: value for name, value in filled(settings, *settings).items() if value != ""}
    return DetectorConfig().scaled(params.get("batch_size") or 16).replace(**changes)
