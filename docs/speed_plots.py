"""The pictures of docs/speed.md and docs/planning.md, from the JSON of the benchmarks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from speed_results import read, results

IMAGES = Path(__file__).parent / "images"
KEY = "Description"  #: of a picture's own text: the digest of the figures that it shows


def crf(axes: Any) -> None:
    found = results("crf")
    counts, one = found["counts"]["refine_masks"], found["counts"]["pydensecrf_1_mask"]
    masks = [row["masks"] for row in counts]
    axes[0].plot(masks, [row["median_s"] for row in counts], "o-", label="refine_masks")
    if one is not None:
        axes[0].plot(masks, [n * one["median_s"] for n in masks], "s-", label="pydensecrf")
    _log(axes[0], "masks of an image", "seconds, one thread", "480 x 480 pixels")
    for name in ("numba", "pydensecrf"):
        sizes = [row for row in found["sizes"] if row[name] is not None]
        if sizes:
            seconds = [row[name]["seconds"] for row in sizes]
            label = {"numba": "this package's CRF"}.get(name, name)
            axes[1].plot([row["megapixels"] for row in sizes], seconds, "os"[name != "numba"] + "-",
                         label=label)  # fmt: skip
    _log(axes[1], "megapixels", "seconds, one thread", "4 masks")


def prompts(axes: Any) -> None:
    rows = results("prompts")["strides"]
    for ax, key, title in (
        (axes[0], "segment", "segmentation"),
        (axes[1], "segment_and_refine", "segmentation and refinement"),
    ):
        seconds = [row[key]["median_s"] for row in rows]
        ax.plot([row["prompts"] for row in rows], seconds, "o-")
        _log(ax, "prompts", "seconds, one thread", title)


def count(axes: Any) -> None:
    rows = results("count")["counts"]
    axes[0].plot([row["images"] for row in rows], [row["images_per_s"] for row in rows], "o-")
    axes[0].set(xscale="log", xlabel="images", ylabel="images/s", title="speed")
    memory = rows[-1]["memory"]
    axes[1].plot([s["images"] for s in memory], [s["memory_mb"] for s in memory], "o-")
    axes[1].set(xlabel="images done", ylabel="MB", title="memory of the process")
    for ax in axes:
        ax.set_ylim(0, 1.2 * ax.get_ylim()[1])


def encoder(axes: Any) -> None:
    for ax, source in zip(axes, ("encoder", "gpu"), strict=True):
        record = read(source)
        if record is None or "error" in record["results"].get("encoder", ()):
            ax.text(0.5, 0.5, "no figures of a GPU yet", ha="center", va="center")
            ax.set_axis_off()
            continue
        found = record["results"] if source == "encoder" else record["results"]["encoder"]
        names, rates, bounds = [], [], []
        for each in found["encoders"]:
            best = max(each["batches"], key=lambda row: row["images_per_s"])
            names.append(f"{each['encoder'].removesuffix('.dino')}\n{each['precision']}")
            rates.append(best["tflop_per_s"])
            bounds.append(best["product"]["tflop_per_s"])
        places = np.arange(len(names))
        ax.barh(places, bounds, color="0.85", label="a large matrix product")
        ax.barh(places, rates, height=0.5, label="encoder")
        ax.set_yticks(places, names, fontsize=7)
        ax.invert_yaxis()
        where = record["conditions"]["gpu"] if source == "gpu" else record["conditions"]["cpu"]
        ax.set(xlabel="TFLOP/s", title=where)
        ax.legend(fontsize=7)


def scale(axes: Any) -> None:
    rows = results("scale")["counts"]
    counts = [row["images"] for row in rows]
    axes[0].plot(counts, [row["images_per_s"] for row in rows], "o-", label="all steps")
    for step in ("masks_to_database", "database_to_json"):
        rates = [row["images"] / row["seconds_by_step"][step] for row in rows]
        axes[0].plot(counts, rates, "o-", label=step.replace("_", " "))
    axes[0].set(xscale="log", xlabel="images", ylabel="images/s", title="speed, two cores")
    samples = rows[-1]["samples"]
    done = [sample["images"] for sample in samples]
    for name, label in (
        ("driver_mb", "driver"),
        ("workers_mb", "two workers"),
        ("server_mb", "mongod"),
        ("database_mb", "the database's data"),
    ):
        style = "--" if name == "database_mb" else "-"
        axes[1].plot(done, [sample[name] for sample in samples], style, label=label)
    axes[1].set(xlabel="images done", ylabel="MB", title=f"memory, {counts[-1]:,} images")
    for ax in axes:
        ax.set_ylim(0, 1.4 * ax.get_ylim()[1])  # room for the legend
        ax.legend(fontsize=7)


#: The drawing, and the results that it needs and that it can show.
PLOTS: dict[str, tuple[Callable[[Any], None], str, tuple[str, ...]]] = {
    "speed-crf.png": (crf, "crf", ("crf",)),
    "speed-prompts.png": (prompts, "prompts", ("prompts",)),
    "speed-count.png": (count, "count", ("count",)),
    "planning-scale.png": (scale, "scale", ("scale",)),
    "speed-encoder.png": (encoder, "encoder", ("encoder", "gpu")),
}


def draw() -> None:
    """All pictures whose figures there are."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    for name, (plot, needed, shown) in PLOTS.items():
        if read(needed) is None:
            continue
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
        plot(axes)
        figure.savefig(IMAGES / name, dpi=110, metadata={KEY: _digest(shown)})
        plt.close(figure)


def stale() -> list[str]:
    """Pictures that show other figures than there are."""
    return [
        name
        for name, (_, needed, shown) in PLOTS.items()
        if read(needed) is not None and _digest_of(IMAGES / name) != _digest(shown)
    ]


def _digest(shown: tuple[str, ...]) -> str:
    text = json.dumps([read(name) for name in shown], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _digest_of(path: Path) -> str | None:
    if not path.is_file():
        return None
    with Image.open(path) as image:
        return image.info.get(KEY)


def _log(ax: Any, x: str, y: str, title: str) -> None:
    ax.set(xscale="log", yscale="log", xlabel=x, ylabel=y, title=title)
    ax.grid(alpha=0.3)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8)
