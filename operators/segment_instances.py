"""``segment_instances``: give images instance masks, from the App."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import fiftyone as fo
import fiftyone.core.media as fom
from fiftyone.operators import types

from promerge_fo.config import PRESETS
from promerge_fo.dataset.provenance import list_runs, load_run, run_key
from promerge_fo.words import duration

from ..forms import Form, add_parameter, filled, target_of, why_no_name
from ..jobs import Job, Outcome
from ..model_form import ask_embedding, ask_model, asked, encoder_of, load_asked, start_of
from ..operator import LongOperator

#: Headings of the parameters, and those of all methods below them.
GROUPS = {
    "Prompts": ("prompting", "stride", "seed", "tau_b", "norm_eps"),
    "Cuts": ("cuts", "tau", "eps", "max_corners", "max_overlap", "min_area"),
    "Components": ("split_components", "min_component_ratio"),
    "Background": ("background_vote", "min_background_area"),
    "Filtering": ("filtering", "tau_ioa_bg", "tau_f_bg", "nms_iou"),
    "Merging": ("merge_rule", "tau_overlap_merge", "tau_ioa_merge", "tau_f_merge"),
    "Proposals": (
        "levels",
        "low_tau_b",
        "high_tau_b",
        "min_mask_area",
        "duplicate_iou",
        "part_penalty",
        "max_masks",
    ),
    "Refinement": ("image_size", "refine", "crf_scale", "fill_holes", "min_refined_iou"),
    "Score": ("score",),
}

_CALIBRATED = ("max_masks", "min_background_area")  # beside the preset's, what a calibration sets


class SegmentInstances(LongOperator):
    """A form and a call of ``promerge_fo.dataset.segment_dataset``."""

    label = "ProMerge: segment instances"
    description = "Give unlabelled images instance masks, without any human label"
    icon = "auto_awesome"
    makes_masks = True
    heading = "ProMerge: instance masks without labels"
    button = "Segment"
    place = types.Places.SAMPLES_GRID_SECONDARY_ACTIONS
    place_label = "Segment instances with ProMerge"

    def require(self, view: Any) -> None:
        if view.media_type != fom.VIDEO and not _slices_of(view):
            super().require(view)

    def ask(self, form: Form) -> None:
        samples = _ask_samples(form)
        _ask_field(form, samples)
        kind, preset, encoder = ask_model(form)
        ask_embedding(form)
        _ask_parameters(form, kind, preset)
        form.count("batch_size", "Batch size", "images that a GPU encodes together", 8)
        about = "otherwise, images with masks of these very settings are skipped"
        overwrite = form.tick("overwrite", "Do finished images again", about)
        about = "with these very settings; otherwise, they are skipped too"
        retry_failed = form.tick("retry_failed", "Only images that failed", about)
        if overwrite and retry_failed:
            form.refuse("Do finished images again, or only those that failed?", "again_refused")
        encoder = encoder or encoder_of(form.ctx, kind, preset)
        _tell_cost(form, samples, kind, preset, encoder)

    def groups(self, params: Mapping[str, Any]) -> dict[str, Collection[str]]:
        kind, preset = asked(params)
        return {_group_of(kind, preset): [record["name"] for record in kind.describe()]}

    def work(self, ctx: Any, job: Job) -> Outcome:  # type: ignore[override]
        from promerge_fo.dataset.runs.calibrating import calibrate_once
        from promerge_fo.dataset.runs.segment import segment_dataset
        from promerge_fo.dataset.samples import images_of

        params = ctx.params
        job.show("Loading the encoder")
        model = load_asked(ctx, **_changes(params, *asked(params)))
        target = images_of(target_of(ctx), params.get("group_slice"), or_videos=True)
        field = params.get("label_field", "promerge")
        calibration = None
        if not params.get("no_calibrate"):
            bar = job.progress("images measured")
            calibration = calibrate_once(target, model, progress=bar)
        report = segment_dataset(
            target,
            model,
            field,
            calibrate=False,  # it was, where it should be
            progress=job.progress(units_of(target)),
            **filled(params, "batch_size", "overwrite", "retry_failed", "drop_decisions"),
        )
        return report_outcome(report, field, model, calibration)


def report_outcome(report: Any, field: str, model: Any, calibration: Any = None) -> Outcome:
    """What a run did, in words and in figures."""
    parts = (
        ["Stopped; what was done is kept.", str(report)] if report.interrupted else [str(report)]
    )
    if calibration is not None:
        parts.append(f"Calibrated: {calibration}.")
    result = {
        "label_field": field,
        "run": run_key(field, model.hash),
        "run_hash": model.hash,
        "counts": report.counts,
        "skipped": report.skipped,
        "masks": report.instances,
        "seconds": report.seconds,
        "interrupted": report.interrupted,
        "diagnosis": report.diagnosis,
        "calibration": None if calibration is None else calibration.to_dict(),
    }
    return Outcome("\n\n".join(parts), result)


def _slices_of(samples: Any) -> list[str]:
    """The slices of groups that can be segmented; none of other samples."""
    if samples.media_type != fom.GROUP:
        return []
    kinds = samples.group_media_types or {}
    return [name for name, kind in kinds.items() if kind in (fom.IMAGE, fom.VIDEO)]


def _ask_samples(form: Form) -> Any:
    """Which samples, and of groups which slice; returns those chosen now."""
    samples = form.target()
    slices = _slices_of(samples)
    if not slices:
        return samples
    about = "what is segmented of each group"
    return samples.select_group_slices(
        form.choose("group_slice", slices, "Slice", about, samples.group_slice)
    )


def _path_of(samples: Any, field: str) -> str:
    """The path of the masks' field: of videos, it is one of their frames."""
    return f"frames.{field}" if samples.media_type == fom.VIDEO else field


def _ask_field(form: Form, samples: Any) -> None:
    """The field for the masks, and what happens to labels that it has."""
    about = "the field that takes the masks"
    name = form.text("label_field", "Label field", about, "promerge")
    path, dataset = _path_of(samples, name), form.ctx.dataset
    wrong = why_no_name(name, "field")
    if wrong:
        form.refuse(wrong, "label_field_refused")
        return
    field = dataset.get_field(path)
    if field is None:
        return
    if getattr(field, "document_type", None) is not fo.Detections:
        form.refuse(
            f"The field {path!r} holds {field}; take a field of detections, or a new name.",
            "label_field_refused",
        )
    elif dataset.has_field(f"{path}.run"):
        form.note("overwrites", f"Masks in '{path}' that other settings made are replaced")
        form.ask_to_drop(hands_on=path == name)
    else:
        warning = f"'{path}' has labels of another origin: they are replaced"
        form.confirm("replace", warning, f"Replace the labels in '{path}'", "field")


def _ask_parameters(form: Form, kind: Any, preset: str) -> None:
    """All parameters, in groups, as the preset has them."""
    if not form.tick("show_parameters", "Show all parameters", keep=True):
        return
    start = start_of(form.ctx, kind, preset)
    values = start.to_dict()
    records = {record["name"]: record for record in kind.describe()}
    group = types.Object()
    for heading, names in GROUPS.items():
        own = [name for name in names if name in records]
        if own:
            group.view(f"heading_{heading}", types.Header(label=heading, divider=True))
        for name in own:
            record = records[name]
            add_parameter(group, record, f"{record['meaning']} ({record['source']})", values[name])
    form.group(_group_of(kind, preset), group)
    changes = _changes(form.ctx.params, kind, preset)
    form.attempt("parameters", lambda: start.replace(**changes))


def _group_of(kind: Any, preset: str) -> str:
    """The form of each method and preset has parameters of its own."""
    return f"{kind.method}_{preset}"


def _changes(params: dict[str, Any], kind: Any, preset: str) -> dict[str, Any]:
    """What the user has set of the parameters."""
    group = params.get(_group_of(kind, preset)) or {}
    return filled(group, *group)


def _tell_cost(form: Form, samples: Any, kind: Any, preset: str, encoder: str) -> None:
    """How many images are to be done, and how long it takes, as far as this machine has shown."""
    from promerge_fo.dataset.provenance import last_rate

    units = units_of(samples)
    lengths = samples.values("metadata.total_frame_count") if units == "frames" else [1]
    least = "at least " if None in lengths else ""
    total = sum(n or 1 for n in lengths) if units == "frames" else samples.count()
    done = _count_done(form, samples, kind, preset, encoder)
    count = max(total - done, 0)
    rate = last_rate(kind.method, encoder)
    if done and not count:
        known = "'Do finished images again' does them anew"
    elif rate is None:
        known = "this machine has not run this method with this encoder yet"
    else:
        known = f"about {duration(count / rate)} at this machine's last {rate:.2f} {units} a second"
    before = f" of {total:,}, as {done:,} are done" if done else ""
    form.note(
        "cost",
        f"{least}{count:,} {units}{before}; {known}",
        "It runs beside the App: the panel 'ProMerge: runs' shows how far it is, and stops it.",
    )


def _count_done(form: Form, samples: Any, kind: Any, preset: str, encoder: str) -> int:
    """How many images have masks of these settings, as far as the form knows them."""
    from promerge_fo.dataset.runs.resume import finished

    params, dataset = form.ctx.params, form.ctx.dataset
    field = params.get("label_field", "promerge")
    path = _path_of(samples, field)
    if params.get("overwrite") or not dataset.has_field(f"{path}.run"):
        return 0
    try:
        config = start_of(form.ctx, kind, preset).replace(**_changes(params, kind, preset))
    except (TypeError, ValueError):  # the form says so
        return 0
    for key in reversed(list_runs(dataset)):
        record = load_run(dataset, key)
        if record["label_field"] == field and _is_of(record, config, encoder):
            if path != field:
                return finished([samples], field, record["run_hash"]).total()
            view = samples.match(fo.ViewField(f"{field}.run") == record["run_hash"])
            if params.get("retry_failed"):  # all but those that failed are left alone
                failed = view.match(fo.ViewField(f"{field}.status") == "failed")
                return int(samples.count() - failed.count())
            return int(view.count())
    return 0


def units_of(samples: Any) -> str:
    """What a run on these samples counts."""
    return "frames" if samples.media_type == fom.VIDEO else "images"


def _is_of(record: dict[str, Any], config: Any, encoder: str) -> bool:
    """Whether a run had these settings, but for what its calibration chose."""
    if record.get("encoder", {}).get("name") != encoder or record["method"] != config.method:
        return False
    asked, had = config.to_dict(), record["config"]
    chosen: set[str] = set()
    if "calibration" in record:
        chosen = {*record["calibration"]["parameters"], *PRESETS["proposals"], *_CALIBRATED}
    return all(had.get(name) == value for name, value in asked.items() if name not in chosen)
