"""What the benchmarks wrote, and how it is shown in docs/speed.md."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


def read(name: str) -> dict[str, Any] | None:
    """A benchmark's results with their conditions; None where it was not run yet.

    Raises:
        ValueError: a quick run, whose figures mean nothing.
    """
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        return None
    record: dict[str, Any] = json.loads(path.read_text())
    if record["quick"]:
        raise ValueError(f"{path.name} is of a quick run: python -m benchmarks {name}")
    return record


def results(name: str) -> Any:
    """A benchmark's results.

    Raises:
        FileNotFoundError: it was not run yet.
    """
    record = read(name)
    if record is None:
        raise FileNotFoundError(name)
    return record["results"]


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; numbers with three digits that count."""
    cells = [list(header), ["---"] * len(header), *([show(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def show(value: Any) -> str:
    """A number with three significant digits, and without an exponent."""
    if value is None:
        return "not measured"
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 2
    while digits < 6 and abs(value) < 10 ** (2 - digits):
        digits += 1
    return f"{value:.{digits - (abs(value) >= 10)}f}"


def iou(value: float | None) -> str:
    """With all of its digits: 0.99996 must not become 1."""
    return "none" if value is None else f"{value:.6g}"


def share(value: float) -> str:
    return f"{100 * value:.0f} %"


def cuts() -> dict[str, Any]:
    """MaskCut's cuts on one thread."""
    found: dict[str, Any] = results("normalized_cut")["threads"][0]
    return found


def values() -> dict[str, Callable[[], Any]]:
    """The figures that stand in sentences, by their names there."""

    def middle(stride: int) -> float:
        cases = results("segmentation")["against_product"]
        of = [c["segment_over_product"] for c in cases if c["stride"] == stride]
        return float(statistics.median(of))

    def growth() -> float:
        last = results("count")["counts"][-1]["memory"]
        return float(last[-1]["memory_mb"] - last[len(last) // 2]["memory_mb"])

    def thread_gain() -> float:
        found = results("end_to_end")["overlap"]
        return float(found["share_of_threads"] * found["threads"])

    return {
        "segmentation_stride_4": lambda: middle(4),
        "segmentation_stride_2": lambda: middle(2),
        "cuts_faster": lambda: cuts()["times_faster_by_processor_time"],
        "cuts_iou": lambda: iou(cuts()["min_iou"]),
        "cuts_all_ms": lambda: 1000 * cuts()["parts"]["all_cuts"]["processor"]["median_s"],
        "cuts_graph_ms": lambda: 1000 * cuts()["parts"]["graph"]["processor"]["median_s"],
        "crf_compiling": lambda: results("crf")["first_calls"]["compiling_s"],
        "crf_later": lambda: results("crf")["first_calls"]["later_s"],
        "attention": lambda: share(results("encoder")["encoders"][-1]["attention_share"]),
        "crf_corners": lambda: results("crf")["traffic"]["corners_gb_per_s"],
        "crf_copy": lambda: results("crf")["traffic"]["copy_gb_per_s"],
        "threads": lambda: results("end_to_end")["overlap"]["threads"],
        "thread_gain": thread_gain,
        "crf_lowest_iou": lambda: iou(results("crf")["agreement"]["all"]["min_iou"]),
        "crf_compared": lambda: results("crf")["agreement"]["all"]["masks"],
        "overlap": lambda: results("end_to_end")["overlap"]["together_over_slower"],
        "count_growth": growth,
        "count_most": lambda: results("count")["counts"][-1]["images"],
    }
