"""From a click to masks that are seen."""

import re

import timm
import torch

from tests.app.page import wait_until


def test_an_image_is_explained(app, segmented):
    page = app(segmented)
    page["looker"].click(position={"x": 12, "y": 12})
    page.operator("ProMerge: explain this image")
    page.execute("Explain")
    figure = page.page.locator('img[src^="data:image/png"]')
    figure.wait_for(timeout=60_000)
    wait_until(lambda: figure.bounding_box()["width"] > 1000, 30)


def test_a_run_goes_on_while_the_page_is_loaded_again_and_is_stopped_and_continued(
    app, plugin, dataset, photographs, fo
):
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs * 40])
    page = app(dataset)
    segment(page)
    page.runs.get_by_text(" of 160 images").wait_for(timeout=120_000)
    before = done(page)
    page.open()
    page.runs.get_by_text(" of 160 images").wait_for(timeout=60_000)
    wait_until(lambda: done(page) > before + 8, 60)
    page.runs.get_by_text("Stop", exact=True).click()
    assert "images/s" in page.finish("Stopped; what was done is kept.")
    dataset.reload()
    kept = {s: ids for s, ids in zip(*ids_of(dataset), strict=True) if ids is not None}
    assert before < len(kept) < 152
    dataset.delete_samples([sample for sample in dataset.values("id") if sample not in kept][8:])

    segment(page)
    said = page.finish("images/s")
    assert "8 images in" in said
    assert f"{len(kept)} images were done before" in said
    dataset.reload()
    now = dict(zip(*ids_of(dataset), strict=True))
    assert len(now) == len(kept) + 8
    assert None not in now.values()
    assert kept.items() <= now.items(), "masks that were there were made again"


def segment(page):
    page.operator("ProMerge: segment instances")
    page.fill("Encoder", "texture")
    page.choose("Preset", "fast")
    page.execute("Segment")
    page.runs.wait_for(timeout=60_000)


def done(page):
    """How many images the panel says are done."""
    return int(re.search(r"([\d,]+) of", page.runs.inner_text() + "0 of")[1].replace(",", ""))


def ids_of(dataset):
    """The ids of the samples, and of their masks; None for a sample that has not been segmented."""
    return dataset.values(["id", "promerge.detections.id"])


def test_several_runs_wait_for_each_other(app, plugin, dataset, photographs, fo):
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs * 30])
    page = app(dataset)
    segment(page)
    page.runs.get_by_text(" of 120 images").wait_for(timeout=120_000)
    page.operator("ProMerge: segment instances")
    page.fill("Label field", "second")
    page.execute("Segment")
    waits = page.runs.get_by_text("(second): waits for the one before it")
    waits.wait_for(timeout=60_000)
    page.operator("ProMerge: stop")
    page.runs.get_by_text("(second): stopped").wait_for(timeout=60_000)
    page.runs.get_by_text("(promerge): stopped").wait_for(timeout=60_000)


def test_an_error_is_said_where_the_progress_was(app, plugin, dataset, photographs, fo, tmp_path):
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"no weights")
    page = app(dataset)
    page.operator("ProMerge: segment instances")
    page.fill("Encoder", "vit_tiny_patch16_224")
    page.fill("Checkpoint", str(tmp_path / "nowhere.pth"))
    page.form.get_by_text("is no file on the server's machine").wait_for(timeout=60_000)
    page.fill("Checkpoint", str(broken))
    page.execute("Segment")
    assert "broken.pth" in page.finish("This failed")


def test_an_encoder_is_remembered_with_its_checkpoint(
    app, plugin, dataset, photographs, fo, tmp_path
):
    torch.manual_seed(0)
    path = tmp_path / "tiny.pth"
    torch.save(timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict(), path)
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    page = app(dataset)
    page.operator("ProMerge: segment instances")
    page.fill("Encoder", "vit_tiny_patch16_224")
    page.fill("Checkpoint", str(path))
    page.execute("Segment")
    assert "4 images" in page.finish("images/s")
    page.operator("ProMerge: segment instances")
    page.execute("Segment")
    assert "4 images were done before" in page.finish("images/s")
