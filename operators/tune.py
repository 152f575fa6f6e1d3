"""``tune``: settings chosen by AP on labelled images, from the App."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types

from ..forms import Form, chosen_path, detection_fields
from ..model_form import (
    PRESETS,
    ask_encoder,
    ask_method,
    keep_tuned,
    kind_of,
)
from ..operator import Operator
from ..progress import follow, outcome

METRICS = {
    "AP": "precision, averaged over IoUs of 0.5 to 0.95",
    "AP50": "precision at an IoU of 0.5: coarse masks will do",
    "AR100": "recall: how much is found, whatever else is",
}


class Tune(Operator):
    """A form and a call of ``promerge_fo.dataset.tune``."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="tune",
            label="ProMerge: tune settings",
            description="Choose settings by AP on labelled images, and say how sure the choice is",
            icon="tune",
            dynamic=True,
            execute_as_generator=True,
            allow_immediate_execution=True,
            allow_delegated_execution=True,
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        form = Form(ctx, "ProMerge: tune settings", "Tune")
        fields = detection_fields(ctx.dataset)
        if form.refuse_without_images():
            return form.property()
        if not fields:
            form.refuse("A field of detections is needed, with the ground truth of some 50 images.")
            return form.property()
        form.inputs.view_target(ctx)
        truth = form.choose("gt_field", fields, "Ground truth", default="ground_truth")
        kind = ask_method(form)
        presets = {name: PRESETS[name] for name in kind.presets}
        preset = form.choose(
            "preset", presets, "Preset", "kept unless the images show better", default="default"
        )
        ask_encoder(form)
        form.choose("metric", METRICS, "Chosen by", default="AP")
        folds = form.given("folds", 5)
        form.inputs.int(
            "folds",
            default=folds,
            min=2,
            label="Folds",
            description="of the cross-validation that says how sure the choice is",
        )
        _ask_values(form, kind)
        form.inputs.file(
            "folder",
            label="Folder",
            description=f"keeps features, results and reports; {_default_folder()} if empty",
            view=types.FileExplorerView(choose_dir=True, button_label="Choose a folder"),
        )
        try:
            count = len(_settings(ctx.params, kind, preset))
        except (TypeError, ValueError) as error:
            form.refuse(str(error), "values_refused")
            return form.property()
        if count < 2:
            form.refuse("Give a parameter two values or more.", "values_refused")
        _tell_images(form, truth, folds, count)
        return form.property()

    def work(self, ctx: Any) -> Any:
        from promerge_fo.dataset import tune
        from promerge_fo.dataset.runs.model import load_model, preset_encoder

        params = ctx.params
        kind, preset = kind_of(params.get("method")), params.get("preset", "default")
        folder = Path(chosen_path(params.get("folder")) or _default_folder())
        yield ctx.ops.set_progress(label="Loading the encoder", progress=0)
        model = load_model(
            config=kind.preset(preset),
            encoder=params.get("encoder") or preset_encoder(preset),
            checkpoint=chosen_path(params.get("checkpoint")),
        )
        tuning = yield from follow(
            ctx,
            "images",
            lambda bar: tune(
                ctx.target_view(),
                _settings(params, kind, preset),
                params["gt_field"],
                encoder=model.pipeline.encoder,
                folder=folder,
                metric=params.get("metric", "AP"),
                folds=params.get("folds", 5),
                progress=bar,
            ),
        )
        keep_tuned(ctx, kind.method, tuning)
        report = tuning.report(folder / f"tuning {ctx.dataset.slug}")
        text = f"{tuning}\n\nReport: `{report}`"
        if tuning.decided:
            text += "\n\n*ProMerge: segment instances* has the choice as its preset 'tuned'."
        yield outcome(ctx, text, types.MarkdownView())


def _default_folder() -> Path:
    return Path(fo.config.default_dataset_dir) / "promerge-ablation"


def _ask_values(form: Form, kind: Any) -> None:
    """The values to try of each parameter."""
    from promerge_fo.dataset.experiments.tuning import SEARCH

    form.inputs.bool("show_parameters", default=False, label="Show all parameters")
    shown = form.ctx.params.get("show_parameters")
    group = types.Object()
    for record in kind.describe():
        name = record["name"]
        values = SEARCH[kind].get(name, [])
        if values or shown:
            group.str(
                name,
                default=", ".join(map(str, values)),
                label=name,
                description=f"{record['meaning']}; values with commas, or none",
            )
    form.inputs.define_property(_group_of(kind), group)


def _group_of(kind: Any) -> str:
    """The form of each method has parameters of its own."""
    return f"values_{kind.method}"


def _settings(params: dict[str, Any], kind: Any, preset: str) -> dict[str, Any]:
    """What the form asks to try, the preset itself first."""
    from promerge_fo.dataset.experiments.settings import values_of
    from promerge_fo.dataset.experiments.tuning import SEARCH, search_space

    given = params.get(_group_of(kind))
    if given is None:
        return search_space(kind.preset(preset), **SEARCH[kind])
    texts = {name: text for name, text in given.items() if (text or "").strip()}
    values = values_of(kind, texts)
    config = kind.preset(preset)
    return search_space(config, **values) if values else {"as given": config}


def _tell_images(form: Form, truth: str, folds: int, settings: int) -> None:
    """How many images and settings; refuse too few images."""
    labelled = form.ctx.target_view().match(fo.ViewField(f"{truth}.detections").length() > 0)
    count = labelled.count()
    if count < 2 * folds:
        form.refuse(
            f"{count} images have objects in {truth!r}, but {folds} folds want {2 * folds} at "
            "least: label more images, or take fewer folds.",
            "images_refused",
        )
        return
    form.note(
        "cost",
        f"{settings} settings on {count:,} images with objects",
        "Features and results are kept: what was tried before is not tried again.",
    )
