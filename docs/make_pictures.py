"""Make the pictures of the guides, and the tables that come with them, in a checkout.

    python docs/make_pictures.py explain       # the demo's masks, and how they come about
    python docs/make_pictures.py comparison    # two methods, for docs/evaluation.md
    python docs/make_pictures.py ablations     # the paper's ablations and tuning, for ablations.md
    python docs/make_pictures.py app           # from images to masks in the App, for docs/app.md
    python docs/make_pictures.py review        # reviewing in the App, for docs/review.md
    python docs/make_pictures.py classes       # from masks to classes in the App, for classes.md
    python docs/make_pictures.py animation     # the review in the App, moving, for README.md
    python docs/make_pictures.py quickstart    # what the cells of docs/quickstart.ipynb give

The photographs are scikit-image's, the ground truth is the demo's, the encoder is the one without
weights, and the database is one that goes with the process; `classes` generates its images. `app`,
`review`, `classes` and `animation` need '.[dev,app-tests]' and chromium.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from make_speed import replace_blocks
from PIL import Image

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(ROOT))  # for benchmarks and tests, which are not installed


def main() -> None:
    every = (explain, comparison, ablations, app, review, classes, animation, quickstart)
    makers = {f.__name__: f for f in every}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", choices=makers)
    parser.add_argument("--encoder", default="texture", help="in place of the one without weights")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        makers[arguments.pictures](Path(folder), arguments.encoder)


def explain(folder: Path, encoder: str) -> None:
    from promerge_fo.config import MaskCutConfig, ProMergeConfig
    from promerge_fo.encoder import load_encoder
    from promerge_fo.figures import explain_image, save
    from promerge_fo.pipeline import Pipeline

    demo(folder, encoder)
    coffee = folder / "photographs" / "coffee.png"
    picture = folder / "explained.png"
    for name, config in (("coffee", ProMergeConfig()), ("maskcut", MaskCutConfig())):
        save(explain_image(coffee, Pipeline(load_encoder(encoder), config)), picture)
        publish(picture, f"explain-{name}.png", 1200)
    publish(folder / "promerge-demo.png", "demo.png", 1200)


def comparison(folder: Path, encoder: str) -> None:
    dataset = demo(folder, encoder)
    from promerge_fo.dataset import compare_fields, load_model, segment_dataset

    segment_dataset(dataset, load_model("maskcut", encoder=encoder), "maskcut")
    compared = compare_fields(dataset, ("maskcut", "promerge"))
    report = compared.report(folder / "report", pictures=3).parent
    publish(report / "metrics.png", "compare-metrics.png")
    publish(report / "curves.png", "compare-curves.png")
    publish(report / "gains_promerge.png", "compare-gains.png")
    publish(report / "gains_promerge_pictures.png", "compare-pictures.png")
    write("evaluation.md", {"comparison": str(compared)})


def ablations(folder: Path, encoder: str) -> None:
    dataset = demo(folder, encoder)
    from promerge_fo.dataset import tune
    from promerge_fo.dataset.experiments.reproduction import reproduce
    from promerge_fo.encoder import load_encoder

    loaded = load_encoder(encoder)
    parts = []
    for name in ("table3", "table4a", "table4b", "table5", "table6", "fig5", "fig6"):
        outcome = reproduce(name, dataset, encoder=loaded, folder=folder)
        title = outcome.experiment["title"]
        parts += [f"### {title}", outcome.table()]
        parts += [f"Left out: {each}: {why}." for each, why in outcome.left_out.items()]
        if name in ("fig5", "fig6"):
            kind = "times" if name == "fig5" else "sweeps"
            outcome.plots(folder, name)
            publish(folder / f"{name}_{kind}.png", f"ablation-{name}.png")
            parts.append(f"![{title}](images/ablation-{name}.png)")
    tuning = tune(dataset, encoder=loaded, folder=folder, folds=3)
    quoted = "\n".join(f"> {line}".rstrip() for line in str(tuning).splitlines())
    write("ablations.md", {"tables": "\n\n".join(parts), "tuning": quoted})


def app(folder: Path, encoder: str) -> None:
    """What the browser tests of the whole way and of tuning see."""
    tests = ("tests/app/test_walk.py", "tests/app/test_tune.py")
    environment = {**os.environ, "PROMERGE_PICTURES": str(folder)}
    command = [sys.executable, "-m", "pytest", "-q", *tests]
    failed = subprocess.run(command, cwd=ROOT, env=environment).returncode
    for picture in sorted(folder.glob("*.png")):
        publish(picture, picture.name)
    sys.exit(failed)


def review(folder: Path, encoder: str) -> None:
    dataset = reviewed(folder, encoder)
    from promerge_fo.dataset import enable_annotation
    from promerge_fo.install.plugin import install_plugin

    install_plugin()
    with opened(dataset) as app:
        app.operator("ProMerge: review instances")
        app.fill("Reviewer", "Ada")
        app.execute()
        app["panel-content-promerge_review"].get_by_text("accepted").first.wait_for(timeout=60_000)
        time.sleep(3)
        zoom = app.page.locator('[title="Zoom"] [data-cy="slider"]')
        zoom.click(position={"x": 34, "y": 17})  # larger patches
        time.sleep(2)
        patches = app.page.locator('[data-cy="looker"]')
        for number in (0, 2, 3):
            patches.nth(number).click(position={"x": 12, "y": 12})
        patches.nth(1).click(position={"x": 12, "y": 12}, modifiers=["Alt"])
        app.page.mouse.move(600, 840)
        photograph(app, folder / "review-queue.png")

        enable_annotation(dataset, "promerge")
        app.open()
        app["btn-clear-view-bar"].click()
        time.sleep(3)
        image = app["looker"]
        image.click(position={"x": 60, "y": image.bounding_box()["height"] - 15})
        app["panel-tab-promerge_sample"].click()
        app["panel-content-promerge_sample"].get_by_text("masks decided").wait_for(timeout=60_000)
        app.page.locator('[title="Split horizontally"]').first.click()
        time.sleep(2)
        beside = app["panel-content-fo-sample-modal-plugin"].bounding_box()
        app.page.mouse.click(
            beside["x"] + beside["width"] / 2, beside["y"] + beside["height"] * 0.4
        )
        photograph(app, folder / "review-sample.png", columns=1075)

        app["panel-tab-fo-sample-modal-plugin"].click()
        app["annotate"].click()
        app["select-action"].wait_for(timeout=60_000)
        app.page.get_by_text("fg", exact=True).first.click()
        app["brush"].click()
        photograph(app, folder / "review-annotate.png")


def classes(folder: Path, encoder: str) -> None:
    """Masks of five kinds of object: on the map, in groups, and named."""
    from benchmarks.database import start

    fo = start()
    from promerge_fo import dataset as pfo
    from promerge_fo.config import ProMergeConfig
    from promerge_fo.install.plugin import install_plugin
    from tests.app.test_groups import clumps, draw_lasso
    from tests.scenes import kind_of, scenes_of_kinds

    install_plugin()
    names = ("stone", "coral", "lime", "leaf", "ink")
    field, truth = "promerge", {}
    dataset = fo.Dataset("objects")
    for number, (pixels, masks, kinds) in enumerate(scenes_of_kinds(1, len(names), 48)):
        path = folder / f"{number:02d}.png"
        Image.fromarray(pixels).save(path)
        dataset.add_sample(fo.Sample(filepath=str(path)))
        truth[path.name] = (masks, kinds)
    model = pfo.load_model(encoder=encoder, config=ProMergeConfig(image_size=240), embed=True)
    pfo.segment_dataset(dataset, model, field)
    dataset.app_config.color_scheme = fo.ColorScheme(color_by="value")
    dataset.save()
    with opened(dataset) as app:
        app.page.set_viewport_size({"width": 1600, "height": 860})
        app.operator("ProMerge: embed and map instances")
        app.choose("Map", "tsne")
        app.execute("Embed")
        app.finish("A map of", close=True)
        app.operator("ProMerge: group instances")
        app.execute("Group")
        app.finish("groups", close=True)
        app.page.get_by_text("promerge_map").first.click()
        app.page.get_by_text("Select", exact=True).last.click()
        time.sleep(3)
        left, top, right, bottom = max(clumps(app), key=lambda box: box[3])
        draw_lasso(app, left, 0.4 * top + 0.6 * bottom, right, bottom)
        photograph(app, folder / "classes-map.png", columns=1600)

        app["panel-tab-embeddings"].get_by_title("Close").click()
        groups = pfo.list_groups(dataset, field)
        panel = app["panel-content-promerge_groups"]
        panel.get_by_text("Open group 1", exact=True).click()
        app.page.get_by_text(f"{groups[0].size} patches").first.wait_for(timeout=60_000)
        time.sleep(5)
        app.drawn()
        photograph(app, folder / "classes-groups.png", columns=1600)

        for group in groups:
            sample, label = dataset[group.sample_ids[0]], group.typical[0]
            mask = next(each for each in sample[field].detections if each.id == label)
            pixels = mask.to_segmentation(frame_size=(240, 240)).mask > 0
            kind = kind_of(pixels, *truth[sample.filename])
            pfo.name_groups(dataset, field, names[kind], [group.name])
        app["panel-tab-promerge_groups"].get_by_title("Close").click()
        app["btn-clear-view-bar"].click()
        app.open()
        app.panel("Embeddings")
        app.page.get_by_text("promerge_map").first.click()
        app.page.get_by_text("Color by").first.click()
        app.page.get_by_text("promerge.detections.label", exact=True).last.click()
        app.settle()
        photograph(app, folder / "classes-result.png", columns=1600)


def animation(folder: Path, encoder: str) -> None:
    """A page of the queue: seen, marked, decided, undone."""
    dataset = reviewed(folder, encoder)
    from promerge_fo.install.plugin import install_plugin

    install_plugin()
    frames: list[tuple[Image.Image, int]] = []  # and for how many milliseconds each is seen
    with opened(dataset) as app:

        def keep(milliseconds: int) -> None:
            png = app.page.screenshot(clip={"x": 0, "y": 0, "width": 1400, "height": 860})
            frames.append((Image.open(io.BytesIO(png)).convert("RGB"), milliseconds))

        keep(1500)
        app.operator("ProMerge: review instances")
        app.fill("Reviewer", "Ada")
        keep(1500)
        app.execute()
        said = app["panel-content-promerge_review"]
        said.get_by_text("accepted").first.wait_for(timeout=60_000)
        time.sleep(3)
        zoom = app.page.locator('[title="Zoom"] [data-cy="slider"]')
        zoom.click(position={"x": 38, "y": 17})
        time.sleep(2)
        keep(1500)
        patches = app.page.locator('[data-cy="looker"]')
        for number, modifiers in ((0, []), (1, ["Alt"]), (2, ["Alt"]), (3, [])):
            patches.nth(number).click(position={"x": 12, "y": 12}, modifiers=modifiers)
            app.page.mouse.move(600, 840)
            time.sleep(0.5)
            keep(700)
        for button, milliseconds in (("Decide by thumbs", 2000), ("Undo", 1500)):
            said.get_by_text(button, exact=True).click()
            time.sleep(4)
            keep(milliseconds)
    first, *others = (frame.resize((910, 559), Image.Resampling.LANCZOS) for frame, _ in frames)
    palette = first.quantize(128)
    first, *others = (
        each.quantize(palette=palette, dither=Image.Dither.NONE) for each in (first, *others)
    )
    path = DOCS / "images" / "review.gif"
    seen = [milliseconds for _, milliseconds in frames]
    first.save(path, save_all=True, append_images=others, duration=seen, loop=0, optimize=True)


def quickstart(folder: Path, encoder: str) -> None:
    """Run the notebook, and keep in it what its cells give."""
    import nbformat
    from nbclient import NotebookClient

    from benchmarks.database import isolate, start_server

    os.environ["FIFTYONE_DATABASE_URI"] = start_server(isolate("quickstart"))
    page = DOCS / "quickstart.ipynb"
    notebook = nbformat.read(page, as_version=4)
    NotebookClient(notebook, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
        if cell.cell_type == "code":  # what this machine's packages warn of is nobody else's
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    nbformat.write(notebook, page)


def reviewed(folder: Path, encoder: str) -> Any:
    """Photographs and their left and right parts, with masks, a few of which are decided on."""
    from benchmarks.database import start

    fo = start()
    from benchmarks.subjects import photographs
    from promerge_fo import dataset as pfo
    from promerge_fo.config import ProMergeConfig

    dataset = fo.Dataset("photographs")
    for name, pixels in photographs().items():
        width = pixels.shape[1]
        for part, columns in (
            ("", slice(width)),
            ("-left", slice(round(0.6 * width))),
            ("-right", slice(round(0.4 * width), width)),
        ):
            path = folder / f"{name}{part}.jpg"
            Image.fromarray(pixels[:, columns]).save(path, quality=92)
            dataset.add_sample(fo.Sample(filepath=str(path)))
    config = ProMergeConfig(image_size=240, min_refined_iou=0.2)
    pfo.segment_dataset(dataset, pfo.load_model(encoder=encoder, config=config), "promerge")
    ids = pfo.review_queue(dataset, "promerge", limit=9).values("id")
    pfo.decide(dataset, "promerge", ids[1:4], [ids[0], *ids[4:]], reviewer="Ada")
    return dataset


@contextmanager
def opened(dataset: Any) -> Iterator[Any]:
    """The App on a dataset, as the browser tests drive it."""
    import fiftyone as fo
    from playwright.sync_api import sync_playwright

    from tests.app.page import FLAGS, App

    session = fo.launch_app(dataset, remote=True, address="127.0.0.1", port=5302)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        app = App(browser.new_page(viewport={"width": 1400, "height": 860}), session.url)
        app.open()
        yield app
        browser.close()
    session.close()


def demo(folder: Path, encoder: str) -> Any:
    """The demo's dataset, with masks in the field ``promerge``."""
    from benchmarks.database import start

    fo = start()
    from promerge_fo import demo

    demo.run(folder, encoder)
    return fo.load_dataset(demo.DATASET)


def photograph(app: Any, path: Path, columns: int = 1400) -> None:
    """Publish what the page shows, but for what is right of the first columns of pixels."""
    time.sleep(2)
    app.page.screenshot(path=path, clip={"x": 0, "y": 0, "width": columns, "height": 860})
    publish(path, path.name, round(0.8 * columns))


def publish(picture: Path, name: str, width: int = 1000) -> None:
    """Put a picture beside the pages, in 256 colours: it has few, and small files."""
    image = Image.open(picture).convert("RGB")
    size = (width, round(image.height * width / image.width))
    shrunk = image.resize(size, Image.Resampling.LANCZOS).quantize(256)
    shrunk.save(DOCS / "images" / name, optimize=True)


def write(name: str, made: Mapping[str, str]) -> None:
    """Put texts between the marks of a page."""
    page = DOCS / name
    page.write_text(replace_blocks(page.read_text(), lambda mark, *_: made[mark]))


if __name__ == "__main__":
    main()
