"""The figures of docs/speed.md, planning.md, encoders.md and classes.md, from the benchmarks' JSON.

A figure is named by its place, such as ``crf.traffic.copy_gb_per_s``: a benchmark, then keys of its
results, and indices of lists. What is calculated from several results has the name of a function of
this file where others have the benchmark: ``image.gflop``. After a colon comes how the figure is
shown: a style of :data:`STYLES`, or a format of Python's. Without one, numbers have three
significant digits.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
IMAGES = (1_280_000, 100_000_000)  #: to plan: ImageNet's training set, and what fills a cluster
TFLOPS = 50  #: a second, of a GPU: an assumption, said on the page

Record: TypeAlias = dict[str, Any]


class NotMeasuredError(Exception):
    """Why there is no such figure, in words for the page."""


def read(name: str) -> Record | None:
    """A benchmark's results with their conditions; None where it was not run yet.

    Raises:
        ValueError: a quick run, whose figures mean nothing.
    """
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        return None
    record: Record = json.loads(path.read_text())
    if record["quick"]:
        raise ValueError(f"{path.name} is of a quick run: python -m benchmarks {name}")
    return record


def results(place: str) -> Any:
    """What lies at a place.

    Raises:
        NotMeasuredError: the benchmark was not run yet, or this part of it could not be.
    """
    name, _, within = place.partition(".")
    if name in CALCULATED:
        return at(CALCULATED[name](), within)
    record = read(name)
    if record is None:
        raise NotMeasuredError(f"Not measured yet: `python -m benchmarks {name}`.")
    found: Record = record["results"]
    missing = [why for key, why in found.items() if key.endswith("_missing") and why]
    if missing and found.get(within.split(".")[0]) is None:
        raise NotMeasuredError(missing[0])
    return at(found, within)


def at(record: Any, place: str) -> Any:
    """What lies at a place of a record; None below what is None."""
    for key in filter(None, place.split(".")):
        if record is not None:
            record = record[int(key) if isinstance(record, list) else key]
    return record


def fill(text: str, record: Any) -> str:
    """The text with what the record has at the places in its braces."""
    return re.sub(r"\{([^:}]+):?([^}]*)\}", lambda m: show(at(record, m[1]), m[2]), text)


def figure(name: str) -> str:
    """A figure, as it is shown in a sentence."""
    place, _, style = name.partition(":")
    try:
        return show(results(place), style)
    except NotMeasuredError:
        return "(not measured yet)"


def rows(place: str, cells: str) -> list[str]:
    """Rows of a Markdown table: one for each record of a list.

    Args:
        place: of the list, or of a single record.
        cells: of a row, with places of a record in braces: ``{images} | {image_s:ms}``.
    """
    try:
        found = results(place)
    except NotMeasuredError as why:
        return [f"| {why} |"]
    records = found if isinstance(found, list) else [found]
    return [f"| {fill(cells, record)} |" for record in records]


def show(value: Any, style: str = "") -> str:
    """A value for people to read; numbers with three significant digits."""
    if value is None:
        return "not measured"
    if style:
        return STYLES[style](value) if style in STYLES else format(value, style)
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.0f}" if value == 0 or abs(value) >= 99.95 else f"{value:#.3g}"


STYLES: dict[str, Callable[[Any], str]] = {
    "share": lambda value: f"{100 * value:.0f} %",
    "iou": lambda value: f"{value:.6g}",  # with all of its digits: 0.99996 must not become 1
    "lowest_iou": lambda values: f"{min(values):.6g}",
    "ms": lambda seconds: show(1000 * seconds),
    "whole_ms": lambda seconds: f"{1000 * seconds:.0f}",
    "counts": lambda counts: ", ".join(f"{n} {name}" for name, n in sorted(counts.items())),
    "inverse": lambda value: show(round(1 / value, 2)),
    "list": lambda values: ", ".join(
        f"{v:.2g}" if isinstance(v, float) else str(v) for v in values
    ),
}


def machines() -> dict[str, list[Record]]:
    """What the benchmarks of each page were run on, of those that were."""
    speed = (
        "segmentation", "normalized_cut", "crf", "encoder", "end_to_end", "prompts", "table2",
        "count", "writing", "embeddings", "exporting", "evaluation", "review", "panels", "gpu",
    )  # fmt: skip
    planning = ("scale", "million", "soak", "encoder", "end_to_end", "writing", "exporting")
    return {"speed": conditions(*speed), "planning": conditions(*planning)}


def conditions(*names: str) -> list[Record]:
    """What benchmarks were run on, of those that were."""
    found = []
    for name in names:
        record = read(name)
        if record is not None:
            stored = record["conditions"]
            commit, _, state = (stored["commit"] or "unknown").partition(" ")
            machine = fill("{cpu}, {cores} cores", stored)
            machine += f"; {stored['gpu']}" if stored["gpu"] else ""
            shown = {"commit": f"{commit[:10]} {state}".strip(), "day": stored["time"][:10]}
            found.append({**stored, "name": name, "machine": machine, **shown})
    return found


def segmentation_cases() -> list[Record]:
    """The cases of the default preset, each with its ratio under the official one."""
    ratios: dict[tuple[str, int], Record] = {}
    for case in results("segmentation.against_product"):
        of_case = ratios.setdefault((case["image"], case["stride"]), {})
        of_case |= {**case, case["preset"]: case["segment_over_product"]}
    return list(ratios.values())


def times_product() -> Record:
    """How many times the product's time segmentation takes, in the middle, by stride."""
    ratios: dict[str, list[float]] = {}
    for case in results("segmentation.against_product"):
        ratios.setdefault(str(case["stride"]), []).append(case["segment_over_product"])
    return {stride: statistics.median(values) for stride, values in ratios.items()}


def step_shares() -> list[Record]:
    """The share of each step, by stride."""
    parts = {str(part["stride"]): part["ms"] for part in results("segmentation.steps")}
    return [
        {"step": step, **{stride: ms[step] / sum(ms.values()) for stride, ms in parts.items()}}
        for step in parts["4"]
    ]


def relative_prompts() -> list[Record]:
    """The strides, with seconds relative to those of the default stride."""
    strides = results("prompts.strides")
    one = next(row for row in strides if row["stride"] == 4)
    for part in ("segment", "segment_and_refine"):
        at_default = one[part]["median_s"]
        for row in strides:
            row[part] = row[part]["median_s"] / at_default
    return list(strides)


def cuts() -> Any:
    """MaskCut's cuts on one thread."""
    return results("normalized_cut.threads.0")


def crf_agreement() -> list[Record]:
    """The agreement on each photograph, and on all."""
    found = results("crf.agreement")
    unrefined = {"all, with the masks before refinement": found["unrefined"]}
    parts = {**found["images"], "all": found["all"], **unrefined}
    return [{"image": name, **part} for name, part in parts.items()]


def crf_sizes() -> list[Record]:
    """The sizes, with the memory that each CRF takes on top of what the process held."""
    sizes = results("crf.sizes")
    for size in sizes:
        ours, theirs = size["numba"], size["pydensecrf"]
        size["times_faster"] = theirs and round(theirs["seconds"] / ours["seconds"], 2)
        for crf in filter(None, (ours, theirs)):
            crf["grown_mb"] = crf["peak_memory_mb"] - crf["memory_before_mb"]
    return list(sizes)


def throughput() -> list[Record]:
    """The runs of whole pipelines, with the share of each stage."""
    runs = results("end_to_end.throughput")
    for run in runs:
        stages = ("read", "encode", "segment", "refine")
        alone = [run["stages_alone"][name]["median_s"] for name in stages]
        run |= {name: part / sum(alone) for name, part in zip(stages, alone, strict=True)}
        run["grown_mb"] = max(0.0, run["peak_memory_mb"] - run["memory_before_mb"])
    return list(runs)


def overlap() -> Record:
    """How well the stages overlap, and how many times as fast all threads are as one."""
    found = results("end_to_end.overlap")
    return {**found, "thread_gain": found["share_of_threads"] * found["threads"]}


def table2_rows() -> list[Record]:
    """Table 2 as the paper has it, then here on a CPU, then on a GPU where that was measured."""
    paper = results("table2.paper")
    found = [
        {
            "method": f"{name}, paper's Table 2",
            "machine": paper["hardware"],
            "images": "200",
            "median_s": "not told",
            "images_per_s": rate,
        }
        for name, rate in paper["images_per_s"].items()
    ]
    for each in conditions("table2", "gpu"):
        place = "gpu.table2" if each["name"] == "gpu" else "table2"
        found += [
            {
                **run,
                "method": fill("`{preset}`, {precision}", run),
                "machine": each["machine"] + ("" if each["gpu"] else ", no GPU"),
                "images": fill("{images}, first {warm_up} not counted", run),
            }
            for run in results(place).get("presets", ())
        ]
    return found


def count_growth() -> float:
    """Megabytes by which the memory of the longest run grows in its second half."""
    looks = results("count.counts.-1.memory")
    return float(looks[-1]["memory_mb"] - looks[len(looks) // 2]["memory_mb"])


REVIEWED = {
    "progress": "the progress",
    "histograms": "the three histograms",
    "queue_by_score": "a page of 48, lowest score first",
    "queue_by_disagreement": "a page, greatest disagreement first, once measured",
    "queue_by_size": "a page, odd size first",
    "open_a_bar": "the first images of a histogram's bar",
    "accept_one_of_the_page": "accept one mask of the page",
    "accept_the_page": "accept the page",
    "accept_one_anywhere": "accept one mask by its id, wherever it is",
    "undo_one": "take that back",
    "reject_half_of_all_by_score": "reject the half of all with a score above 0.5",
    "undo_half_of_all": "take that back",
}


def review_parts() -> list[Record]:
    """Seconds of work for what a reviewer does, by the number of labels."""
    return _by_count("review", REVIEWED)


def panel_parts() -> list[Record]:
    """Seconds until a panel or a form is there, by the number of labels; the slowest first."""
    last = results("panels.counts.-1.seconds")
    names = sorted(last, key=lambda name: -float(last[name]["median_s"]))
    return _by_count("panels", {name: name for name in names})


def _by_count(benchmark: str, parts: Mapping[str, str]) -> list[Record]:
    counts = results(f"{benchmark}.counts")
    return [
        {"part": shown, "by_count": [count["seconds"][name] for count in counts]}
        for name, shown in parts.items()
    ]


def image() -> Record:
    """What an image costs: operations, seconds and bytes of each part."""
    stages = results("end_to_end.throughput.0.stages_alone")
    exported = results("exporting.counts.-1")
    (vit,) = (
        each
        for each in results("encoder.encoders")
        if (each["encoder"], each["precision"]) == ("vit_base_patch8_224.dino", "fp32")
    )
    return {
        "gflop": vit["gflop_per_image"],
        **{f"{name}_s": stages[name]["median_s"] for name in ("read", "segment", "refine")},
        "database_bytes": results("writing.counts.-1.bytes_per_image"),
        "json_bytes": exported["file_mb"] * 2**20 / exported["images"],
        "export_s": exported["export"]["ms_per_image"] / 1000,
    }


def merged_per_s() -> float:
    """Images whose masks the driver merges in a second, which no worker does for it."""
    last = results("scale.counts.-1")
    return float(last["images"] / last["seconds_by_step"]["masks_to_database"])


def plans() -> list[Record]:
    """What an image costs, many times: hours, and gigabytes."""
    one = image()
    return [
        {
            "images": images,
            "gpu": images * one["gflop"] / (1000 * TFLOPS) / 3600,
            "read_and_segment": images * (one["read_s"] + one["segment_s"]) / 3600,
            "refine": images * one["refine_s"] / 3600,
            "database": images * one["database_bytes"] / 1e9,
            "json": images * one["json_bytes"] / 1e9,
            "export": images * one["export_s"] / 3600,
            "merge": images / merged_per_s() / 3600,
        }
        for images in IMAGES
    ]


def driver_bytes() -> int:
    """Bytes by which the driver's memory grows with each image."""
    first, *_, last = results("scale.counts")
    grown = (last["peak_memory_mb"] - first["peak_memory_mb"]) * 2**20
    return round(float(grown / (last["images"] - first["images"])))


def gpu() -> str:
    """All that was measured on a GPU, part by part, as it was written; or how to measure it."""
    record = read("gpu")
    if record is None:
        return (
            "No figures of a GPU have been taken yet. On a machine with one, in a checkout, with "
            "torch, timm, numba, scipy, pillow and scikit-image:\n\n"
            "```\npython -m benchmarks gpu\npython docs/make_speed.py\n```"
        )
    parts = []
    for name, section in record["results"].items():
        tables = (part for part in section.values() if isinstance(part, (dict, list)))
        failed = [f"It failed: {section['error']}"] if "error" in section else []
        parts += [f"`{name}`:", *failed, *map(_table, tables)]
    return "\n\n".join(parts)


def _table(part: Record | list[Record]) -> str:
    """A Markdown table with all figures of one or more records, a row for each of their batches."""
    records = part if isinstance(part, list) else [part]
    found = [
        {**_flat(record), **_flat(batch)}
        for record in records
        for batch in record.get("batches", [{}])
    ]
    heads = list(dict.fromkeys(head for row in found for head in row))
    lines = [heads, ["---"] * len(heads)]
    lines += [[show(row.get(head, "")) for head in heads] for row in found]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _flat(record: Record, above: str = "") -> Record:
    """The figures of a record by their places, without those in lists."""
    row: Record = {}
    for key, value in record.items():
        if isinstance(value, dict):
            row |= _flat(value, f"{above}{key}.")
        elif not isinstance(value, list):
            row[above + key] = value
    return row


def calibrated() -> list[Record]:
    """Each encoder's calibration, proposals and search, with short names."""
    found = results("encoders")
    shown = []
    for name, record in found.items():
        if not isinstance(record, dict) or "proposals" not in record:
            continue
        before = (record["calibration"] or {}).get("before")
        shown.append(
            {
                "name": "texture" if name == "texture" else f"ViT-S/14, `{name}`",
                "cosines": " ".join(f"{value:.2f}" for value in before)
                if before
                else "as they are",
                "default": record["calibrated default"],
                "paper": record["paper's thresholds"],
                "maskcut": record["MaskCut"],
                "proposals": record["proposals"],
                "difference": _interval(record["proposals"]["AP_over_the_first"]),
                "time": record["proposals' share of the default's CPU time"],
                "best": record["best of the search"]["AP"],
                "share": record["share of the best AP"],
                "rho": record["rank correlation of score and best IoU"],
            }
        )
    return shown


def _interval(values: list[float]) -> str:
    """A difference and its interval."""
    value, low, high = values
    return f"{value:+.2f} [{low:.2f}, {high:.2f}]"


#: The functions that a place may begin with.
CALCULATED: dict[str, Callable[[], Any]] = {
    function.__name__: function
    for function in (
        machines, segmentation_cases, times_product, step_shares, relative_prompts, cuts,
        crf_agreement, crf_sizes, throughput, overlap, table2_rows, count_growth, review_parts,
        panel_parts, image, merged_per_s, plans, driver_bytes, calibrated,
    )
}  # fmt: skip
