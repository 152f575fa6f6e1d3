"""Pictures: masks drawn on an image, and every step of a method on one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from promerge_fo.config import ProMergeConfig
from promerge_fo.images import load_image
from promerge_fo.refine.resize import upsample_nearest
from promerge_fo.segment.filtering import Verdict
from promerge_fo.segment.normalized_cut import Cut, CutTrace
from promerge_fo.segment.proposals import level_thresholds

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
    "kept": "mask, without earlier masks",
    "overlaps": "rejected, overlaps the cut before",
    "small": "rejected, too small",
}

MOST_CUTS = 6  #: cuts of one image in a figure
BLUE, ORANGE = (0.3, 0.5, 1), (1, 0.5, 0.1)


def colours(n: int) -> NDArray[np.float64]:
    """(n, 3) RGB in [0, 1], easy to tell apart: hues at steps of the golden ratio."""
    from matplotlib.colors import hsv_to_rgb

    hues = (0.58 + np.arange(n) * 0.618034) % 1
    return np.asarray(hsv_to_rgb(np.stack([hues, np.full(n, 0.75), np.full(n, 0.95)], axis=1)))


def draw_masks(
    image: NDArray[np.uint8], masks: NDArray[np.bool_], opacity: float = 0.5
) -> NDArray[np.uint8]:
    """An image with masks on it, each in its own colour with a white outline.

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
        out[mask & ~ndimage.binary_erosion(mask, border_value=1)] = 255
    return out.astype(np.uint8)


def overview_figure(
    images: Sequence[NDArray[np.uint8]],
    masks: Sequence[NDArray[np.bool_]],
    titles: Sequence[str],
    heading: str = "",
) -> Figure:
    """Images, (H, W, 3) uint8, with their masks, (n, H, W) bool each, in a grid."""
    from matplotlib.figure import Figure

    columns = min(3, max(1, len(images)))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.3 * rows + 0.4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, image, drawn, title in zip(axes, images, masks, titles, strict=False):
        _show(axis, draw_masks(image, drawn), title)
    figure.suptitle(heading, fontsize=11)
    return figure


def explain_figure(
    image: NDArray[np.uint8],
    trace: Trace | CutTrace,
    refined: Refined,
    result: Instances,
    thresholds: Sequence[float],
    heading: str,
) -> Figure:
    """Every step of a method on one image; for ProMerge, Fig. 2 to 4 of the paper on one page.

    Args:
        image: (H, W, 3) uint8.
        trace: the results of the steps on its patch features.
        refined: the patch masks after refinement.
        result: the instances.
        thresholds: on the affinities, for ProMerge: tau_b of each level.
        heading: the figure's title.

    Returns:
        For ProMerge, a figure of four rows: prompts and the masks that they select; the background
        candidates and the vote; the masks in the order of filtering, each with the decision on it;
        the masks before and after refinement. For MaskCut and TokenCut, a row for each of
        the first cuts, with its eigenvector and its mask; then the masks before and after
        refinement.
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
    _draw_prompts(rows[0], image, trace, thresholds)
    _draw_background(rows[1], image, trace)
    _draw_filtering(rows[2], image, trace)
    masks, levels = trace.instances.masks, trace.instances.levels
    kept = f"refinement keeps {len(refined)} ({result.status})"
    if levels is None:
        title = f"4  Merging: {len(trace.cluster)} masks into {len(masks)}; {kept}"
        members = np.bincount(trace.cluster, minlength=len(masks))
        origin = f"merged, from {', '.join(str(m) for m in members[:12])} masks"
    else:
        title = f"4  Merging: {trace.cluster.max(initial=-1) + 1} masks of the first level"
        title += f"; {len(masks)} of all; {kept}, {len(result)} of them no near-duplicates"
        counts = np.bincount(levels)[1:]
        origin = f"levels 1 to {len(counts)}: {', '.join(str(n) for n in counts)} masks"
    _draw_refinement(rows[3], image, masks, result, title, origin)
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
    config = pipeline.config
    thresholds = []
    if isinstance(config, ProMergeConfig):
        thresholds = [config.tau_b, *level_thresholds(config)]
    return explain_figure(pixels, trace, refined, result, thresholds, heading)


def save(figure: Figure, path: str | Path | IO[bytes]) -> None:
    """Write a figure; the path's ending gives the format (png, pdf, svg), a file gets a PNG."""
    figure.savefig(path, dpi=110)


def _panels(row: Any, title: str, count: int) -> NDArray[Any]:
    """(count,) axes side by side, without ticks, below the title of their row."""
    _head(row, title)
    axes: NDArray[Any] = np.atleast_1d(row.subplots(1, count))
    for axis in axes:
        axis.set_axis_off()
    return axes


def _head(row: Any, title: str) -> None:
    row.suptitle(title, fontsize=11, x=0.01, ha="left", weight="bold")


def _show(axis: Any, picture: NDArray[Any], title: str, **style: Any) -> Any:
    axis.set_title(title, fontsize=9)
    return axis.imshow(picture, **style)


def _show_patches(
    axis: Any,
    image: NDArray[np.uint8],
    values: NDArray[np.floating[Any]],
    title: str,
    cmap: str = "RdBu_r",
    low: float = -1,
) -> Any:
    """Values (h, w) of an image's patches, from ``low`` to 1, in the proportions of the image."""
    h, w = values.shape
    aspect = image.shape[0] / h / (image.shape[1] / w)
    extent = (0, w, h, 0)
    return _show(axis, values, title, cmap=cmap, vmin=low, vmax=1, extent=extent, aspect=aspect)


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
    """At most so many of n indices, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))


def _draw_prompts(
    row: Any, image: NDArray[np.uint8], trace: Trace, thresholds: Sequence[float]
) -> None:
    masks = trace.prompts.masks
    h, w = masks.shape[1:]
    axes = _panels(row, f"1  Prompting: {len(masks)} prompts (Eq. 1)", 5)
    sy, sx = image.shape[0] / h, image.shape[1] / w
    y, x = np.divmod(trace.prompts.positions, w)
    _show(axes[0], image, "prompts: white selects background")
    tints = ["#ffffff" if candidate else "#ff2d55" for candidate in trace.is_candidate]
    axes[0].scatter(
        (x + 0.5) * sx, (y + 0.5) * sy, s=7, c=tints, edgecolors="black", linewidths=0.3
    )
    front = np.flatnonzero(~trace.is_candidate)
    for axis, k in zip(axes[1:4], front[_evenly(len(front), 3)], strict=False):
        title = f"affinity to prompt {k}: {masks[k].sum()} patches"
        _show_patches(axis, image, trace.prompts.affinities[k].reshape(h, w), title)
        if masks[k].any() and not masks[k].all():
            centres = np.arange(w) + 0.5, np.arange(h) + 0.5
            axis.contour(*centres, masks[k], levels=[0.5], colors="black", linewidths=0.8)
        axis.plot(x[k] + 0.5, y[k] + 0.5, "w*", markeredgecolor="black", markersize=11)
    _draw_affinities(axes[4], trace.prompts.affinities, thresholds)


def _draw_affinities(
    axis: Any, affinities: NDArray[np.float32], thresholds: Sequence[float]
) -> None:
    """How the cosines of prompts and patches lie, beside the thresholds of all levels."""
    axis.set_axis_on()
    axis.hist(affinities.ravel(), bins=60, range=(-1, 1), color="#8c9bb5")
    for threshold in thresholds[1:]:
        axis.axvline(threshold, color="#ff2d55", linewidth=0.8, linestyle=":")
    axis.axvline(thresholds[0], color="#ff2d55", linewidth=1.5)
    over = (affinities > thresholds[0]).mean()
    axis.set_title(f"affinities; {over:.0%} over tau_b = {thresholds[0]:g}", fontsize=9)
    axis.set(xlim=(-1, 1), yticks=[], xlabel="cosine")


def _draw_background(row: Any, image: NDArray[np.uint8], trace: Trace) -> None:
    candidates = trace.prompts.masks[trace.is_candidate]
    share = "" if trace.background is None else f", {trace.background.mean():.0%} of the image"
    axes = _panels(row, f"2  Background: {len(candidates)} candidates vote (Eq. 2){share}", 5)
    if len(candidates) == 0:
        _show(axes[0], image, "no prompt selects background")
        return
    for axis, k in zip(axes[:3], _evenly(len(candidates), 3), strict=False):
        _show(axis, _shaded(image, candidates[k], BLUE), f"candidate {k}")
    share_of_votes = candidates.mean(axis=0)
    votes = _show_patches(axes[3], image, share_of_votes, "share of the votes", "viridis", 0)
    row.colorbar(votes, ax=axes[3], shrink=0.8)
    if trace.background is not None:
        _show(axes[4], _shaded(image, trace.background, BLUE), "voted background")


def _draw_filtering(row: Any, image: NDArray[np.uint8], trace: Trace) -> None:
    from matplotlib.colors import to_rgb

    n = len(trace.foreground)
    if trace.verdicts is None:
        status = trace.instances.status
        axes = _panels(row, f"3  Filtering: {n} masks, not reached ({status})", 1)
        axes[0].text(0.5, 0.5, status, ha="center", fontsize=16)
        return
    kept = int((trace.verdicts == Verdict.KEPT).sum())
    _head(row, f"3  Filtering: {n} masks in ascending area, {kept} kept (Fig. 4)")
    grid = row.add_gridspec(2, 6, height_ratios=[1, 1.5])
    areas = trace.foreground.sum(axis=(1, 2))
    order = np.argsort(areas, kind="stable")
    bars = row.add_subplot(grid[0, :])
    picks: list[int] = []
    for verdict, (label, colour) in VERDICTS.items():
        hit = np.flatnonzero(trace.verdicts[order] == verdict)
        if len(hit):
            bars.bar(hit, areas[order][hit], width=1, color=colour, label=f"{len(hit)} {label}")
        picks += order[hit[_evenly(len(hit), 2)]].tolist()
    bars.set(yscale="log", ylabel="patches", xlabel="mask", xlim=(-1, max(n, 1)))
    if n:
        bars.legend(fontsize=8, ncols=4, loc="upper left")
    for place, k in enumerate(picks[:6]):
        axis = row.add_subplot(grid[1, place])
        axis.set_axis_off()
        label, colour = VERDICTS[Verdict(trace.verdicts[k])]
        axis.imshow(_shaded(image, trace.foreground[k], to_rgb(colour)))
        axis.set_title(f"{areas[k]} patches: {label}", fontsize=8, color=colour)


def _draw_cut(row: Any, image: NDArray[np.uint8], cut: Cut, number: int) -> None:
    if cut.eigenvector is None or cut.foreground is None:
        axes = _panels(row, f"{number}  Nothing to cut: all cuts are equally bad", 4)
        axes[0].imshow(image)
        return
    front = cut.foreground
    title = f"{number}  Normalised cut, eigenvalue {cut.eigenvector.eigenvalue:.2g}"
    axes = _panels(row, title, 4)
    _show_patches(axes[0], image, front.map, "eigenvector minus its mean, and the seed")
    axes[0].plot(front.seed[1] + 0.5, front.seed[0] + 0.5, "w*", markeredgecolor="black", ms=11)
    swapped = ": sides swapped, too many corners" if front.swapped else ""
    shown = {
        f"foreground{swapped}": front.partition,
        "the part with the seed": front.component,
        CUT_VERDICTS[cut.verdict]: cut.mask,
    }
    for axis, (text, mask) in zip(axes[1:], shown.items(), strict=True):
        _show(axis, _shaded(image, mask, ORANGE), f"{text}: {mask.sum()} patches")


def _draw_refinement(
    row: Any,
    image: NDArray[np.uint8],
    patches: NDArray[np.bool_],
    result: Instances,
    title: str,
    origin: str,
) -> None:
    axes = _panels(row, title, 4)
    _show(axes[0], image, "image")
    if len(patches):
        _show(axes[1], draw_masks(image, upsample_nearest(patches, image.shape[:2])), origin)
    _show(axes[2], draw_masks(image, result.masks), "refined")
    if len(result):
        axes[3].set_axis_on()
        axes[3].barh(range(len(result)), result.scores, color=colours(len(result)))
        axes[3].yaxis.get_major_locator().set_params(integer=True)
        axes[3].invert_yaxis()
        axes[3].set(xlim=(0, 1), xlabel="score", ylabel="instance")
