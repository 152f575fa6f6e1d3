"""``train_detector``: ProMerge+, a detector that learns from exported pseudo-labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from ..forms import Form, chosen_path, last_settings
from ..operator import Operator
from ..progress import follow, outcome
from ..trainings import keep_training

STARTS = {
    "weights": "DINO's ResNet-50, as in the paper, or another in torchvision's layout",
    "scratch": "random weights: for trying things out",
}
DEVICES = {"gpu": "the first GPU, where there is one", "cpu": "the CPU, and no GPU"}
MISSING = {
    "annotations": "Say where the pseudo-labels are.",
    "output": "Say where the training is to be.",
    "weights": "Say which weights to start from, or start from random ones.",
}


class TrainDetector(Operator):
    """A form and a call of ``promerge_fo.detector.train``."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="train_detector",
            label="ProMerge: train a detector",
            description="ProMerge+: a Cascade Mask R-CNN that learns from exported pseudo-labels",
            icon="model_training",
            dynamic=True,
            execute_as_generator=True,
            allow_immediate_execution=True,
            allow_delegated_execution=True,
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        form = Form(ctx, "ProMerge: train a detector on pseudo-labels", "Train")
        refuse_without_detectron2(form)
        exported = last_settings(ctx, "@promerge/promerge/export_pseudo_labels").get("path")
        form.ask_path(
            "annotations",
            "Pseudo-labels",
            "what 'export pseudo-labels' wrote: a .json file, or the folder",
            required=True,
            default=exported,
        )
        form.ask_path(
            "image_root", "Folder of the images", "empty for an export, which knows its own"
        )
        form.ask_path(
            "output",
            "Folder for the training",
            "a new one, or that of a training which was stopped, to go on",
            required=True,
        )
        if form.choose("start", STARTS, "Start from", default="weights") == "weights":
            form.ask_path("weights", "Weights", "dino_resnet50_pretrain.pth", required=True)
        form.inputs.int(
            "batch_size",
            default=form.last.get("batch_size", 16),
            min=1,
            label="Images a batch",
            description="the paper's 16; others scale iterations and learning rate",
        )
        form.inputs.int(
            "rounds",
            default=form.last.get("rounds", 1),
            min=1,
            label="Rounds",
            description="2 trains again, on what the detector is sure of as well",
        )
        form.choose("device", DEVICES, "On", default="gpu")
        self._ask_settings(form)
        self._check(form, exported)
        return form.property()

    def _ask_settings(self, form: Form) -> None:
        form.inputs.bool("show_settings", default=False, label="Show all settings")
        given = {"settings", "checkpoint_every", "pictures_every"} & set(form.ctx.params)
        if not form.ctx.params.get("show_settings") and not given:  # from Python, some are
            return
        group = types.Object()
        scaled = config_of({"batch_size": form.given("batch_size", 16)})
        for record in scaled.describe():
            name, value = record["name"], getattr(scaled, record["name"])
            shown = value if isinstance(value, bool) else f"{value:g}"
            text = f"{record['meaning']}; {record['source']} ({shown})"
            if name == "batch_size":
                continue
            if record["type"] == "bool":
                group.bool(name, default=value, label=name, description=text)
            elif record["type"] == "int":
                group.int(name, min=record["low"], max=record["high"], label=name, description=text)
            else:
                group.float(
                    name, min=record["low"], max=record["high"], label=name, description=text
                )
        form.inputs.define_property("settings", group)
        for name, text in (
            ("checkpoint_every", "Iterations between two checkpoints (5000)"),
            ("pictures_every", "Iterations between two looks at predictions (1000)"),
        ):
            form.inputs.int(name, min=1, default=form.last.get(name), label=text)

    def _check(self, form: Form, exported: str | None) -> None:
        """What the training would refuse, while the user can still mend it."""
        from promerge_fo.detector.annotations import find_annotations
        from promerge_fo.detector.training import require_folder
        from promerge_fo.detector.weights import require_backbone

        root = form.given("image_root") or None
        _check_path(form, "annotations", exported, lambda path: find_annotations(path, root))
        _check_path(form, "output", None, require_folder)
        if form.given("start", "weights") == "weights":
            _check_path(form, "weights", None, require_backbone)
        try:
            config_of(form.ctx.params)
        except (TypeError, ValueError) as error:
            form.refuse(str(error), "settings_refused")
        form.note(
            "cost",
            "The paper's training takes days: schedule it",
            "The panel 'ProMerge: training' shows its losses. A training that was stopped goes on "
            "by the same form. Several GPUs: promerge train, on the command line.",
        )

    def work(self, ctx: Any) -> Any:
        from promerge_fo.detector import read_losses, require_detectron2, train

        require_detectron2()
        import torch

        params = ctx.params
        folder = chosen_path(params["output"])
        keep_training(ctx, folder)

        def run(bar: Any) -> Path | None:
            try:
                return train(
                    chosen_path(params["annotations"]),
                    folder,
                    config_of(params),
                    weights=params.get("weights") if params.get("start") != "scratch" else None,
                    image_root=chosen_path(params.get("image_root")),
                    rounds=params.get("rounds", 1),
                    gpus=0 if params.get("device") == "cpu" else min(1, torch.cuda.device_count()),
                    num_workers=None if ctx.delegated else 0,
                    checkpoint_every=params.get("checkpoint_every") or 5000,
                    pictures_every=params.get("pictures_every") or 1000,
                    progress=bar,
                )
            except KeyboardInterrupt:
                if ctx.delegated:
                    raise
                return None

        detector = yield from follow(ctx, "iterations", run)
        rounds = [f"round {number}: {losses}" for number, losses in read_losses(folder).items()]
        text = "; ".join(rounds)
        if detector is None:
            yield outcome(ctx, f"Stopped; the same form goes on from here. {text}")
        else:
            yield outcome(ctx, f"{detector}. {text}")


def _check_path(form: Form, name: str, default: str | None, check: Callable[[str], Any]) -> None:
    """Say what is wrong with a path, if anything is."""
    path = form.given(name, default)
    if not path:
        form.refuse(MISSING[name], f"{name}_refused")
    elif not Path(path).expanduser().is_absolute():
        form.refuse(f"{path!r} is no absolute path, such as /data/{path}.", f"{name}_refused")
    else:
        try:
            check(path)
        except (ValueError, OSError, RuntimeError) as error:
            form.refuse(str(error), f"{name}_refused")


def refuse_without_detectron2(form: Form) -> None:
    """Say how to get detectron2 where it is missing."""
    from promerge_fo.detector.requirement import why_no_detectron2

    reason = why_no_detectron2()
    if reason is not None:
        form.refuse(reason, "detectron2_refused")


def config_of(params: dict[str, Any]) -> Any:
    """The settings: the paper's, scaled to the batch, but for what the user has set."""
    from promerge_fo.detector import DetectorConfig

    given = {name: value for name, value in (params.get("settings") or {}).items() if value != ""}
    changes = {name: value for name, value in given.items() if value is not None}
    return DetectorConfig().scaled(params.get("batch_size") or 16).replace(**changes)
