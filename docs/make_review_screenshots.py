"""Make the pictures of docs/review.md: python -m docs.make_review_screenshots, in a checkout.

It needs '.[app-tests]' and chromium. The photographs are scikit-image's, the encoder is the one
without weights, the database one of its own.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.database import start

start()

import fiftyone as fo  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402
from skimage import data  # noqa: E402

from promerge_fo import dataset as pfo  # noqa: E402
from promerge_fo.config import ProMergeConfig  # noqa: E402
from promerge_fo.install.plugin import install_plugin  # noqa: E402
from tests.app.conftest import FLAGS, App  # noqa: E402

IMAGES = Path(__file__).parent / "images"
CHROMIUM = "/usr/bin/chromium"
FIELD = "promerge"


def main() -> None:
    install_plugin()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        dataset = segmented(Path(folder))
        session = fo.launch_app(dataset, remote=True, address="127.0.0.1", port=5302)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        app = App(browser.new_page(viewport={"width": 1400, "height": 860}), session)
        app.open()
        photograph_queue(app)
        photograph_sample(app, dataset)
        browser.close()
        session.close()
        fo.core.odm.drop_database()


def segmented(folder: Path) -> Any:
    """The photographs with masks, a few of which are decided on."""
    dataset = fo.Dataset("photographs")
    for name in ("coffee", "astronaut", "chelsea", "rocket"):
        image = Image.fromarray(np.asarray(getattr(data, name)()))
        for part, box in (
            ("", (0, 0, 1, 1)),
            ("-left", (0, 0, 0.6, 1)),
            ("-right", (0.4, 0, 1, 1)),
        ):
            left, top, right, bottom = np.array(box) * (image.size * 2)
            crop = image.crop((int(left), int(top), int(right), int(bottom)))
            crop.save(folder / f"{name}{part}.jpg", quality=92)
            dataset.add_sample(fo.Sample(filepath=str(folder / f"{name}{part}.jpg")))
    config = ProMergeConfig(image_size=240, min_refined_iou=0.2)
    model = pfo.load_model(encoder="texture", config=config)
    dataset.apply_model(model, label_field=FIELD, batch_size=4, num_workers=0)
    page = pfo.review_queue(dataset, FIELD, limit=9)
    ids = page.values("id")
    pfo.decide(dataset, FIELD, ids[1:4], [ids[0], *ids[4:]], reviewer="Ada")
    return dataset


def photograph_queue(app: App) -> None:
    """The queue with marks, and the panel beside it."""
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
    save(app, "review-queue.png")


def photograph_sample(app: App, dataset: Any) -> None:
    """One image with its masks listed beside it, and under the brush."""
    pfo.enable_annotation(dataset, FIELD)
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
    app.page.mouse.click(beside["x"] + beside["width"] / 2, beside["y"] + beside["height"] * 0.4)
    save(app, "review-sample.png", width=1075)
    app["panel-tab-fo-sample-modal-plugin"].click()
    app["annotate"].click()
    app["select-action"].wait_for(timeout=60_000)
    app.page.get_by_text("fg", exact=True).first.click()
    app["brush"].click()
    save(app, "review-annotate.png")


def save(app: App, name: str, width: int = 1400) -> None:
    """The page's first columns in 256 colours: it has few, and the file is small."""
    time.sleep(2)
    path = IMAGES / name
    app.page.screenshot(path=path)
    image = Image.open(path).convert("RGB")
    image = image.crop((0, 0, width, image.height))
    size = round(image.width * 0.8), round(image.height * 0.8)
    image.resize(size, Image.Resampling.LANCZOS).quantize(256).save(path, optimize=True)


if __name__ == "__main__":
    main()
