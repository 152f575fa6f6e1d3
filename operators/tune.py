"""``tune``: settings chosen by AP on labelled images, from the App."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import fiftyone as fo
from fiftyone.operators import types

from ..forms import CannotRunError, Form, chosen_path, detection_fields, filled, target_of
from ..jobs import Job, Outcome
from ..model_form import ask_model, asked, keep_tuned, load_asked
from ..operator import LongOperator

METRICS = {
    "AP": "precision, averaged over IoUs of 0.5 to 0.95",
    "AP50": "precision at an IoU of 0.5: coarse masks will do",
    "AR100": "recall: how much is found, whatever else is",
}


class Tune(LongOperator):
    """A form and a call of ``promerge_fo.dataset.tune``."""

    label = "ProMerge: tune settings"
    description = "Choose settings by AP on labelled images, and say how sure the choice is"
    icon = "tune"
    button = "Tune"

    def __call__(self, samples: Any, delegate: bool = False, **params: Any) -> Any:
        """Tune from Python: where values of parameters are given, only these are tried."""
        from promerge_fo.dataset.experiments.settings import SEARCH

        ((group, names),) = self.groups(params).items()
        if set(names) & params.keys():
            kind, _ = asked(params)
            params[group] = {**dict.fromkeys(SEARCH[kind], ""), **(params.get(group) or {})}
        return super().__call__(samples, delegate, **params)

    def groups(self, params: Mapping[str, Any]) -> dict[str, Collection[str]]:
        kind, _ = asked(params)
        return {_group_of(kind): [record["name"] for record in kind.describe()]}

    def ask(self, form: Form) -> None:
        fields = detection_fields(form.target())
        if not fields:
            raise CannotRunError(
                "A field of detections is needed, with the ground truth of some 50 images."
            )
        truth = form.choose("gt_field", fields, "Ground truth", default="ground_truth")
        kind, preset, _ = ask_model(form, "kept unless the images show better", with_tuned=False)
        form.choose("metric", METRICS, "Chosen by", default="AP")
        about = "of the cross-validation that says how sure the choice is"
        folds = form.count("folds", "Folds", about, 5, least=2)
        _ask_values(form, kind)
        about = f"keeps features, results and reports; {_default_folder()} if empty"
        form.folder("folder", "Folder", about)
        settings = form.attempt("values", lambda: _settings(form.ctx.params, kind, preset))
        if settings is None:
            return
        if len(settings) < 2:
            form.refuse("Give a parameter two values or more.", "values_refused")
        _tell_images(form, truth, folds, len(settings))

    def about(self, ctx: Any) -> str:
        return f"{ctx.params.get('method', 'promerge')}, by {ctx.params.get('metric', 'AP')}"

    def work(self, ctx: Any, job: Job) -> Outcome:  # type: ignore[override]
        from promerge_fo.dataset.experiments.tuning import tune
        from promerge_fo.dataset.runs.calibrating import calibrate_once

        params, target = ctx.params, target_of(ctx)
        kind, preset = asked(params)
        folder = Path(chosen_path(params.get("folder")) or _default_folder())
        job.show("Loading the encoder")
        model = load_asked(ctx)
        if not params.get("no_calibrate"):
            calibrate_once(target, model, progress=job.progress("images measured"))
        tuning = tune(
            target,
            _settings(params, kind, preset),
            params["gt_field"],
            encoder=model.pipeline.encoder,
            calibration=model.pipeline.calibration,
            folder=folder,
            progress=job.progress("images"),
            **filled(params, "metric", "folds"),
        )
        keep_tuned(ctx, kind.method, tuning)
        report = tuning.report(folder / f"tuning {ctx.dataset.slug}")
        text = f"{tuning}\n\nReport: `{report}`"
        if tuning.decided:
            text += "\n\n*ProMerge: segment instances* has the choice as its preset 'tuned'."
        result = {
            "best": tuning.best,
            "decided": tuning.decided,
            "config": tuning.config.to_dict(),
            "report": str(report),
        }
        return Outcome(text, result)


def _default_folder() -> Path:
    return Path(fo.config.default_dataset_dir) / "promerge-ablation"


def _ask_values(form: Form, kind: Any) -> None:
    """The values to try of each parameter."""
    from promerge_fo.dataset.experiments.settings import SEARCH

    shown = form.tick("show_parameters", "Show all parameters", keep=True)
    group = types.Object()
    for record in kind.describe():
        values = SEARCH[kind].get(record["name"], [])
        if values or shown:
            group.str(
                record["name"],
                default=", ".join(map(str, values)),
                label=record["name"],
                description=f"{record['meaning']}; values with commas, or none",
            )
    form.group(_group_of(kind), group)


def _group_of(kind: Any) -> str:
    """The form of each method has parameters of its own."""
    return f"values_{kind.method}"


def _settings(params: dict[str, Any], kind: Any, preset: str) -> dict[str, Any]:
    """What the form asks to try, the preset itself first."""
    from promerge_fo.dataset.experiments.settings import SEARCH, search_space, values_of

    asked = params.get(_group_of(kind))
    if asked is None:
        return search_space(kind.preset(preset), **SEARCH[kind])
    texts = {name: text for name, text in asked.items() if (text or "").strip()}
    values = values_of(kind, texts)
    config = kind.preset(preset)
    return search_space(config, **values) if values else {"as given": config}


def _tell_images(form: Form, truth: str, folds: int, settings: int) -> None:
    """How many images and settings; refuse too few images."""
    labelled = target_of(form.ctx).match(fo.ViewField(f"{truth}.detections").length() > 0)
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
