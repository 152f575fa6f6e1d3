"""The panel of groups: what a user does from groups to names."""

import numpy as np
import pytest
from PIL import Image

from promerge_fo import dataset as pfo
from tests.app.page import wait_until

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
    panel.get_by_text("50 nearest unnamed", exact=True).click()
    named = panel.get_by_text("but what is selected")
    named.wait_for(timeout=30_000)
    assert pfo.list_names(grouped, FIELD) == {"cat": 1}
    named.click()
    wait_until(lambda: pfo.list_names(grouped, FIELD).get("cat", 0) > 2, 30)
