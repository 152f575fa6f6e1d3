"""What the review's operators and panels share: settings, the page that is shown, decisions."""

from __future__ import annotations

from typing import Any, NamedTuple

from fiftyone.operators import types

from promerge_fo.dataset.database import dataset_name, is_patches, label_fields, stages_of, view_of

from .forms import add_menu, detection_fields
from .memory import recall, remember

ORDERS = {
    "score": ("Lowest score", "what the method itself is least sure of"),
    "disagreement": ("Greatest disagreement", "what another field does not confirm"),
    "size": ("Odd size", "what is much larger or smaller than the others"),
    "typicality": ("Least typical", "what looks least like the others of its group"),
}
NO_MASKS = "No field of this dataset holds masks. **Segment instances** makes some."
DEFAULTS: dict[str, Any] = {
    "label_field": None,
    "order": "score",
    "other_field": None,
    "limit": 48,
    "reviewer": "",
}
_KEY = "review"
_LASSO = ("Select", "SelectBy", "Mongo")  # stages that a lasso makes; by ids, or by the points


class Chosen(NamedTuple):
    """Labels to decide on.

    Attributes:
        samples: a dataset or a view with the labels.
        label_field: the field that holds them.
        ids: their ids; None for all labels of the samples.
    """

    samples: Any
    label_field: str | None
    ids: list[str] | None


def settings_of(ctx: Any) -> dict[str, Any]:
    """The last settings of a review of this dataset: :data:`DEFAULTS` has their names.

    The field is that of the patches shown, or else the last one, or else the first that there is.
    """
    settings = _remembered(ctx)
    if is_patches(ctx.view):
        settings["label_field"] = label_fields(ctx.view)[-1]
    elif settings["label_field"] not in (fields := detection_fields(ctx.dataset)):
        settings["label_field"] = next(iter(fields), None)
    return settings


def keep(ctx: Any, **settings: Any) -> None:
    """Keep some of the settings for the next time."""
    remember(ctx, _KEY, {**_remembered(ctx), **settings})


def _remembered(ctx: Any) -> dict[str, Any]:
    return {**DEFAULTS, **(recall(ctx, _KEY) or {})}


def fields_of(ctx: Any, samples: Any) -> list[str]:
    """The fields that can be reviewed: those of the patches shown, or else of the samples."""
    return label_fields(ctx.view) if is_patches(ctx.view) else detection_fields(samples)


def add_order(
    inputs: types.Object, fields: list[str], settings: dict[str, Any], **more: Any
) -> None:
    """Add menus for the order of a review, and for the field that another one is compared with."""
    add_menu(inputs, "order", ORDERS, "First", default=settings["order"], **more)
    others = [field for field in fields if field != settings["label_field"]]
    if settings["order"] == "disagreement" and others:
        about = "masks without a counterpart in this one come first"
        add_menu(
            inputs, "other_field", others, "Other field", about, settings["other_field"], **more
        )


def select_from(ctx: Any, ids: Any) -> Any:
    """These samples, or patches where patches are shown, whether or not the view has them."""
    return (ctx.view if is_patches(ctx.view) else ctx.dataset).select(ids)


def selected(ctx: Any, label_field: str | None) -> Chosen | None:
    """What is selected in the App: labels, or else patches, or else all labels of samples.

    Where nothing is clicked, that is what a lasso in the Embeddings panel was drawn around.

    Args:
        ctx: of an operator or a panel.
        label_field: of the labels of selected samples, and of selected labels if these are of
            several fields.

    Returns:
        None where nothing is selected.
    """
    if ctx.selected_labels:
        fields = {label["field"] for label in ctx.selected_labels}
        field = label_field if label_field in fields else min(fields)
        labels = [label for label in ctx.selected_labels if label["field"] == field]
        samples = select_from(ctx, list({label["sample_id"] for label in labels}))
        return Chosen(samples, field, [label["label_id"] for label in labels])
    if ctx.selected and label_field is not None:
        return Chosen(ctx.view.select(ctx.selected), label_field, None)
    return _lassoed(ctx, label_field)


def _lassoed(ctx: Any, label_field: str | None) -> Chosen | None:
    """What is inside a lasso: the App then shows its view with one more stage."""
    more = ctx.request_params.get("extended") or {}
    stages = {name.rpartition(".")[2]: given for name, given in more.items()}
    labels = stages.get("MatchLabels")  # of a map of labels, while samples are shown
    if labels:
        return Chosen(ctx.view, labels["fields"][0], labels["ids"])
    if label_field is not None and not stages.keys().isdisjoint(_LASSO):
        return Chosen(ctx.view, label_field, None)
    return None


def decide(what: str, chosen: Chosen, reviewer: str | None) -> int:
    """Accept or reject labels.

    Args:
        what: "accept" or "reject".
        chosen: the labels.
        reviewer: who decides; may be empty.

    Returns:
        How many there were.
    """
    from promerge_fo.dataset.review import decisions

    count: int = getattr(decisions, what)(*chosen, reviewer or None)
    return count


def undo_last(ctx: Any, samples: Any, label_field: str) -> int:
    """Undo the last decision on these samples, or say that there is none; returns how many."""
    from promerge_fo.dataset.review.decisions import undo

    count = undo(samples, label_field)
    if not count:
        ctx.ops.notify("There is no decision to take back")
    return count


def whole_of(ctx: Any, label_field: str) -> Any:
    """The whole dataset, whatever part of it is in view.

    Patches of the field stand for their dataset, and follow what is done to it.
    """
    shown = is_patches(ctx.view) and label_field in label_fields(ctx.view)
    return ctx.view if shown else ctx.dataset


def on_page(ctx: Any) -> bool:
    """Whether the current view is a page that was opened last.

    The one before it counts, too: a click may come before the App has shown the new one.
    """
    remembered = _remembered(ctx)
    pages = (remembered.get("page"), remembered.get("page_before"))
    return is_patches(ctx.view) and dataset_name(ctx.view) in pages


def open_page(ctx: Any, **settings: Any) -> Any:
    """Show the labels that most need a look; where none is left, all samples again.

    The page is taken from the current view, or where that is a page, from what it was taken from.

    Returns:
        The patches that are shown, or would be: none where everything is decided.
    """
    from promerge_fo.dataset.review.decisions import enable_annotation, review_progress
    from promerge_fo.dataset.review.queue import review_queue

    settings = {**settings_of(ctx), **settings}
    samples = view_of(ctx.dataset, settings["samples"]) if on_page(ctx) else ctx.view
    first = not ctx.dataset.has_field(f"{settings['label_field']}.detections.review")
    kept = {name: settings[name] for name in DEFAULTS}
    page = review_queue(samples, **{name: kept[name] for name in kept if name != "reviewer"})
    before = _remembered(ctx).get("page")
    keep(ctx, **kept, page=dataset_name(page), page_before=before, samples=stages_of(samples))
    if first:
        enable_annotation(ctx.dataset, settings["label_field"])
        ctx.ops.reload_dataset()  # the App learns of the attributes, and of the tab
    ctx.ops.clear_selected_samples()
    keep(ctx, is_finished=not len(page))
    if len(page):
        ctx.ops.set_sample_selection_style("thumbsup", "thumbsdown")
        ctx.ops.set_view(page)
        field = kept["label_field"]
        active = getattr(ctx, "active_fields", None) or []  # FiftyOne 1.18 does not say
        told = "group" if kept["order"] == "typicality" else "confidence"
        shown = [*active, field, f"{field}.{told}"]  # each patch shows its score, or its group
        ctx.ops.set_active_fields(list(dict.fromkeys(shown)))
        return page
    ctx.ops.set_view(samples.view())
    if review_progress(samples, settings["label_field"]).total:
        ctx.ops.notify("Everything here is decided", variant="success")
    else:
        ctx.ops.notify(f"There are no masks of '{settings['label_field']}' here", variant="warning")
    return page


def show_decided(ctx: Any, what: str, is_undone: bool = False) -> bool:
    """After a decision: say so, and show the next page, or the labels as they are now.

    Args:
        ctx: of an operator or a panel.
        what: was done, in words.
        is_undone: whether a decision was taken back: a queue that had ended is opened again.

    Returns:
        Whether another page was opened.
    """
    if on_page(ctx) or (is_undone and _remembered(ctx).get("is_finished")):
        ctx.ops.notify(what, variant="success")
        return bool(len(open_page(ctx)))
    show_changed(ctx, what)
    return False


def show_changed(ctx: Any, what: str) -> None:
    """After labels were changed: say so, and show them as they are now."""
    ctx.ops.notify(what, variant="success")
    _select_nothing(ctx)
    ctx.ops.reload_samples()


def show_named(ctx: Any, what: str, view: Any = None) -> None:
    """After masks were named: say so, and show them with their names.

    The grid keeps the patches that it has at the first reload of samples. A reload of the dataset
    shows them anew, but forgets the sidebar's filters, and would close an open image.

    Args:
        ctx: of an operator or a panel.
        what: was done, in words.
        view: patches to show; None keeps those that are shown.
    """
    if is_patches(ctx.view) and not (ctx.current_sample or ctx.request_params.get("filters")):
        ctx.ops.notify(what, variant="success")
        _select_nothing(ctx)
        ctx.ops.set_view(ctx.view if view is None else view)
        ctx.ops.reload_dataset()
    else:
        show_changed(ctx, what)


def _select_nothing(ctx: Any) -> None:
    """What is drawn twice at once may lose its masks, so only where there is a need."""
    if ctx.selected:
        ctx.ops.clear_selected_samples()
    if ctx.selected_labels:
        ctx.ops.clear_selected_labels()
