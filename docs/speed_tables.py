"""The tables of docs/speed.md whose figures are a CPU's, from the JSON of the benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from speed_results import cuts, iou, read, results, share, table

NAMES = (
    "segmentation", "normalized_cut", "crf", "encoder", "end_to_end", "prompts", "table2", "count",
    "writing", "exporting", "evaluation", "review", "panels",
)  # fmt: skip


def machine() -> str:
    """Which machine, versions and commit the figures are of."""
    rows = []
    for name in (*NAMES, "gpu"):
        record = read(name)
        if record is None:
            continue
        c = record["conditions"]
        where = f"{c['cpu']}, {c['cores']} cores" + (f"; {c['gpu']}" if c["gpu"] else "")
        rows.append(
            [
                f"[{name}](../benchmarks/results/{name}.json)",
                where,
                f"{c['python']}, {c['torch']}, {c['numba']}",
                _short(c["commit"]),
                c["time"][:10],
            ]
        )
    return table(["benchmark", "machine", "Python, torch, numba", "commit", "date"], rows)


def _short(commit: str | None) -> str:
    name, _, state = (commit or "unknown").partition(" ")
    return f"{name[:10]} {state}".strip()


def segmentation() -> str:
    cases = results("segmentation")["against_product"]
    ratios = {(c["image"], c["stride"], c["preset"]): c["segment_over_product"] for c in cases}
    rows = [
        [
            f"{c['image']}, stride {c['stride']}",
            c["prompts"],
            c["masks"],
            ratios[c["image"], c["stride"], "official"],
            ratios[c["image"], c["stride"], "default"],
        ]
        for c in cases
        if c["preset"] == "default"
    ]
    header = ["features of COCO image", "prompts", "masks", "times the product, `official`"]
    return table([*header, "`default`"], rows)


def steps() -> str:
    parts = {part["stride"]: part["ms"] for part in results("segmentation")["steps"]}
    rows = [
        [step, *(share(ms[step] / sum(ms.values())) for ms in parts.values())]
        for step in next(iter(parts.values()))
    ]
    return table(["step", *(f"stride {stride}" for stride in parts)], rows)


def normalized_cut() -> str:
    rows = [
        [
            image["image"],
            ", ".join(f"{value:.2g}" for value in image["eigenvalues"]),
            ", ".join(map(str, image["products"])),
            image["lanczos"]["processor"]["median_s"],
            image["dense"]["processor"]["median_s"],
            image["times_faster_by_processor_time"],
            iou(min(image["ious"])),
        ]
        for image in cuts()["images"]
    ]
    header = ["features of", "eigenvalues", "products", "seconds", "seconds, dense"]
    return table([*header, "times faster", "lowest IoU"], rows)


def crf_counts() -> str:
    rows = results("crf")["counts"]["refine_masks"]
    return table(
        ["masks of an image", "times faster"], [[row["masks"], row["times_faster"]] for row in rows]
    )


def crf_agreement() -> str:
    found = results("crf")["agreement"]
    if found is None:
        return results("crf")["pydensecrf_missing"]
    parts = {
        **found["images"],
        "all": found["all"],
        "all, with the masks before refinement": found["unrefined"],
    }
    rows = [[name, row["masks"], *map(iou, list(row.values())[1:])] for name, row in parts.items()]
    return table(["image", "masks", "mean IoU", "lowest IoU"], rows)


def crf_sizes() -> str:
    rows = []
    for size in results("crf")["sizes"]:
        ours, theirs = size["numba"], size["pydensecrf"]
        rows.append(
            [
                size["megapixels"],
                ours["seconds"],
                theirs and round(theirs["seconds"] / ours["seconds"], 2),
                _grown(ours),
                theirs and _grown(theirs),
                theirs and iou(size["iou"]),
            ]
        )
    header = ["megapixels", "seconds", "times faster", "MB", "MB, pydensecrf", "IoU"]
    return table(header, rows)


def _grown(record: dict[str, Any]) -> float:
    return float(record["peak_memory_mb"] - record["memory_before_mb"])


def crf_torch() -> str:
    rows = [
        [row["masks_per_image"], round(1 / row["times_faster_than_numba"], 2)]
        for row in results("crf")["batches"]
    ]
    return table(["masks of an image", "times slower than the one in numba, on a CPU"], rows)


def prompts() -> str:
    rows = results("prompts")["strides"]
    one = next(row for row in rows if row["stride"] == 4)
    keys = "segment", "segment_and_refine"
    return table(
        ["stride", "prompts", "segmentation, relative", "with refinement, relative"],
        [
            [
                row["stride"],
                row["prompts"],
                *(row[key]["median_s"] / one[key]["median_s"] for key in keys),
            ]
            for row in rows
        ],
    )


def encoder() -> str:
    rows = []
    for each in results("encoder")["encoders"]:
        batch = each["batches"][0]
        rows.append(
            [
                f"`{each['encoder']}`",
                each["precision"],
                float(each["gflop_per_image"]),
                batch["median_s"],
                share(batch["share_of_product"]),
            ]
        )
    header = ["encoder", "precision", "GFLOP an image", "seconds an image"]
    return table([*header, "share of a large product's rate"], rows)


def throughput() -> str:
    rows = []
    for row in results("end_to_end")["throughput"]:
        alone = row["stages_alone"]
        stages = ("read", "encode", "segment", "refine")
        shares = [alone[name]["median_s"] for name in stages]
        rows.append(
            [
                row["preset"],
                *(share(part / sum(shares)) for part in shares),
                row["images_per_s"],
                share(row["share_of_encoder_alone"]),
                max(0.0, row["peak_memory_mb"] - row["memory_before_mb"]),
            ]
        )
    header = ["preset", "read", "encode", "segment", "refine", "images/s"]
    return table([*header, "share of the encoder alone", "MB on top of the encoder's"], rows)


def table2() -> str:
    found = results("table2")
    paper = found["paper"]["hardware"]
    rows = [
        [f"{name}, paper's Table 2", paper, "200", None, rate]
        for name, rate in found["paper"]["images_per_s"].items()
    ]
    for source in ("table2", "gpu"):
        record = read(source)
        if record is None:
            continue
        part = record["results"] if source == "table2" else record["results"]["table2"]
        if "error" in part:
            continue
        c = record["conditions"]
        where = c["gpu"] if source == "gpu" else f"{c['cpu']}, {c['cores']} cores, no GPU"
        rows += [
            [
                f"`{row['preset']}`, {row['precision']}",
                where,
                f"{row['images']}, first {row['warm_up']} not counted",
                row["median_s"],
                row["images_per_s"],
            ]
            for row in part["presets"]
        ]
    return table(
        ["", "machine", "images", "median seconds", "images/s, of the mean"], rows
    ).replace("not measured", "not told")


def count() -> str:
    rows = [
        [row["images"], row["images_per_s"], row["memory_before_mb"], row["peak_memory_mb"]]
        for row in results("count")["counts"]
    ]
    return table(["images", "images/s", "MB before", "MB at most"], rows)


def writing() -> str:
    rows = [
        [row["images"], row["ms_per_image"], row["images_per_s"], row["bytes_per_image"]]
        for row in results("writing")["counts"] or []
    ]
    return table(["images", "ms an image", "images/s", "bytes an image"], rows)


def writing_parts() -> str:
    parts = results("writing")["parts"]
    if parts is None:
        return results("writing")["fiftyone_missing"]
    rows = [[name, 1000 * parts[name]["median_s"]] for name in ("labels", "serialise", "write")]
    return table(["part, alone, on one thread", "ms an image"], rows)


def exporting() -> str:
    rows = [
        [
            row["images"],
            row["file_mb"],
            *(
                row[way][figure]
                for way in ("export", "import")
                for figure in ("images_per_s", "peak_memory_mb")
            ),
        ]
        for row in results("exporting")["counts"] or []
    ]
    header = ["images", "file, MB", "export, images/s", "MB at most", "import, images/s"]
    return table([*header, "MB at most"], rows)


def evaluation() -> str:
    found = results("evaluation")["evaluation"]
    if found is None:
        return str(results("evaluation")["fiftyone_missing"])
    parts = [found["parts"][name] for name in ("read", "score", "write")]
    counts = [f"{found[name]:,}" for name in ("images", "objects", "predictions")]
    header = ["images", "objects", "predictions", "seconds", "read", "score", "write"]
    return table(
        [*header, "pycocotools alone"],
        [[*counts, found["seconds"], *parts, found["pycocotools_s"]]],
    )


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


def review() -> str:
    counts = results("review")["counts"]
    if counts is None:
        return results("review")["fiftyone_missing"]
    rows = [
        [what, *(f"{row['seconds'][name]['cpu_s']:.2f}" for row in counts)]
        for name, what in REVIEWED.items()
    ]
    return table(["seconds of work for", *(f"{row['labels']:,} labels" for row in counts)], rows)


def panels() -> str:
    counts = results("panels")["counts"]
    if counts is None:
        return results("panels")["fiftyone_missing"]
    slowest_first = sorted(counts[-1]["seconds"].items(), key=lambda item: -item[1]["median_s"])
    rows = [
        [name, *(f"{row['seconds'][name]['median_s']:.2f}" for row in counts)]
        for name, _ in slowest_first
    ]
    return table(["seconds to open", *(f"{row['labels']:,} labels" for row in counts)], rows)


TABLES: dict[str, Callable[[], str]] = {
    f.__name__: f
    for f in (
        machine, segmentation, steps, normalized_cut, crf_counts, crf_agreement, crf_sizes,
        crf_torch, prompts, encoder, throughput, table2, count, writing, writing_parts, exporting,
        evaluation, review, panels,
    )
}  # fmt: skip
