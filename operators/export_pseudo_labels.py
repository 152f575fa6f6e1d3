"""``export_pseudo_labels``: a field's masks as files that detectors train on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from ..forms import Form, chosen_path, detection_fields
from ..operator import Operator
from ..progress import follow, outcome

FORMATS = {
    "coco": "COCO JSON with compressed RLE at full resolution: nothing is lost",
    "yolo": "polygons in text files: tolerance 2 pixels, no holes",
}
REVIEWS = {
    "all": "whatever the review says",
    "not rejected": "accepted ones, and those that nobody has decided on",
    "accepted": "accepted ones alone",
}
IMAGES = {
    "refer": "the file names them where they lie",
    "link": "symbolic links in the folder",
    "copy": "copies in the folder",
}


class ExportPseudoLabels(Operator):
    """A form and a call of ``promerge_fo.dataset.export_pseudo_labels``."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="export_pseudo_labels",
            label="ProMerge: export pseudo-labels",
            description="A field's masks as COCO or YOLO files that detectors train on",
            icon="download",
            dynamic=True,
            execute_as_generator=True,
            allow_immediate_execution=True,
            allow_delegated_execution=True,
        )

    def resolve_input(self, ctx: Any) -> types.Property:
        form = Form(ctx, "ProMerge: export pseudo-labels", "Export")
        fields = detection_fields(ctx.dataset)
        if form.refuse_without_images():
            return form.property()
        if not fields:
            form.refuse("This dataset has no field of detections: segment instances first.")
            return form.property()
        form.inputs.view_target(ctx)
        form.choose("label_field", fields, "Field", default="promerge")
        style = form.choose("format", FORMATS, "Format", default="coco")
        form.inputs.str(
            "path",
            required=True,
            default=form.last.get("path"),
            label="Where to",
            description="a .json file, or a folder for a split, images or YOLO; "
            "on the machine that the App's server runs on",
        )
        self._filters(form)
        self._layout(form, style)
        self._check(form)
        return form.property()

    def _filters(self, form: Form) -> None:
        last = form.last
        form.inputs.float(
            "min_area",
            default=last.get("min_area", 0.05),
            min=0,
            max=1,
            label="Smallest mask",
            description="as a share of the image; the paper trains on 0.05 and more",
        )
        form.inputs.float(
            "min_score", default=last.get("min_score"), min=0, max=1, label="Lowest confidence"
        )
        form.choose("review", REVIEWS, "Reviewed", default="not rejected")
        form.inputs.int(
            "max_per_image",
            default=last.get("max_per_image"),
            min=1,
            label="At most so many masks an image",
        )

    def _layout(self, form: Form, style: str | None) -> None:
        form.inputs.float(
            "val_fraction",
            default=form.last.get("val_fraction"),
            min=0,
            max=1,
            label="Share of the images for validation",
            description="two files, train and val; one file if empty",
        )
        form.choose("images", IMAGES, "Images", default="refer" if style == "coco" else "link")

    def _check(self, form: Form) -> None:
        """What the export would refuse, while the user can still mend it."""
        path, params = form.given("path"), form.ctx.params
        if not path:
            form.refuse("Say where to.", "path_refused")
            return
        target = Path(path).expanduser()
        if not target.is_absolute():
            form.refuse(f"{path!r} is no absolute path, such as /data/{path}.", "path_refused")
        elif target.suffix == ".json" and (
            params.get("val_fraction")
            or form.given("images", "refer") != "refer"
            or form.given("format", "coco") == "yolo"
        ):
            form.refuse(
                "A split, images and YOLO need a folder: leave out '.json'.", "path_refused"
            )
        elif target.suffix == ".json" and target.exists():
            form.warn("replaces", f"{target.name} exists and is replaced")
        elif target.is_dir() and any(target.iterdir()):
            form.warn("replaces", f"The folder {target.name} is not empty")
            form.inputs.bool(
                "overwrite", default=False, label="Replace what an earlier export left there"
            )
            if not params.get("overwrite"):
                form.refuse("Tick the box, or choose another folder.", "overwrite_refused")

    def work(self, ctx: Any) -> Any:
        from promerge_fo.dataset.exchange.export import export_pseudo_labels
        from promerge_fo.dataset.progress import steps_of

        params = ctx.params
        review = params.get("review", "all").replace(" ", "_")
        summary = yield from follow(
            ctx,
            "images",
            lambda bar: export_pseudo_labels(
                ctx.target_view(),
                params["label_field"],
                chosen_path(params["path"]),
                min_area=params.get("min_area", 0.05),
                min_score=params.get("min_score"),
                review=None if review == "all" else review,
                max_per_image=params.get("max_per_image"),
                val_fraction=params.get("val_fraction") or None,
                images=params.get("images", "refer"),
                format=params.get("format", "coco"),
                overwrite=params.get("overwrite", False),
                progress=steps_of(bar),
            ),
        )
        left_out = {
            name.replace("_", " "): count
            for name, count in summary.items()
            if isinstance(count, int) and count and name not in ("images", "annotations")
        }
        text = (
            f"{summary['annotations']:,} masks of {summary['images']:,} images: {summary['path']}"
        )
        if left_out:
            text += "; left out: " + ", ".join(f"{n:,} {name}" for name, n in left_out.items())
        yield outcome(ctx, text)

    def resolve_placement(self, ctx: Any) -> types.Placement:
        return types.Placement(
            types.Places.SAMPLES_GRID_SECONDARY_ACTIONS,
            types.Button(label="Export pseudo-labels of ProMerge", icon="download", prompt=True),
        )
