"""``segment_instances``: give images instance masks, from the App."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from ..forms import Form, chosen_path, why_no_name
from ..model_form import ask_encoder, ask_method, ask_preset, encoder_of, kind_of, start_of
from ..operator import Operator
from ..progress import follow, outcome

#: Headings of the parameters, and those of all methods below them.
GROUPS = {
    "Prompts": ("prompting", "stride", "seed", "tau_b", "norm_eps"),
    "Cuts": ("cuts", "tau", "eps", "max_corners", "max_overlap", "min_area"),
    "Components": ("split_components", "min_component_ratio"),
    "Background": ("background_vote", "min_background_area"),
    "Filtering": ("filtering", "tau_ioa_bg", "tau_f_bg", "nms_iou"),
    "Merging": ("merge_rule", "tau_overlap_merge", "tau_ioa_merge", "tau_f_merge"),
    "Refinement": ("image_size", "refine", "fill_holes", "min_refined_iou"),
    "Score": ("score",),
}


class SegmentInstances(Operator):
    """A form and a call of ``promerge_fo.dataset.segment_dataset``."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="segment_instances",
            label="ProMerge: segment instances",
            description="Give unlabelled images instance masks, without any human label",
            icon="auto_awesome",
            dynamic=True,
            execute_as_generator=True,
            allow_immediate_execution=True,
            allow_delegated_execution=True,
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        form = Form(ctx, "ProMerge: instance masks without labels", "Segment")
        if form.refuse_without_images():
            return form.property()
        form.inputs.view_target(ctx)
        _ask_field(form)
        kind = ask_method(form)
        preset = ask_preset(form, kind)
        encoder = ask_encoder(form)
        _ask_parameters(form, kind, preset)
        form.inputs.int(
            "batch_size",
            default=form.last.get("batch_size", 8),
            min=1,
            label="Batch size",
            description="images that a GPU encodes together",
        )
        form.inputs.bool(
            "overwrite",
            default=False,
            label="Do finished images again",
            description="otherwise, images with masks of these very settings are skipped",
        )
        form.inputs.bool(
            "retry_failed",
            default=False,
            label="Only images that failed",
            description="with these very settings; otherwise, they are skipped too",
        )
        if form.ctx.params.get("overwrite") and form.ctx.params.get("retry_failed"):
            form.refuse("Do finished images again, or only those that failed?", "again_refused")
        _tell_cost(form, kind.method, encoder or encoder_of(ctx, kind, preset))
        return form.property()

    def work(self, ctx: Any) -> Any:
        from promerge_fo.dataset.runs.model import load_model
        from promerge_fo.dataset.runs.segment import segment_dataset

        params = ctx.params
        kind, preset = kind_of(params.get("method")), params.get("preset", "default")
        yield ctx.ops.set_progress(label="Loading the encoder", progress=0)
        model = load_model(
            config=start_of(ctx, kind, preset).replace(**_changes(params, kind, preset)),
            encoder=params.get("encoder") or encoder_of(ctx, kind, preset),
            checkpoint=chosen_path(params.get("checkpoint")),
        )
        field = params.get("label_field", "promerge")
        report = yield from follow(
            ctx,
            "images",
            lambda bar: segment_dataset(
                ctx.target_view(),
                model,
                field,
                batch_size=params.get("batch_size", 8),
                overwrite=params.get("overwrite", False),
                retry_failed=params.get("retry_failed", False),
                progress=bar,
            ),
        )
        yield ctx.ops.reload_dataset()
        text = f"Stopped; what was done is kept. {report}" if report.interrupted else str(report)
        yield outcome(ctx, text)

    def resolve_placement(self, ctx: Any) -> types.Placement:
        return types.Placement(
            types.Places.SAMPLES_GRID_SECONDARY_ACTIONS,
            types.Button(label="Segment instances with ProMerge", icon="auto_awesome", prompt=True),
        )


def _ask_field(form: Form) -> None:
    form.inputs.str(
        "label_field",
        default=form.last.get("label_field", "promerge"),
        required=True,
        label="Label field",
        description="the field that takes the masks",
    )
    name, dataset = form.given("label_field", "promerge"), form.ctx.dataset
    wrong = why_no_name(name, "field")
    if wrong:
        form.refuse(wrong, "label_field_refused")
        return
    if not dataset.has_field(name):
        return
    if name not in dataset.get_field_schema(embedded_doc_type=_detections()):
        form.refuse(
            f"The field {name!r} holds {dataset.get_field(name)}; take a field of detections, or a "
            "new name.",
            "label_field_refused",
        )
    elif dataset.has_field(f"{name}.run"):
        form.note("overwrites", f"Masks in '{name}' that other settings made are replaced")
    else:
        form.warn("overwrites", f"'{name}' has labels of another origin: they are replaced")
        form.inputs.bool("replace", default=False, label=f"Replace the labels in '{name}'")
        if not form.ctx.params.get("replace"):
            form.refuse("Tick the box, or choose another field.", "replace_refused")


def _detections() -> Any:
    import fiftyone as fo

    return fo.Detections


def _ask_parameters(form: Form, kind: Any, preset: str) -> None:
    """All parameters, in groups, as the preset has them."""
    form.inputs.bool("show_parameters", default=False, label="Show all parameters")
    if not form.ctx.params.get("show_parameters"):
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
            _ask_parameter(group, records[name], values[name])
    form.inputs.define_property(_group_of(kind, preset), group)
    try:
        start.replace(**_changes(form.ctx.params, kind, preset))
    except (TypeError, ValueError) as error:
        form.refuse(str(error), "parameters_refused")


def _ask_parameter(group: types.Object, record: dict[str, Any], value: Any) -> None:
    name, text = record["name"], f"{record['meaning']} ({record['source']})"
    shared = {"default": value, "label": name, "description": text}
    if record["choices"]:
        group.enum(name, record["choices"], required=True, **shared)
    elif record["type"] == "bool":
        group.bool(name, **shared)
    elif record["type"] == "int":
        group.int(name, min=record["low"], max=record["high"], **shared)
    else:
        group.float(name, min=record["low"], max=record["high"], **shared)


def _group_of(kind: Any, preset: str) -> str:
    """The form of each method and preset has parameters of its own."""
    return f"{kind.method}_{preset}"


def _changes(params: dict[str, Any], kind: Any, preset: str) -> dict[str, Any]:
    """What the user has set of the parameters."""
    given = params.get(_group_of(kind, preset)) or {}
    return {name: value for name, value in given.items() if value is not None}


def _tell_cost(form: Form, method: str, encoder: str) -> None:
    """How many images, and how long, as far as this machine has shown."""
    from promerge_fo.dataset.provenance import last_rate
    from promerge_fo.words import duration

    count = form.ctx.target_view().count()
    rate = last_rate(method, encoder)
    if rate is None:
        known = "this machine has not run this method with this encoder yet"
    else:
        known = f"about {duration(count / rate)} at this machine's last {rate:.2f} images a second"
    form.note(
        "cost",
        f"{count:,} images; {known}",
        "To end it early: 'Done', and the operator 'ProMerge: stop'. What is done is kept.",
    )
