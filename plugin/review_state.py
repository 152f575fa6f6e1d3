"""What the review's operators and panels remember of a dataset, and the page that they show."""

from __future__ import annotations

from typing import Any

import fiftyone as fo
from fiftyone.core.media import IMAGE, MediaTypeError
from fiftyone.operators import types

from .forms import detection_fields, refused

_STORE = "promerge_review"
_KEY = "settings"

DEFAULTS = {"order": "score", "other_field": None, "limit": 48, "reviewer": ""}


def recall(ctx: Any) -> dict[str, Any]:
    """The last settings of a review of this dataset; see :func:`remember`."""
    return {**DEFAULTS, **(ctx.store(_STORE).get(_KEY) or {})}


def remember(ctx: Any, **settings: Any) -> None:
    """Keep settings: ``label_field``, ``order``, ``other_field``, ``limit``, ``reviewer``."""
    ctx.store(_STORE).set(_KEY, {**recall(ctx), **settings})


def field_of(ctx: Any) -> str | None:
    """The field under review: that of the patches shown, or the last one, or the first."""
    if ctx.view._is_patches:
        return str(ctx.view._label_fields[-1])
    fields = detection_fields(ctx.dataset)
    last = recall(ctx).get("label_field")
    return last if last in fields else next(iter(fields), None)


def samples_of(ctx: Any) -> Any:
    """What is under review: the current view, or what the page shown was taken from."""
    if not on_page(ctx):
        return ctx.view
    return fo.DatasetView._build(ctx.dataset, recall(ctx)["samples"])


def why_not(ctx: Any) -> types.Property | None:
    """The form that says why nothing can be reviewed here, or None."""
    from promerge_fo.dataset.samples import require_images

    try:
        require_images(ctx.view)
    except MediaTypeError as error:
        return refused("No images here", str(error))
    if ctx.dataset.media_type != IMAGE:
        reason = (
            f"the App reviews datasets of images, and this one is of {ctx.dataset.media_type}; in "
            "Python, promerge_fo.dataset.review_queue takes frames and slices with images too"
        )
        return refused("Not in the App", reason)
    if not detection_fields(ctx.dataset):
        return refused("No masks here", "no field holds detections; segment the images first")
    return None


def undo_scope(ctx: Any, label_field: str) -> Any:
    """Whose last decision is taken back: the dataset's, as it is often no longer in view.

    Patches of the field stand for their dataset, and are to follow.
    """
    shown = ctx.view._is_patches and label_field in ctx.view._label_fields
    return ctx.view if shown else ctx.dataset


def on_page(ctx: Any) -> bool:
    """Whether the current view is the page that was opened last."""
    page = recall(ctx).get("page")
    return bool(ctx.view._is_patches and ctx.view._dataset.name == page)


def open_page(ctx: Any, **settings: Any) -> Any:
    """Show the labels that most need a look; where none is left, all samples again.

    Returns:
        The patches that are shown, or would be: none where everything is decided.
    """
    from promerge_fo.dataset.review.decisions import enable_annotation
    from promerge_fo.dataset.review.queue import review_queue

    samples = samples_of(ctx)
    settings = {**recall(ctx), **settings}
    first = not ctx.dataset.has_field(f"{settings['label_field']}.detections.review")
    names = ("label_field", "order", "other_field", "limit")
    page = review_queue(samples, **{name: settings[name] for name in names})
    kept = {name: settings[name] for name in (*names, "reviewer")}
    remember(ctx, **kept, page=page._dataset.name, samples=samples.view()._serialize())
    if first:
        enable_annotation(ctx.dataset, settings["label_field"])
        ctx.ops.reload_dataset()  # the App learns of the attributes, and of the tab
    ctx.ops.clear_selected_samples()
    if len(page):
        ctx.ops.set_sample_selection_style("thumbsup", "thumbsdown")
        ctx.ops.set_view(page)
    else:
        ctx.ops.set_view(samples.view())
        ctx.ops.notify("Everything here is decided", variant="success")
    return page


def show_decided(ctx: Any, what: str) -> bool:
    """After a decision: say so, and show the next page, or the labels as they are now.

    Returns:
        Whether another page was opened.
    """
    ctx.ops.notify(what, variant="success")
    if on_page(ctx):
        return bool(len(open_page(ctx)))
    ctx.ops.clear_selected_samples()
    ctx.ops.clear_selected_labels()
    ctx.ops.reload_samples()
    return False
