"""Pictures: masks drawn on an image, and every step of the method on one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from promerge_fo.images import load_image
from promerge_fo.refine.resize import upsample_nearest
from promerge_fo.segment.filtering import Verdict
from promerge_fo.segment.normalized_cut import Cut, CutTrace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from promerge_fo.instances import Instances, Refined
    from promerge_fo.pipeline import Pipeline
    from promerge_fo.segment.promerge import Trace

__all__ = ["draw_masks", "explain_figure", "explain_image", "overview_figure", "save"]

VERDICTS = {
    Verdict.KEPT: ("kept", "#2ca02c"),
    Verdict.NOTHING_NEW: ("adds nothing new", "#7f7f7f"),
    Verdict.OVERLAPS_BACKGROUND: ("lies in the background", "#d62728"),
    Verdict.LIKE_BACKGROUND: ("resembles the background", "#ff7f0e"),
    Verdict.SUPPRESSED: ("overlaps a larger mask", "#9467bd"),
}

CUT_VERDICTS = {
    "kept": "mask, without those before",
    "overlaps": "rejected, overlaps the one before",
    "small": "rejected, too small",
}

MOST_CUTS = 6  #: that are drawn


def colours(n: int) -> NDArray[np.float64]:
    """(n, 3) RGB in [0, 1], easy to tell apart: hues at steps of the golden ratio."""
    from matplotlib.colors import hsv_to_rgb

    hues = (0.58 + np.arange(n) * 0.618034) % 1
    return np.asarray(hsv_to_rgb(np.stack([hues, np.full(n, 0.75), np.full(n, 0.95)], axis=1)))


def draw_masks(
    image: NDArray[np.uint8], masks: NDArray[np.bool_], opacity: float = 0.5
) -> NDArray[np.uint8]:
    """An image with masks over it, each in its colour with a white outline.

    Args:
        image: (H, W, 3) uint8.
        masks: (n, H, W) bool; the first lies on top.
        opacity: of the colours, in [0, 1].

    Returns:
        (H, W, 3) uint8.
    """
    out = image.astype(np.float32)
    for mask, colour in reversed(list(zip(masks, colours(len(masks)), strict=True))):
        out[mask] = (1 - opacity) * out[mask] + opacity * 255 * colour
        inner = mask.copy()
        inner[1:] &= mask[:-1]
        inner[:-1] &= mask[1:]
        inner[:, 1:] &= mask[:, :-1]
        inner[:, :-1] &= mask[:, 1:]
        out[mask & ~inner] = 255
    return out.astype(np.uint8)


def overview_figure(
    images: Sequence[NDArray[np.uint8]],
    results: Sequence[Instances],
    titles: Sequence[str],
    heading: str = "",
) -> Figure:
    """Images with their masks in a grid."""
    from matplotlib.figure import Figure

    columns = min(3, max(1, len(images)))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.3 * rows + 0.4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, image, result, title in zip(axes, images, results, titles, strict=False):
        axis.imshow(draw_masks(image, result.masks))
        axis.set_title(title, fontsize=9)
    figure.suptitle(heading, fontsize=11)
    return figure


def explain_figure(
    image: NDArray[np.uint8],
    trace: Trace | CutTrace,
    refined: Refined,
    result: Instances,
    heading: str,
) -> Figure:
    """What every step of a method made of one image: of ProMerge, its Fig. 2 to 4 on one page.

    Args:
        image: (H, W, 3) uint8.
        trace: the steps on its patch features.
        refined: what refinement made of the patch masks.
        result: the outcome.
        heading: the figure's title.

    Returns:
        Of ProMerge, a figure of four rows: prompts and what they select; the background candidates
        and the vote; the masks in the order of filtering with what was decided on each and why;
        the merged masks before and after refinement. Of MaskCut and TokenCut, a row for each of
        the first cuts, with its eigenvector and what was made of it; then the masks before and
        after refinement.
    """
    from matplotlib.figure import Figure

    if isinstance(trace, CutTrace):
        cuts = trace.cuts[:MOST_CUTS]
        figure = Figure(figsize=(15, 3.6 * (len(cuts) + 1)), layout="constrained")
        figure.suptitle(heading, fontsize=13)
        parts: Any = figure.subfigures(len(cuts) + 1, 1)
        for number, cut in enumerate(cuts):
            _draw_cut(parts[number], image, cut, number + 1)
        count = f"{len(trace.cuts)} cut{'s' * (len(trace.cuts) != 1)}"
        title = f"{count}; refinement keeps {len(refined)} ({result.status})"
        _draw_refinement(parts[-1], image, trace.instances.masks, result, title, "cut out")
        return figure

    figure = Figure(figsize=(15, 13.5), layout="constrained")
    figure.suptitle(heading, fontsize=13)
    rows: Any = figure.subfigures(4, 1, height_ratios=[0.85, 0.85, 1.25, 1.05])
    _draw_prompts(rows[0], image, trace)
    _draw_background(rows[1], image, trace)
    _draw_filtering(rows[2], image, trace)
    merged = trace.instances.masks
    title = (
        f"4  Merging: {len(trace.cluster)} masks into {len(merged)}; "
        f"refinement keeps {len(refined)} ({result.status})"
    )
    members = np.bincount(trace.cluster, minlength=len(merged))
    text = ", ".join(str(m) for m in members[:12])
    _draw_refinement(rows[3], image, merged, result, title, f"merged, from {text} masks")
    return figure


def explain_image(image: str | Path, pipeline: Pipeline) -> Figure:
    """:func:`explain_figure` of an image file.

    Raises:
        ImageError: a file that is no readable image.
    """
    pixels = load_image(image)
    trace, refined, result = pipeline.explain(pixels)
    masks = "1 mask" if len(result) == 1 else f"{len(result)} masks"
    heading = f"{Path(image).name}: {masks}, encoder {pipeline.encoder.name}"
    return explain_figure(pixels, trace, refined, result, heading)


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure; the path's ending gives the format (png, pdf, svg)."""
    figure.savefig(path, dpi=110)


def _panels(row: Any, title: str, count: int) -> NDArray[Any]:
    row.suptitle(title, fontsize=11, x=0.01, ha="left", weight="bold")
    axes = np.atleast_1d(row.subplots(1, count))
    for axis in axes:
        axis.set_axis_off()
    return axes


def _shaded(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], colour: Sequence[float]
) -> NDArray[np.uint8]:
    """The image, dark outside a patch mask and tinted inside."""
    inside = upsample_nearest(mask[None], image.shape[:2])[0]
    out = image.astype(np.float32)
    out[inside] = 0.55 * out[inside] + 0.45 * 255 * np.asarray(colour)
    out[~inside] *= 0.35
    return out.astype(np.uint8)


def _evenly(n: int, most: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))


def _draw_prompts(row: Any, image: NDArray[np.uint8], trace: Trace) -> None:
    masks = trace.prompts.masks
    h, w = masks.shape[1:]
    axes = _panels(row, f"1  Prompting: {len(masks)} prompts (Eq. 1)", 5)
    sy, sx = image.shape[0] / h, image.shape[1] / w
    y, x = np.divmod(trace.prompts.positions, w)
    axes[0].imshow(image)
    tints = ["#ffffff" if candidate else "#ff2d55" for candidate in trace.is_candidate]
    axes[0].scatter(
        (x + 0.5) * sx, (y + 0.5) * sy, s=7, c=tints, edgecolors="black", linewidths=0.3
    )
    axes[0].set_title("prompts: white selects background", fontsize=9)
    front = np.flatnonzero(~trace.is_candidate)
    chosen = front[_evenly(len(front), 4)] if len(front) else np.zeros(0, dtype=np.int64)
    for axis, k in zip(axes[1:], chosen, strict=False):
        affinity = trace.prompts.affinities[k].reshape(h, w)
        axis.imshow(affinity, cmap="RdBu_r", vmin=-1, vmax=1, extent=(0, w, h, 0), aspect=sy / sx)
        if masks[k].any() and not masks[k].all():
            centres = np.arange(w) + 0.5, np.arange(h) + 0.5
            axis.contour(*centres, masks[k], levels=[0.5], colors="black", linewidths=0.8)
        axis.plot(x[k] + 0.5, y[k] + 0.5, "w*", markeredgecolor="black", markersize=11)
        axis.set_title(f"affinity to prompt {k}: {masks[k].sum()} patches", fontsize=9)


def _draw_background(row: Any, image: NDArray[np.uint8], trace: Trace) -> None:
    candidates = trace.prompts.masks[trace.is_candidate]
    share = "" if trace.background is None else f", {trace.background.mean():.0%} of the image"
    axes = _panels(row, f"2  Background: {len(candidates)} candidates vote (Eq. 2){share}", 5)
    for axis, k in zip(axes[:3], _evenly(len(candidates), 3), strict=False):
        axis.imshow(_shaded(image, candidates[k], (0.3, 0.5, 1)))
        axis.set_title(f"candidate {k}", fontsize=9)
    if len(candidates) == 0:
        axes[0].imshow(image)
        axes[0].set_title("no prompt selects background", fontsize=9)
        return
    h, w = candidates.shape[1:]
    aspect = image.shape[0] / h / (image.shape[1] / w)
    votes = axes[3].imshow(candidates.mean(axis=0), cmap="viridis", vmin=0, vmax=1, aspect=aspect)
    row.colorbar(votes, ax=axes[3], shrink=0.8)
    axes[3].set_title("share of the votes", fontsize=9)
    if trace.background is not None:
        axes[4].imshow(_shaded(image, trace.background, (0.3, 0.5, 1)))
        axes[4].set_title("voted background", fontsize=9)


def _draw_filtering(row: Any, image: NDArray[np.uint8], trace: Trace) -> None:
    n = len(trace.foreground)
    if trace.verdicts is None:
        status = trace.instances.status
        axes = _panels(row, f"3  Filtering: {n} masks, not reached ({status})", 1)
        axes[0].text(0.5, 0.5, status, ha="center", fontsize=16)
        return
    kept = int((trace.verdicts == Verdict.KEPT).sum())
    row.suptitle(
        f"3  Filtering: {n} masks in ascending area, {kept} kept (Fig. 4)",
        fontsize=11,
        x=0.01,
        ha="left",
        weight="bold",
    )
    grid = row.add_gridspec(2, 6, height_ratios=[1, 1.5])
    areas = trace.foreground.sum(axis=(1, 2))
    order = np.argsort(areas, kind="stable")
    bars = row.add_subplot(grid[0, :])
    for verdict, (label, colour) in VERDICTS.items():
        hit = np.flatnonzero(trace.verdicts[order] == verdict)
        if len(hit):
            bars.bar(hit, areas[order][hit], width=1, color=colour, label=f"{len(hit)} {label}")
    bars.set(yscale="log", ylabel="patches", xlabel="mask", xlim=(-1, max(n, 1)))
    bars.legend(fontsize=8, ncols=4, loc="upper left")
    picks: list[int] = []
    for verdict in VERDICTS:
        hit = order[trace.verdicts[order] == verdict]
        picks += [int(hit[i]) for i in _evenly(len(hit), 2)] if len(hit) else []
    for place, k in enumerate(picks[:6]):
        axis = row.add_subplot(grid[1, place])
        axis.set_axis_off()
        label, colour = VERDICTS[Verdict(trace.verdicts[k])]
        axis.imshow(_shaded(image, trace.foreground[k], _rgb(colour)))
        axis.set_title(f"{areas[k]} patches: {label}", fontsize=8, color=colour)


def _draw_cut(row: Any, image: NDArray[np.uint8], cut: Cut, number: int) -> None:
    if cut.eigenvector is None or cut.foreground is None:
        axes = _panels(row, f"{number}  Nothing to cut: all cuts are equally bad", 4)
        axes[0].imshow(image)
        return
    front = cut.foreground
    title = f"{number}  Normalised cut, eigenvalue {cut.eigenvector.eigenvalue:.2g}"
    axes = _panels(row, title, 4)
    h, w = front.map.shape
    aspect = image.shape[0] / h / (image.shape[1] / w)
    axes[0].imshow(front.map, cmap="RdBu_r", vmin=-1, vmax=1, extent=(0, w, h, 0), aspect=aspect)
    axes[0].plot(front.seed[1] + 0.5, front.seed[0] + 0.5, "w*", markeredgecolor="black", ms=11)
    axes[0].set_title("eigenvector about its mean, and the seed", fontsize=9)
    swapped = ": sides swapped, too many corners" if front.swapped else ""
    shown = {
        f"foreground{swapped}": front.partition,
        "the part that holds the seed": front.component,
        CUT_VERDICTS[cut.verdict]: cut.mask,
    }
    for axis, (text, mask) in zip(axes[1:], shown.items(), strict=True):
        axis.imshow(_shaded(image, mask, (1, 0.5, 0.1)))
        axis.set_title(f"{text}: {mask.sum()} patches", fontsize=9)


def _draw_refinement(
    row: Any,
    image: NDArray[np.uint8],
    patches: NDArray[np.bool_],
    result: Instances,
    title: str,
    origin: str,
) -> None:
    axes = _panels(row, title, 4)
    axes[0].imshow(image)
    axes[0].set_title("image", fontsize=9)
    if len(patches):
        axes[1].imshow(draw_masks(image, upsample_nearest(patches, image.shape[:2])))
        axes[1].set_title(origin, fontsize=9)
    axes[2].imshow(draw_masks(image, result.masks))
    axes[2].set_title("refined", fontsize=9)
    if len(result):
        axes[3].set_axis_on()
        names = [f"{i}" for i in range(len(result))]
        axes[3].barh(names, result.scores, color=colours(len(result)))
        axes[3].invert_yaxis()
        axes[3].set(xlim=(0, 1), xlabel="score", ylabel="instance")


def _rgb(colour: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(colour)
