"""``segment_instances``: give images instance masks, from the App."""

from __future__ import annotations

import queue
import threading
from typing import Any

import fiftyone.operators as foo
from fiftyone.core.media import MediaTypeError
from fiftyone.operators import types

PRESETS = {
    "default": ("Default", "the released code's masks, with scores that rank them"),
    "official": ("Official", "the authors' released code, every score 1"),
    "paper": ("Paper", "Algorithm 1 of the paper, every score 1"),
    "fast": ("Fast", "a smaller encoder, for machines without a GPU"),
}


class SegmentInstances(foo.Operator):
    """A form and a call of ``promerge_fo.dataset.segment.segment_dataset``."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="segment_instances",
            label="ProMerge: segment instances",
            description="Give unlabelled images instance masks, without any human label",
            icon="auto_awesome",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        from promerge_fo.dataset.labels import require_images

        inputs = types.Object()
        form = types.View(label="ProMerge: instance masks without labels")
        try:
            require_images(ctx.dataset)
        except MediaTypeError as error:
            inputs.view("refused", types.Error(label="No images here", description=str(error)))
            prop = types.Property(inputs, view=form)
            prop.invalid = True
            return prop
        inputs.view_target(ctx)
        inputs.str(
            "label_field",
            default="promerge",
            required=True,
            label="Label field",
            description="the field that takes the masks",
        )
        field = ctx.params.get("label_field", "promerge")
        if ctx.dataset.has_field(field):
            inputs.view(
                "overwrites",
                types.Notice(label=f"Masks in '{field}' made by other settings are replaced"),
            )
        presets = types.DropdownView()
        for name, (label, meaning) in PRESETS.items():
            presets.add_choice(name, label=label, description=meaning)
        inputs.enum("preset", presets.values(), default="default", label="Preset", view=presets)
        inputs.str(
            "encoder",
            label="Encoder",
            description="a timm ViT, or 'texture', which needs no weights; the preset's if empty",
        )
        inputs.file(
            "checkpoint",
            label="Checkpoint",
            description="weights in DINO's or timm's layout, in place of the hub's",
            view=types.FileExplorerView(button_label="Choose a file"),
        )
        inputs.int("batch_size", default=8, min=1, label="Batch size")
        return types.Property(inputs, view=form)

    def execute(self, ctx: Any) -> Any:
        from promerge_fo.dataset.model import load_model
        from promerge_fo.dataset.segment import segment_dataset

        checkpoint = ctx.params.get("checkpoint")
        if isinstance(checkpoint, dict):
            checkpoint = checkpoint.get("absolute_path")
        yield ctx.ops.set_progress(label="Loading the encoder", progress=0)
        model = load_model(
            preset=ctx.params.get("preset", "default"),
            encoder=ctx.params.get("encoder") or None,
            checkpoint=checkpoint or None,
        )
        steps: queue.Queue[Any] = queue.Queue()

        def work() -> None:
            try:
                steps.put(
                    segment_dataset(
                        ctx.target_view(),
                        model,
                        ctx.params.get("label_field", "promerge"),
                        batch_size=ctx.params.get("batch_size", 8),
                        progress=lambda total: _Bar(total, steps),
                    )
                )
            except Exception as error:
                steps.put(error)

        threading.Thread(target=work, daemon=True).start()
        while isinstance(step := steps.get(), _Step):
            share = step.done / step.total
            yield ctx.ops.set_progress(label=f"{step.done} of {step.total} images", progress=share)
        if isinstance(step, Exception):
            raise step
        yield ctx.ops.reload_dataset()
        yield {"report": str(step)}

    def resolve_output(self, ctx: Any) -> types.Property:
        outputs = types.Object()
        outputs.str("report", label="Result")
        return types.Property(outputs)

    def resolve_placement(self, ctx: Any) -> types.Placement:
        return types.Placement(
            types.Places.SAMPLES_GRID_SECONDARY_ACTIONS,
            types.Button(label="Segment instances with ProMerge", icon="auto_awesome", prompt=True),
        )


class _Step:
    """How far a run is."""

    def __init__(self, done: int, total: int) -> None:
        self.done, self.total = done, total


class _Bar:
    """A progress bar that tells a queue."""

    def __init__(self, total: int, steps: queue.Queue[Any]) -> None:
        self.done, self.total, self.steps = 0, total, steps

    def update(self, n: int) -> None:
        self.done += n
        self.steps.put(_Step(self.done, self.total))

    def close(self) -> None:
        pass
