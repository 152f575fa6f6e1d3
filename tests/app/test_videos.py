"""A dataset of videos in the App: its frames are segmented, and the masks are seen."""

import numpy as np
import pytest

from tests.needs import need_command
from tests.scenes import write_clips


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    need_command("ffmpeg", "apt-get install ffmpeg")
    return write_clips(tmp_path_factory.mktemp("clips"), 3, 10)


class Impatient:
    """A bar of progress that is interrupted in the second clip."""

    def __init__(self, total):
        self.left = 12

    def update(self, n):
        self.left -= n
        if self.left <= 0:
            raise KeyboardInterrupt

    def close(self):
        """There is nothing to close."""


def test_the_frames_of_clips_are_segmented_stopped_continued_and_seen(
    app, plugin, dataset, paths, fo
):
    from promerge_fo.config import ProMergeConfig
    from promerge_fo.dataset import load_model, segment_dataset

    dataset.add_samples([fo.Sample(filepath=path) for path in paths])
    dataset.compute_metadata()
    model = load_model(encoder="texture", config=ProMergeConfig.preset("fast"))
    report = segment_dataset(dataset, model, batch_size=4, progress=Impatient)
    done = sum(report.counts.values())
    assert report.interrupted
    assert 12 <= done < 30
    kept = dataset.values("frames.promerge.detections.id", unwind=True)

    page = app(dataset)
    page.operator("ProMerge: segment instances")
    page.fill("Encoder", "texture")
    page.choose("Preset", "fast")
    page.form.get_by_text(f"{30 - done} frames of 30, as {done} are done").wait_for(timeout=30_000)
    page.execute("Segment")
    said = page.finish("frames/s", close=True)
    assert f"{30 - done} frames in" in said
    assert f"{done} frames were done before" in said
    dataset.reload()
    assert dataset.count_values("frames.promerge.run") == {model.hash: 30}
    assert dataset.values("frames.promerge.detections.id", unwind=True)[: len(kept)] == kept

    page.open()
    assert page["sidebar-field-frames.promerge"].count() == 1
    shown = page.grid()
    page["checkbox-frames.promerge"].click()
    page.settle()
    drawn = (np.abs(page.grid().astype(int) - shown).max(axis=2) > 20).mean()
    assert drawn > 0.005, f"the masks are not drawn: {drawn:.2%} of the grid"
