"""``export_pseudo_labels``: a field's masks as files that detectors train on."""

from __future__ import annotations

from typing import Any

from fiftyone.operators import types

from ..forms import (
    CannotRunError,
    Form,
    absolute,
    detection_fields,
    filled,
    require_writable,
    target_of,
)
from ..jobs import Job, Outcome
from ..operator import LongOperator

FORMATS = {
    "coco": "COCO JSON with compressed RLE at full resolution: nothing is lost",
    "yolo": "one polygon a mask in text files: holes are filled, parts are joined",
}
REVIEWS = {
    "not rejected": "accepted ones, and those that nobody has decided on",
    "accepted": "accepted ones alone",
    "all": "whatever the review says",
}
IMAGES = {
    "refer": "the file names them where they lie",
    "link": "symbolic links in the folder",
    "copy": "copies in the folder",
}


class ExportPseudoLabels(LongOperator):
    """A form and a call of ``promerge_fo.dataset.export_pseudo_labels``."""

    label = "ProMerge: export pseudo-labels"
    description = "A field's masks as COCO or YOLO files that detectors train on"
    icon = "download"
    button = "Export"
    place = types.Places.SAMPLES_GRID_SECONDARY_ACTIONS
    place_label = "Export pseudo-labels of ProMerge"

    def ask(self, form: Form) -> None:
        fields = detection_fields(form.target())
        if not fields:
            raise CannotRunError(
                "This dataset has no field of detections: segment instances first."
            )
        form.choose("label_field", fields, "Field", default="promerge")
        style = form.choose("format", FORMATS, "Format", default="coco")
        form.path(
            "path",
            "Where to",
            "a .json file, or a folder for a split, images or YOLO",
            check=lambda path: _check(form, path),
            missing="Say where to.",
        )
        about = "as a share of the image; the paper trains on 0.05 and more"
        form.share("min_area", "Smallest mask", about, 0.05)
        form.share("min_score", "Lowest confidence")
        form.choose("review", REVIEWS, "Reviewed", default="not rejected")
        form.count("max_per_image", "At most so many masks an image")
        about = "names with commas between them, a file with one a line, or 'labels' for all names"
        if form.text("classes", "Names that become classes", about):
            about = "left out if empty"
            form.text("other_class", "Class of labels with other names", about)
        about = "two files, train and val; one file if empty"
        form.share("val_fraction", "Share of the images for validation", about)
        form.choose("images", IMAGES, "Images", default="refer" if style == "coco" else "link")

    def about(self, ctx: Any) -> str:
        return f"{ctx.params['label_field']}, to {ctx.params['path']}"

    def work(self, ctx: Any, job: Job) -> Outcome:  # type: ignore[override]
        from promerge_fo.dataset.exchange.categories import classes_of_words
        from promerge_fo.dataset.exchange.export import export_pseudo_labels

        params, target = ctx.params, target_of(ctx)
        review = params.get("review", "not rejected").replace(" ", "_")
        options = {
            **filled(params, "min_area", "min_score", "max_per_image", "images", "format"),
            **filled(params, "overwrite", "other_class"),
            "review": review,
            "val_fraction": params.get("val_fraction") or None,
        }
        words = [word.strip() for word in (params.get("classes") or "").split(",")]
        if any(words):
            options["classes"] = classes_of_words([word for word in words if word])
        field, path = params["label_field"], params["path"]
        bar = job.progress("images")
        summary = export_pseudo_labels(target, field, path, progress=bar, **options)
        text = (
            f"{summary['annotations']:,} masks of {summary['images']:,} images: {summary['path']}"
        )
        changed = {name: summary.pop(name) for name in ("holes_filled", "parts_left_out")}
        counts = {name: count for name, count in summary.items() if isinstance(count, int)}
        left_out = {n: counts[n] for n in counts if n not in ("images", "annotations")}
        for what, numbers in (("left out", left_out), ("polygons", changed)):
            found = [f"{n:,} {name.replace('_', ' ')}" for name, n in numbers.items() if n]
            text += f"; {what}: {', '.join(found)}" if found else ""
        return Outcome(text, {**summary, **changed})


def _check(form: Form, path: str) -> None:
    """What the export would refuse, while the user can still mend it."""
    target = absolute(path)
    require_writable(target)
    style, images = form.given("format", "coco"), form.given("images", "refer")
    why = {
        "YOLO's format": style == "yolo",
        f"Images, below, is '{images}', which": images != "refer",
        "A share for validation": form.ctx.params.get("val_fraction"),
    }
    needs_folder = next((what for what, holds in why.items() if holds), None)
    if target.suffix == ".json" and needs_folder:
        raise ValueError(f"{needs_folder} needs a folder: leave out '.json', or choose otherwise.")
    if target.suffix == ".json" and target.exists():
        form.warn("replaces", f"{target.name} exists and is replaced")
    elif target.is_dir() and any(target.iterdir()):
        warning = f"The folder {target.name} is not empty"
        label = "Replace what an earlier export left there"
        form.confirm("overwrite", warning, label, "folder")
