"""From a click to masks that are seen."""

import numpy as np


def test_masks_are_made_by_the_operator_and_seen(app, plugin, dataset, photographs, fo):
    assert (plugin / "fiftyone.yml").exists()
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    page = app(dataset)
    before = page.grid()

    page.operator("ProMerge: segment instances")
    page.fill("Encoder", "texture")
    page.execute("Segment")
    page.finish("images/s")
    dataset.reload()
    statuses = dataset.values("promerge.status")
    assert len(statuses) == 4
    assert set(statuses) <= {"ok", "no_background", "background_too_small", "all_filtered"}
    masks = dataset.count("promerge.detections")
    assert masks >= 2

    page.open()
    assert page["sidebar-field-promerge"].count() == 1
    drawn = (np.abs(page.grid().astype(int) - before).max(axis=2) > 20).mean()
    assert drawn > 0.01, f"{masks} masks, but only {drawn:.2%} of the grid changed"


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
