"""The tables of docs/speed.md whose figures are a GPU's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from speed_results import read, share, table

Make = Callable[[dict[str, Any], dict[str, Any]], str]
COMMAND = "python -m benchmarks gpu"
MISSING = (
    "No figures of a GPU have been taken yet. On a machine with one, in a checkout, with torch, "
    "timm, numba, scipy, pillow and scikit-image:\n\n"
    f"```\n{COMMAND}\npython docs/make_speed.py\n```"
)


def gpu_machine(sections: dict[str, Any], conditions: dict[str, Any]) -> str:
    names = ("gpu", "driver", "cuda", "cpu", "cores", "python", "torch", "timm", "commit", "time")
    return table(["", ""], [[name, conditions[name]] for name in names])


def gpu_encoder(sections: dict[str, Any], conditions: dict[str, Any]) -> str:
    found = sections["encoder"]
    kinds = [("", each) for each in found["encoders"]]
    kinds += [(_compiled(each), each) for each in sections["encoder_compiled"]["encoders"]]
    rows = []
    for compiled, each in kinds:
        if "batches" not in each:
            name = f"`{each['encoder']}`"
            rows.append([name, each["precision"], compiled, each["left_out"], *[""] * 4])
            continue
        rows += [
            [
                f"`{each['encoder']}`",
                each["precision"],
                compiled,
                row["batch"],
                row["images_per_s"],
                row["tflop_per_s"],
                share(row["share_of_product"]),
                row["peak_gpu_memory_mb"],
            ]
            for row in each["batches"]
        ]
    header = ["encoder", "precision", "", "batch", "images/s", "TFLOP/s"]
    return table([*header, "of a large product's rate", "GPU memory, MB"], rows)


def _compiled(each: dict[str, Any]) -> str:
    if "first_batch_s" not in each:
        return "compiled"
    return f"compiled, in {each['first_batch_s']:.0f} s"


def gpu_crf(sections: dict[str, Any], conditions: dict[str, Any]) -> str:
    rows = [
        [
            row["images"],
            row["masks_per_image"],
            row["ms_per_image"],
            row["masks_per_s"],
            row["times_faster_than_numba"],
            row["peak_gpu_memory_mb"],
            row["iou_with_numba"]["min"],
        ]
        for row in sections["crf"]["batches"]
    ]
    header = ["images", "masks of each", "ms an image", "masks/s", "times one CPU thread's rate"]
    return table([*header, "GPU memory, MB", "lowest IoU with it"], rows)


def gpu_segmentation(sections: dict[str, Any], conditions: dict[str, Any]) -> str:
    rows = [
        [f"{row['image']}, stride {row['stride']}", *_ms(row), row["segment_over_product"]]
        for row in sections["segmentation"]["against_product"]
        if row["preset"] == "default"
    ]
    header = ["features of COCO image", "product, ms", "segmentation, ms"]
    return table([*header, "times the product"], rows)


def _ms(row: dict[str, Any]) -> list[float]:
    return [1000 * row[name]["median_s"] for name in ("product", "segment")]


def gpu_throughput(sections: dict[str, Any], conditions: dict[str, Any]) -> str:
    rows = [
        [
            row["preset"],
            row["precision"],
            row["batch"],
            row["crf_device"],
            row["images_per_s"],
            row["encoder_alone_images_per_s"],
            share(row["share_of_encoder_alone"]),
            row["peak_gpu_memory_mb"],
        ]
        for row in sections["end_to_end"]["throughput"]
    ]
    header = ["preset", "precision", "batch", "CRF on", "images/s", "encoder alone", "share of it"]
    return table([*header, "GPU memory, MB"], rows)


def gpu_count(sections: dict[str, Any], conditions: dict[str, Any]) -> str:
    rows = [
        [row["images"], row["images_per_s"], row["memory_before_mb"], row["peak_memory_mb"]]
        for row in sections["count"]["counts"]
    ]
    return table(["images", "images/s", "MB before", "MB at most"], rows)


#: Titles, the tables, and the parts of the run that each is of.
_PARTS: tuple[tuple[str, Make, tuple[str, ...]], ...] = (
    ("The machine:", gpu_machine, ()),
    ("The encoder alone:", gpu_encoder, ("encoder", "encoder_compiled")),
    (
        "The whole pipeline, from JPEG files to refined masks, images in batches:",
        gpu_throughput,
        ("end_to_end",),
    ),
    (
        "Features to merged masks, with the features on the GPU:",
        gpu_segmentation,
        ("segmentation",),
    ),
    ("The CRF of all masks of a batch of images:", gpu_crf, ("crf",)),
    ("Without the encoder, by the number of images:", gpu_count, ("count",)),
)


def gpu() -> str:
    """All of them, each below a title; or how to take the figures."""
    record = read("gpu")
    if record is None:
        return MISSING
    sections, conditions = record["results"], record["conditions"]
    texts = []
    for title, make, parts in _PARTS:
        errors = [sections[part]["error"] for part in parts if "error" in sections[part]]
        body = f"It failed: {'; '.join(errors)}" if errors else make(sections, conditions)
        texts.append(f"{title}\n\n{body}")
    return "\n\n".join(texts)


TABLES: dict[str, Callable[[], str]] = {"gpu": gpu}
