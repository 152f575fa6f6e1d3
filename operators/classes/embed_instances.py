"""``embed_instances``: give masks embeddings, and a map of them, from the App."""

from __future__ import annotations

from typing import Any

from ...forms import CannotRunError, Form, chosen_path, detection_fields, filled, target_of
from ...jobs import Job, Outcome
from ...model_form import NAMED_FACETS, ask_encoder
from ...operator import LongOperator

MAPS = {
    "pca": "the two directions in which masks differ most; quick",
    "tsne": "neighbours stay neighbours; some minutes for 10,000 masks",
    "umap": "the same, faster; needs the package umap-learn",
    "none": "embeddings alone",
}


class EmbedInstances(LongOperator):
    """A form and a call of ``promerge_fo.dataset.embed_instances``, and of ``map_instances``."""

    label = "ProMerge: embed and map instances"
    description = "Give masks embeddings, and show them in the Embeddings panel"
    icon = "scatter_plot"
    button = "Embed"

    def ask(self, form: Form) -> None:
        fields = detection_fields(form.target())
        if not fields:
            raise CannotRunError("No field holds detections: segment the images first.")
        form.choose("label_field", fields, "Field", "masks that have an embedding keep it")
        about = "for the Embeddings panel, and to sort masks by how much they look alike"
        form.choose("map", MAPS, "Map", about)
        encoder = ask_encoder(form, "that of the embeddings that are there, or else of the masks")
        if encoder and encoder != "texture":
            form.choose("facet", NAMED_FACETS, "Facet", "which features of the block are taken")
            form.count("block", "Block", "whose features are taken, from 1; the last one if empty")
        form.tick("overwrite", "Embed all masks anew", "also those with another encoder's")

    def work(self, ctx: Any, job: Job) -> Outcome:  # type: ignore[override]
        from promerge_fo.dataset.classes.embeddings import embed_instances
        from promerge_fo.dataset.classes.maps import map_instances

        params, samples = ctx.params, target_of(ctx)
        field, method = params["label_field"], params.get("map", next(iter(MAPS)))
        encoder = params.get("encoder") or None
        has_facets = encoder not in (None, "texture")
        report = embed_instances(
            samples,
            field,
            encoder=encoder,
            checkpoint=chosen_path(params.get("checkpoint")),
            overwrite=bool(params.get("overwrite")),
            progress=job.progress("images"),
            **(filled(params, "facet", "block") if has_facets else {}),
        )
        text, result = str(report), {"masks": report.masks, "failed": report.failed}
        if method == "none":
            return Outcome(text, result)
        job.show("Making the map")
        made = map_instances(samples, field, method=method)
        text += f"\n\nA map of {len(made.points):,} masks is in the Embeddings panel: `{made.key}`"
        return Outcome(text, {**result, "map": made.key}, "Embeddings")
