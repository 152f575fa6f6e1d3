"""From masks to classes: embeddings, their map, groups, names and an export with categories."""

import io
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from scipy import ndimage

from promerge_fo import dataset as pfo
from tests.app.page import wait_until
from tests.scenes import kind_of, scenes_of_kinds

FIELD = "promerge"


@pytest.fixture
def grouped(fo, dataset, plugin, tmp_path):
    """Sixty masks of three kinds, with embeddings and images, in three groups."""
    from tests.dataset.classes.made import embed, fill, vectors

    fill(dataset, fo)
    paths = [str(tmp_path / f"{number}.png") for number in range(len(dataset))]
    for path in paths:
        Image.fromarray(np.full((12, 12, 3), 200, dtype=np.uint8)).save(path)
    dataset.set_values("filepath", paths)
    embed(dataset, vectors())
    pfo.group_instances(dataset, FIELD, 3)
    return dataset


def test_groups_are_opened_named_spread_and_taken_back(app, grouped):
    page = app(grouped)
    page.panel("ProMerge: groups")
    panel = page["panel-content-promerge_groups"]
    body = page.page.locator("body")
    panel.get_by_text("Group 2: 20 masks").wait_for(timeout=30_000)
    pictures = panel.locator("img[src^='data:image/jpeg']")
    wait_until(lambda: pictures.count() == 3, 30)

    panel.get_by_text("Open group 2", exact=True).click()
    wait_until(lambda: "20 patches" in body.inner_text(), 30)
    page["panel-tab-promerge_groups"].click()
    panel.get_by_role("textbox").last.fill("cat")
    page.settle()
    panel.get_by_text("Name group 2", exact=True).click()
    wait_until(lambda: pfo.list_names(grouped, FIELD) == {"cat": 20}, 30)
    panel.get_by_text("Group 2: 20 masks (20 cat)").wait_for(timeout=30_000)

    panel.get_by_text("Undo naming", exact=True).click()
    wait_until(lambda: pfo.list_names(grouped, FIELD) == {}, 30)
    page.settle()
    pfo.name_instances(grouped, FIELD, "cat", pfo.list_groups(grouped, FIELD)[1].typical[:1])
    show_nearest(page)
    named = panel.get_by_text("but what is selected")
    named.wait_for(timeout=30_000)
    assert pfo.list_names(grouped, FIELD) == {"cat": 1}
    named.click()
    wait_until(lambda: pfo.list_names(grouped, FIELD).get("cat", 0) > 2, 30)


@pytest.fixture
def scenes(fo, dataset, plugin, tmp_path):
    """A dataset of images of four kinds of object, and the kinds of their pixels by file."""
    truth = {}
    for number, (image, masks, kinds) in enumerate(scenes_of_kinds(5, images=24)):
        path = tmp_path / f"{number:02d}.png"
        Image.fromarray(image).save(path)
        dataset.add_sample(fo.Sample(filepath=str(path)))
        truth[path.name] = (masks, kinds)
    return dataset, truth


def clumps(page):
    """The boxes (left, top, right, bottom) in the page of four clumps on the map, if they show."""
    box = page["panel-content-Embeddings"].locator("canvas").last.bounding_box()
    png = page.page.screenshot(clip=box)
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    points = np.ptp(pixels, axis=2) > 60  # they are orange or blue, on black
    if page.page.get_by_placeholder("Select brain key").count():
        points[:60] = False  # FiftyOne 1.18 has its buttons over the map
    away = ndimage.distance_transform_edt(~points)
    parts = (ndimage.label(away < radius) for radius in range(30, 60, 5))
    labels = next((labels for labels, count in parts if count == 4), np.zeros_like(pixels[..., 0]))
    found = ndimage.find_objects(labels * points)
    x, y = box["x"], box["y"]
    return [
        (x + across.start - 12, y + down.start - 12, x + across.stop + 12, y + down.stop + 12)
        for down, across in found
    ]


def show_nearest(page):
    page["panel-content-promerge_groups"].get_by_text("50 nearest unnamed", exact=True).click()
    page.settle()
    page["panel-tab-promerge_groups"].click()  # FiftyOne 1.18 has it behind the grid


def draw_lasso(page, left, top, right, bottom):
    mouse = page.page.mouse
    mouse.move(left, top)
    mouse.down()
    for corner in ((right, top), (right, bottom), (left, bottom), (left, top + 2)):
        mouse.move(*corner, steps=8)
    mouse.up()


def test_from_images_to_an_export_with_categories(app, scenes, tmp_path):
    dataset, truth = scenes
    page = app(dataset)
    page.page.set_viewport_size({"width": 1600, "height": 900})
    page.operator("ProMerge: segment instances")
    page.fill("Encoder", "texture")
    page.form.get_by_text("Embed the masks").click()
    page.settle()
    page.execute("Segment")
    page.finish("images/s", close=True)
    dataset.reload()
    total = dataset.count(f"{FIELD}.detections")
    assert total > 40

    page.operator("ProMerge: embed and map instances")
    page.choose("Map", "tsne")
    page.execute("Embed")
    assert "0 masks of 0 images embedded" in page.finish("A map of", close=True)
    page.operator("ProMerge: group instances")
    page.execute("Group")
    page.finish("groups", close=True)
    panel = page["panel-content-promerge_groups"]
    panel.get_by_text("Group 1:").wait_for(timeout=30_000)

    # the map: a part of each clump is named, each by a lasso
    keys = page.page.get_by_placeholder("Select brain key")
    if keys.count():  # FiftyOne 1.18
        keys.click()
        page.page.get_by_text("promerge_map").first.click()
        page.page.get_by_title("Select (s)").click()
    else:
        page.page.get_by_text("promerge_map").first.click()
        page["panel-content-Embeddings"].get_by_text(f"{total} points").wait_for(timeout=30_000)
        page.page.get_by_text("Select", exact=True).last.click()
    wait_until(lambda: len(clumps(page)) == 4, 30)
    found = clumps(page)
    lassoed = page["panel-tab-embeddings"]
    for number, (left, top, right, bottom) in enumerate(found):
        draw_lasso(page, left, top, (left + right) / 2, bottom)
        wait_until(lambda: lassoed.inner_text().split()[-1].isdigit(), 30)
        page.settle()
        count = int(lassoed.inner_text().split()[-1])
        assert 0 < count < total / 3
        page.click_until(panel.get_by_text("Name selected", exact=True), page.form)
        page.settle()
        page.fill("Name", f"clump {number}")
        page.execute("Name")
        page.form.wait_for(state="detached", timeout=30_000)
        wait_until(lambda n=number: f"clump {n}" in pfo.list_names(dataset, FIELD), 30)
        assert pfo.list_names(dataset, FIELD)[f"clump {number}"] == count
        page.settle()
    named = kinds_of_names(dataset, truth)
    assert all(len(kinds) == 1 for kinds in named.values())
    meaning = {name: next(iter(kinds)) for name, kinds in named.items()}
    assert len(set(meaning.values())) == 4

    # the nearest masks without a name are shown, then named, until none is near
    before = []
    for _ in range(8):
        before.append(sum(pfo.list_names(dataset, FIELD).values()))
        if before[-1] == total or before[-1] == sum(before[-2:-1]):
            break
        show_nearest(page)
        button = panel.get_by_text("but what is selected")
        if not button.count():
            break  # nothing is near enough
        assert sum(pfo.list_names(dataset, FIELD).values()) == before[-1]
        button.click()
        wait_until(lambda b=before[-1]: sum(pfo.list_names(dataset, FIELD).values()) > b, 30)
        page.settle()
    assert len(before) > 1
    last = sum(pfo.list_names(dataset, FIELD).values())
    panel.get_by_text("Undo naming", exact=True).click()
    wait_until(lambda: sum(pfo.list_names(dataset, FIELD).values()) < last, 30)
    page.settle()
    show_nearest(page)
    panel.get_by_text("but what is selected").click()
    wait_until(lambda: sum(pfo.list_names(dataset, FIELD).values()) == last, 30)
    page.settle()

    page.operator("ProMerge: export pseudo-labels")
    page.fill("Where to", str(tmp_path / "out.json"))
    page.fill("Smallest mask", "0")
    page.fill("Names that become classes", "labels")
    page.execute("Export")
    page.finish("out.json")
    right, exported = 0, json.loads((tmp_path / "out.json").read_text())
    files = {each["id"]: each["file_name"].rpartition("/")[2] for each in exported["images"]}
    names = {each["id"]: each["name"] for each in exported["categories"]}
    assert sorted(names.values()) == sorted(meaning)
    for each in exported["annotations"]:
        mask = coco_mask.decode(each["segmentation"]).astype(bool)
        kind = kind_of(mask, *truth[files[each["image_id"]]])
        right += kind == meaning[names[each["category_id"]]]
    assert right >= 0.95 * total


def kinds_of_names(dataset, truth):
    """How many masks of each kind have which name."""
    dataset.reload()
    dataset.compute_metadata()
    found = {}
    for sample in dataset:
        for label in sample[FIELD].detections:
            if label.label != "fg":
                size = (sample.metadata.width, sample.metadata.height)
                mask = label.to_segmentation(frame_size=size).mask > 0
                kind = kind_of(mask, *truth[sample.filename])
                found.setdefault(label.label, Counter())[kind] += 1
    return found
