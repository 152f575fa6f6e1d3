"""Run the paper's ablations and tuning on the demo's photographs, for docs/ablations.md.

    python docs/make_ablations.py

The photographs are scikit-image's, the ground truth is the demo's, the encoder the weight-free one.
Writes the plots to docs/images, and the tables between the marks on the page.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from pathlib import Path

DOCS = Path(__file__).parent
PLOTS = {"fig5": "times", "fig6": "sweeps"}
MARKED = re.compile(r"(<!-- (\w+) by docs/make_ablations\.py -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    os.environ["FIFTYONE_DATABASE_NAME"] = "promerge_docs"  # read when FiftyOne is imported
    import fiftyone as fo

    from promerge_fo import demo
    from promerge_fo.dataset import tune
    from promerge_fo.encoder import load_encoder

    with tempfile.TemporaryDirectory() as folder:
        demo.run(Path(folder), "texture")
        dataset = fo.load_dataset(demo.DATASET)
        encoder = load_encoder("texture")
        made = {"tables": reproduce_all(dataset, encoder, Path(folder))}
        tuning = tune(dataset, encoder=encoder, folder=folder, folds=3)
        made["tuning"] = "\n".join(f"> {line}".rstrip() for line in str(tuning).splitlines())
    page = DOCS / "ablations.md"
    page.write_text(
        MARKED.sub(lambda m: f"{m[1]}\n{made[m[2]]}\n\n{m[3]}", page.read_text()), encoding="utf-8"
    )
    fo.core.odm.drop_database()


def reproduce_all(dataset, encoder, folder: Path) -> str:  # type: ignore[no-untyped-def]
    """All stored ablations, as sections of the page."""
    from make_figures import shrink

    from promerge_fo.dataset.experiments.reproduction import (
        list_experiments,
        load_experiment,
        reproduce,
    )

    names = [n for n in list_experiments() if load_experiment(n)["kind"] == "ablation"]
    parts, started = [], time.perf_counter()
    for name in sorted(names, key=lambda name: (name.startswith("fig"), name)):
        outcome = reproduce(name, dataset, encoder=encoder, folder=folder)
        parts.append(f"### {outcome.experiment['title']}\n\n{outcome.table()}")
        parts += [f"Left out: {each}: {why}." for each, why in outcome.left_out.items()]
        if name in PLOTS:
            plots = {path.stem.split("_")[-1]: path for path in outcome.plots(folder, name)}
            target = DOCS / "images" / f"ablation-{name}.png"
            plots[PLOTS[name]].replace(target)
            shrink(target, 1000)
            parts.append(f"![{outcome.experiment['title']}](images/{target.name})")
    print(f"{len(names)} experiments in {time.perf_counter() - started:.0f} s")
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
