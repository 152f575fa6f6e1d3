"""``explain``: what each step of ProMerge makes of one image."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types

from ..forms import Form, chosen_path
from ..model_form import ENCODERS
from ..operator import Operator
from .show_run import choose_run


class Explain(Operator):
    """The figure of ``promerge explain`` for the open sample."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="explain",
            label="ProMerge: explain this image",
            description="Prompts, background vote, filtering and merging of one image",
            icon="psychology_alt",
            dynamic=True,
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        from promerge_fo.config import METHODS
        from promerge_fo.dataset.provenance import list_runs, load_run

        form = Form(ctx, "ProMerge: explain an image", "Explain")
        if _sample_id(ctx) is None:
            form.refuse("Open an image, or select one in the grid.")
            return form.property()
        runs = [load_run(ctx.dataset, key) for key in list_runs(ctx.dataset)]
        if any(run["method"] in METHODS for run in runs):
            choose_run(form, METHODS)
        else:
            form.note("no_run", "No run yet: the default settings are explained")
            form.choose("encoder", ENCODERS, "Encoder", default="texture")
        form.inputs.file(
            "checkpoint",
            label="Checkpoint",
            description="the encoder's weights, where they come from a file",
            view=types.FileExplorerView(button_label="Choose a file"),
        )
        return form.property()

    def work(self, ctx: Any) -> dict[str, Any]:
        from promerge_fo.dataset.provenance import load_run
        from promerge_fo.figures import explain_image, save

        params, checkpoint = ctx.params, chosen_path(ctx.params.get("checkpoint"))
        if params.get("run"):
            record = load_run(ctx.dataset, params["run"])
            model = _of_run(ctx.dataset.name, record["run_hash"], params["run"], checkpoint)
        else:
            model = _of_encoder(params.get("encoder", "texture"), checkpoint)
        figure = explain_image(ctx.dataset[_sample_id(ctx)].filepath, model.pipeline)
        picture = io.BytesIO()
        save(figure, picture)
        return {"figure": f"data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}"}

    def resolve_output(self, ctx: Any) -> types.Property:
        outputs = types.Object()
        outputs.str("figure", label="", view=types.ImageView(width="100%"))
        return types.Property(outputs, view=types.View(label="From prompts to masks"))

    def resolve_placement(self, ctx: Any) -> types.Placement:
        return types.Placement(
            types.Places.SAMPLES_VIEWER_ACTIONS,
            types.Button(label="Explain with ProMerge", icon="psychology_alt", prompt=True),
        )


def _sample_id(ctx: Any) -> str | None:
    """The open sample, or else the only selected one."""
    if ctx.current_sample:
        return str(ctx.current_sample)
    return str(ctx.selected[0]) if len(ctx.selected or []) == 1 else None


@lru_cache(maxsize=1)
def _of_run(dataset: str, run_hash: str, key: str, checkpoint: str | None) -> Any:
    """A run's model, kept for the next image."""
    from promerge_fo.dataset.provenance import load_run
    from promerge_fo.dataset.runs.model import model_of_run

    return model_of_run(load_run(fo.load_dataset(dataset), key), checkpoint)


@lru_cache(maxsize=1)
def _of_encoder(encoder: str, checkpoint: str | None) -> Any:
    from promerge_fo.dataset.runs.model import load_model

    return load_model(encoder=encoder, checkpoint=checkpoint)
