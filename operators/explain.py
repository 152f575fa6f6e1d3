"""``explain``: what each step of ProMerge makes of one image."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from typing import Any

import fiftyone as fo
from fiftyone.operators import types

from promerge_fo.dataset.database import is_patches

from ..forms import CannotRunError, Form, chosen_path
from ..model_form import ENCODERS
from ..operator import Operator
from .show_run import choose_run


class Explain(Operator):
    """The figure of ``promerge explain`` for the open sample."""

    label = "ProMerge: explain this image"
    description = "Prompts, background vote, filtering and merging of one image"
    icon = "psychology_alt"
    heading = "ProMerge: explain an image"
    button = "Explain"
    place = types.Places.SAMPLES_VIEWER_ACTIONS
    place_label = "Explain with ProMerge"
    needs_images = False

    def ask(self, form: Form) -> None:
        from promerge_fo.config import METHODS

        if _sample_id(form.ctx) is None:
            raise CannotRunError("Open an image, or select one in the grid.")
        try:
            choose_run(form, METHODS)
        except CannotRunError:
            form.note("no_run", "No run yet: the default settings are explained")
            form.choose("encoder", ENCODERS, "Encoder", default="texture")
        form.file("checkpoint", "Checkpoint", "the encoder's weights, where they come from a file")

    def work(self, ctx: Any) -> dict[str, Any]:
        from promerge_fo.dataset.provenance import load_run
        from promerge_fo.figures import explain_image, save

        params, checkpoint = ctx.params, chosen_path(ctx.params.get("checkpoint"))
        if params.get("run"):
            record = load_run(ctx.dataset, params["run"])
            model = _of_run(ctx.dataset.name, record["run_hash"], params["run"], checkpoint)
        else:
            encoder = params.get("encoder", "texture")
            model = _of_encoder(ctx.dataset.name, encoder, checkpoint)
        figure = explain_image(ctx.dataset[_sample_id(ctx)].filepath, model.pipeline)
        picture = io.BytesIO()
        save(figure, picture)
        return {"figure": f"data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}"}

    def resolve_output(self, ctx: Any) -> types.Property:
        outputs = types.Object()
        wide = {"container": {"sx": {"width": "min(1600px, 85vw)"}}}  # twice the App's own
        view = types.ImageView(width="100%", componentsProps=wide)
        outputs.str("figure", label="", view=view)
        return types.Property(outputs, view=types.View(label="From prompts to masks"))


def _sample_id(ctx: Any) -> str | None:
    """The open sample, or else the only selected one; that of a patch."""
    chosen = ctx.current_sample
    if not chosen and len(ctx.selected or []) == 1:
        chosen = ctx.selected[0]
    if chosen and is_patches(ctx.view):
        chosen = ctx.view[chosen].sample_id
    return str(chosen) if chosen else None


@lru_cache(maxsize=1)
def _of_run(dataset: str, run_hash: str, key: str, checkpoint: str | None) -> Any:
    """A run's model, kept for the next image."""
    from promerge_fo.dataset.provenance import load_run
    from promerge_fo.dataset.runs.model import model_of_run

    return model_of_run(load_run(fo.load_dataset(dataset), key), checkpoint)


@lru_cache(maxsize=1)
def _of_encoder(dataset: str, encoder: str, checkpoint: str | None) -> Any:
    """The default model with an encoder, calibrated if it wants that, kept for the next image."""
    from promerge_fo.dataset.runs.calibrating import calibrate_once
    from promerge_fo.dataset.runs.model import load_model

    model = load_model(encoder=encoder, checkpoint=checkpoint)
    calibrate_once(fo.load_dataset(dataset), model)
    return model
