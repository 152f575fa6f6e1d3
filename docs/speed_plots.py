"""The pictures of docs/speed.md and docs/planning.md, from the JSON of the benchmarks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from speed_figures import Record, at, read, results

IMAGES = Path(__file__).parent / "images"
KEY = "Description"  #: of a picture's own text: the digest of the figures that it shows


def draw_lines(
    ax: Any, records: list[Record], x: str, lines: Mapping[str, str], markers: str = "os^"
) -> None:
    """Draw lines, given by their labels and the places of their values in the records.

    ``x`` is the place of what they are drawn over. Records without a value are left out.
    """
    for (label, y), marker in zip(lines.items(), markers, strict=False):
        shown = [record for record in records if at(record, y) is not None]
        if shown:
            ax.plot([at(r, x) for r in shown], [at(r, y) for r in shown], f"{marker}-", label=label)


def label_logarithmic(ax: Any, x: str, title: str) -> None:
    ax.set(xscale="log", yscale="log", xlabel=x, ylabel="seconds, one thread", title=title)
    ax.grid(alpha=0.3)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8)


def crf(axes: Any) -> None:
    found = results("crf")
    one = found["counts"]["pydensecrf_1_mask"]
    counts = [
        {**row, "pydensecrf_s": one and row["masks"] * one["median_s"]}
        for row in found["counts"]["refine_masks"]
    ]
    lines = {"refine_masks": "median_s", "pydensecrf": "pydensecrf_s"}
    draw_lines(axes[0], counts, "masks", lines)
    label_logarithmic(axes[0], "masks of an image", "480 x 480 pixels")
    lines = {"this package's CRF": "numba.seconds", "pydensecrf": "pydensecrf.seconds"}
    draw_lines(axes[1], found["sizes"], "megapixels", lines)
    label_logarithmic(axes[1], "megapixels", "4 masks")


def prompts(axes: Any) -> None:
    rows = results("prompts.strides")
    draw_lines(axes[0], rows, "prompts", {"": "segment.median_s"})
    draw_lines(axes[1], rows, "prompts", {"": "segment_and_refine.median_s"})
    label_logarithmic(axes[0], "prompts", "segmentation")
    label_logarithmic(axes[1], "prompts", "segmentation and refinement")


def count(axes: Any) -> None:
    rows = results("count.counts")
    draw_lines(axes[0], rows, "images", {"": "images_per_s"})
    axes[0].set(xscale="log", xlabel="images", ylabel="images/s", title="speed")
    draw_lines(axes[1], rows[-1]["memory"], "images", {"": "memory_mb"})
    axes[1].set(xlabel="images done", ylabel="MB", title="memory of the process")
    for ax in axes:
        ax.set_ylim(0, 1.2 * ax.get_ylim()[1])


def encoder(axes: Any) -> None:
    for ax, place, processor in ((axes[0], "encoder", "cpu"), (axes[1], "gpu.encoder", "gpu")):
        record = read(place.partition(".")[0])
        if record is None or "error" in results(place):
            ax.text(0.5, 0.5, "no figures of a GPU yet", ha="center", va="center")
            ax.set_axis_off()
            continue
        names, rates, bounds = [], [], []
        for each in results(f"{place}.encoders"):
            best = max(each["batches"], key=lambda row: row["images_per_s"])
            names.append(f"{each['encoder'].removesuffix('.dino')}\n{each['precision']}")
            rates.append(best["tflop_per_s"])
            bounds.append(best["product"]["tflop_per_s"])
        places = np.arange(len(names))
        ax.barh(places, bounds, color="0.85", label="a large matrix product")
        ax.barh(places, rates, height=0.5, label="encoder")
        ax.set_yticks(places, names, fontsize=7)
        ax.invert_yaxis()
        ax.set(xlabel="TFLOP/s", title=record["conditions"][processor])
        ax.legend(fontsize=7)


def scale(axes: Any) -> None:
    rows = results("scale.counts")
    for row in rows:
        row |= {step: row["images"] / seconds for step, seconds in row["seconds_by_step"].items()}
    lines = {
        "all steps": "images_per_s",
        "masks to database": "masks_to_database",
        "database to JSON": "database_to_json",
    }
    draw_lines(axes[0], rows, "images", lines)
    axes[0].set(xscale="log", xlabel="images", ylabel="images/s", title="speed, two cores")
    lines = {
        "driver": "driver_mb",
        "two workers": "workers_mb",
        "mongod": "server_mb",
        "the database's data": "database_mb",
    }
    draw_lines(axes[1], rows[-1]["samples"], "images", lines, markers=",,,,")
    title = f"memory, {rows[-1]['images']:,} images"
    axes[1].set(xlabel="images done", ylabel="MB", title=title)
    for ax in axes:
        ax.set_ylim(0, 1.4 * ax.get_ylim()[1])  # room for the legend
        ax.legend(fontsize=7)


#: The drawing, and the results that it needs and that it can show.
PLOTS: dict[str, tuple[Callable[[Any], None], tuple[str, ...]]] = {
    "speed-crf.png": (crf, ("crf",)),
    "speed-prompts.png": (prompts, ("prompts",)),
    "speed-count.png": (count, ("count",)),
    "planning-scale.png": (scale, ("scale",)),
    "speed-encoder.png": (encoder, ("encoder", "gpu")),
}


def draw() -> None:
    """All pictures whose figures there are."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    for name, digest in _digests().items():
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
        PLOTS[name][0](axes)
        figure.savefig(IMAGES / name, dpi=110, metadata={KEY: digest})
        plt.close(figure)


def stale() -> list[str]:
    """Pictures that show other figures than there are."""
    return [name for name, digest in _digests().items() if _digest_of(IMAGES / name) != digest]


def _digests() -> dict[str, str]:
    """Of the figures of each picture, where there are some."""
    records = {name: [read(each) for each in shown] for name, (_, shown) in PLOTS.items()}
    return {
        name: hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
        for name, found in records.items()
        if found[0] is not None
    }


def _digest_of(path: Path) -> str | None:
    if not path.is_file():
        return None
    with Image.open(path) as image:
        return image.info.get(KEY)
