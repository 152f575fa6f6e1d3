"""The tables and sentences of docs/planning.md, from the JSON of the benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from speed_results import read, results, table

PLANS = (1_280_000, 100_000_000)  #: images: ImageNet's training set, and what fills a cluster
TFLOPS = 50  #: of a GPU: an assumption, said on the page


def machine() -> str:
    rows = []
    for name in ("scale", "soak", "encoder", "end_to_end", "writing", "exporting"):
        record = read(name)
        if record is None:
            continue
        c = record["conditions"]
        commit = (c["commit"] or "unknown")[:10]
        link = f"[{name}](../benchmarks/results/{name}.json)"
        rows.append([link, f"{c['cpu']}, {c['cores']} cores", commit, c["time"][:10]])
    return table(["benchmark", "machine", "commit", "date"], rows)


def scale() -> str:
    header = [
        "images", "files to dataset, s", "masks to database, s", "database to JSON, s",
        "images/s, all steps", "a second run that does nothing, s", "database, MB", "JSON, MB",
        "driver's peak, MB",
    ]  # fmt: skip
    rows = []
    for row in results("scale")["counts"]:
        s = row["seconds_by_step"]
        rows.append(
            [
                row["images"], s["files_to_dataset"], s["masks_to_database"],
                s["database_to_json"], row["images_per_s"], s["second_run_does_nothing"],
                row["database_mb"], row["json_mb"], row["peak_memory_mb"],
            ]
        )  # fmt: skip
    return table(header, rows)


def parts() -> str:
    """What one image costs, part by part."""
    vit, stages = _vit("vit_base_patch8_224.dino"), _stages()
    exported, written = results("exporting")["counts"][-1], results("writing")["counts"][-1]
    json_bytes = exported["file_mb"] * 2**20 / exported["images"]
    rows: list[list[Any]] = [
        ["encoder, ViT-B/8, fp32", f"{vit['gflop']:,.0f} GFLOP", "GPU"],
        ["prompts to merged masks", f"{1000 * stages['segment']['median_s']:.0f} ms", "a CPU core"],
        ["CRF and the rest of refining", f"{1000 * stages['refine']['median_s']:.0f} ms",
         "a CPU core, or the GPU"],
        ["reading a JPEG file", f"{1000 * stages['read']['median_s']:.0f} ms", "a CPU core"],
        ["labels in the database, 5 masks at 480 x 640", f"{written['bytes_per_image']:,} bytes",
         "the server's disk"],
        ["the same in COCO's JSON", f"{json_bytes:,.0f} bytes", "a disk"],
        ["writing that JSON", f"{exported['export']['ms_per_image']:.2f} ms", "two CPU cores"],
    ]  # fmt: skip
    return table(["part", "an image", "of"], rows)


def plan() -> str:
    """The parts, many times."""
    vit, stages = _vit("vit_base_patch8_224.dino"), _stages()
    written, exported = results("writing")["counts"][-1], results("exporting")["counts"][-1]
    rows = []
    for images in PLANS:
        gpu = images * vit["gflop"] * 1e9 / (TFLOPS * 1e12) / 3600
        cores = {name: images * stages[name]["median_s"] / 3600 for name in stages}
        rows.append(
            [
                f"{images:,}",
                f"{gpu:,.0f}",
                f"{cores['read'] + cores['segment']:,.0f}",
                f"{cores['refine']:,.0f}",
                f"{images * written['bytes_per_image'] / 1e9:,.0f}",
                f"{images * exported['file_mb'] * 2**20 / exported['images'] / 1e9:,.0f}",
                f"{images * exported['export']['ms_per_image'] / 3.6e6:,.1f}",
            ]
        )
    header = [
        "images", f"GPU hours at {TFLOPS} TFLOP/s", "core hours, reading and segmenting",
        "core hours, CRF", "database, GB", "JSON, GB", "hours to write the JSON",
    ]  # fmt: skip
    return table(header, rows)


def merging() -> str:
    """How long the driver's own part takes, which no worker shares."""
    last = results("scale")["counts"][-1]
    rate = last["images"] / last["seconds_by_step"]["masks_to_database"]
    rows = [[f"{images:,}", f"{images / rate / 3600:,.1f}"] for images in PLANS]
    return table(["images", f"hours at the {rate:.0f} images/s of two cores"], rows)


def driver_bytes() -> int:
    """Bytes that the driver's memory grows by, an image."""
    first, last = results("scale")["counts"][0], results("scale")["counts"][-1]
    grown = (last["peak_memory_mb"] - first["peak_memory_mb"]) * 2**20
    return round(grown / (last["images"] - first["images"]))


def _vit(name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        e
        for e in results("encoder")["encoders"]
        if (e["encoder"], e["precision"]) == (name, "fp32")
    )
    return {**found, "gflop": found["gflop_per_image"]}


def _stages() -> dict[str, dict[str, float]]:
    found = results("end_to_end")["throughput"][0]["stages_alone"]
    return {name: found[name] for name in ("read", "segment", "refine")}


def soak() -> str:
    found = results("soak")
    rows = [
        [
            found["images"], sum(found["kills_by_victim"].values()),
            ", ".join(f"{n} {name}" for name, n in sorted(found["kills_by_victim"].items())),
            found["runs_started"], found["masks"], found["images_that_differ"],
        ]
    ]  # fmt: skip
    return table(
        ["images", "kills", "of them", "runs started", "masks", "images that differ"], rows
    )


TABLES: dict[str, Callable[[], str]] = {
    "scale_machine": machine,
    "scale": scale,
    "scale_parts": parts,
    "scale_plan": plan,
    "scale_merging": merging,
    "scale_soak": soak,
}
VALUES: dict[str, Callable[[], Any]] = {"scale_driver_bytes": driver_bytes}
