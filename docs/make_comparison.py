"""Compare two methods on the demo's photographs, for docs/evaluation.md.

    python docs/make_comparison.py

The photographs are scikit-image's, the ground truth is the demo's, the encoder the weight-free one.
Writes the plots to docs/images, and the table between the marks on the page.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
FIELDS = ("maskcut", "promerge")
PLOTS = {
    "metrics.png": "compare-metrics.png",
    "curves.png": "compare-curves.png",
    "gains_promerge.png": "compare-gains.png",
    "gains_promerge_pictures.png": "compare-pictures.png",
}
TABLE = re.compile(r"(<!-- made by docs/make_comparison\.py -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    os.environ["FIFTYONE_DATABASE_NAME"] = "promerge_docs"  # read when FiftyOne is imported
    import fiftyone as fo

    from promerge_fo import demo
    from promerge_fo.dataset.evaluation.comparison import compare_fields
    from promerge_fo.dataset.runs.model import load_model
    from promerge_fo.dataset.runs.segment import segment_dataset

    with tempfile.TemporaryDirectory() as folder:
        demo.run(Path(folder), "texture")
        dataset = fo.load_dataset(demo.DATASET)
        segment_dataset(dataset, load_model("maskcut", encoder="texture"), FIELDS[0])
        comparison = compare_fields(dataset, FIELDS)
        report = comparison.report(Path(folder) / "report", pictures=3)
        for source, target in PLOTS.items():
            shutil.copyfile(report.parent / source, DOCS / "images" / target)
            shrink(DOCS / "images" / target)
    page = DOCS / "evaluation.md"
    page.write_text(TABLE.sub(lambda m: f"{m[1]}\n{comparison}\n\n{m[2]}", page.read_text()))
    fo.core.odm.drop_database()


def shrink(path: Path) -> None:
    from make_figures import shrink

    shrink(path, 1000)


if __name__ == "__main__":
    main()
