"""Videos are segmented frame by frame, stopped and continued, and what cannot be read is told."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from promerge_fo import dataset as pfo
from promerge_fo.cli import main
from promerge_fo.config import ProMergeConfig
from promerge_fo.dataset.runs.frames import evenly_spaced_frames
from promerge_fo.dataset.runs.status import run_statuses, stop_runs
from tests.needs import need_command
from tests.scenes import write_clips

CLIPS, FRAMES = 3, 10
ALL = CLIPS * FRAMES


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    need_command("ffmpeg", "apt-get install ffmpeg")
    return write_clips(tmp_path_factory.mktemp("clips"), CLIPS, FRAMES)


@pytest.fixture
def clips(fo, dataset, paths):
    dataset.add_samples([fo.Sample(filepath=path) for path in paths])
    return dataset


@pytest.fixture(scope="module")
def model(fo):
    return small()


def small(**changes):
    config = ProMergeConfig(image_size=96, min_refined_iou=0).replace(**changes)
    return pfo.load_model(encoder="texture", config=config)


@pytest.fixture
def segmented(model, monkeypatch):
    """How many images the models have segmented, and what is called before each batch."""

    class Segmented:
        images = 0

        def before(self, images):
            """Nothing happens."""

    own, real = Segmented(), type(model)._segment

    def segment(self, size, images):
        images = list(images)
        own.before(images)
        own.images += len(images)
        return real(self, size, images)

    monkeypatch.setattr(type(model), "_segment", segment)
    return own


def done(dataset, field="promerge"):
    """The number of frames with labels, of each video."""
    return [sum(s is not None for s in of) for of in dataset.values(f"frames.{field}.status")]


def label_ids(dataset, field="promerge"):
    return dataset.values(f"frames.{field}.detections.id", unwind=True)


def test_apply_model_is_stopped_and_continued(clips, model, segmented):
    def stop(images):
        if segmented.images + len(images) > 14:
            raise KeyboardInterrupt

    segmented.before = stop
    with pytest.raises(KeyboardInterrupt):
        clips.apply_model(model, label_field="promerge", batch_size=4)
    assert done(clips) == [10, 4, 0]
    kept = label_ids(clips)
    assert kept
    segmented.images, segmented.before = 0, lambda images: None
    clips.apply_model(model, label_field="promerge", batch_size=4)
    clips.reload()
    assert segmented.images == ALL - 14
    assert done(clips) == [FRAMES] * CLIPS
    assert clips.count_values("frames.promerge.run") == {model.hash: ALL}
    assert label_ids(clips)[: len(kept)] == kept
    (key,) = pfo.list_runs(clips)
    record = pfo.load_run(clips, key)
    assert (record["images"], record["interrupted"]) == (ALL, False)
    assert record["instances"] == clips.count("frames.promerge.detections")
    assert "promerge.status" in clips.get_frame_field_schema(flat=True)
    groups = {group.name: group.paths for group in clips.app_config.sidebar_groups}
    assert "frames.promerge.status" in groups["frame labels"]

    other = small(tau_b=0.3)
    clips.apply_model(other, label_field="fresh", batch_size=4)
    clips.apply_model(other, label_field="promerge", batch_size=4)
    assert clips.count_values("frames.promerge.run") == {other.hash: ALL}
    masks = clips.count("frames.fresh.detections")
    assert clips.count("frames.promerge.detections") == masks, "labels were added to the old ones"
    assert pfo.delete_run(clips, key) == 0
    keys = pfo.list_runs(clips)
    assert [pfo.delete_run(clips, key) for key in keys] == [ALL, ALL]
    assert not {"fresh", "promerge"} & clips.get_frame_field_schema().keys()


def test_a_run_is_stopped_and_continued_and_its_status_counts_frames(clips, model, segmented):
    def stop(images):
        if segmented.images >= 8:
            stop_runs(clips)
            time.sleep(1)  # the run looks every two seconds

    segmented.before = stop
    report = pfo.segment_dataset(clips, model, batch_size=4)
    assert report.interrupted
    first = report.counts["ok"]
    assert 8 <= first < ALL
    assert sum(done(clips)) == first == segmented.images
    (status,) = run_statuses(clips)
    assert (status.state, status.done, status.total) == ("stopped", first, ALL)
    assert f"{first} of {ALL} frames" in str(status)
    assert "frames/s" in str(status)
    kept = label_ids(clips)

    segmented.images, segmented.before = 0, lambda images: None
    ticks = []

    class Bar:
        def __init__(self, total):
            ticks.append(total)

        def update(self, n):
            ticks.append(n)

        def close(self):
            """Nothing is shown."""

    report = pfo.segment_dataset(clips, model, batch_size=4, progress=Bar)
    assert (report.skipped, report.counts) == (first, {"ok": ALL - first})
    assert f"{ALL - first} frames in" in str(report)
    assert f"{first} frames were done before" in str(report)
    assert segmented.images == ALL - first
    assert ticks[0] == ALL - first >= sum(ticks[1:]) > 0
    clips.reload()
    assert done(clips) == [FRAMES] * CLIPS
    assert label_ids(clips)[: len(kept)] == kept
    (status,) = run_statuses(clips)
    assert (status.state, status.before, status.done) == ("finished", first, ALL - first)
    (key,) = pfo.list_runs(clips)
    assert pfo.load_run(clips, key)["images"] == ALL
    assert pfo.segment_dataset(clips, model).skipped == ALL
    assert segmented.images == ALL - first


def test_what_cannot_be_read_is_recorded_and_costs_nothing_else(
    fo, dataset, paths, model, tmp_path, capsys
):
    broken, short = tmp_path / "broken.mp4", tmp_path / "short.mp4"
    broken.write_bytes(b"no video")
    short.write_bytes(Path(paths[1]).read_bytes())
    dataset.add_samples([fo.Sample(filepath=str(each)) for each in (broken, paths[0], short)])
    dataset.compute_metadata()
    last = dataset.last()
    last.metadata.total_frame_count = FRAMES + 2
    last.save()
    report = pfo.segment_dataset(dataset, model, batch_size=4)
    assert report.counts == {"ok": 2 * FRAMES, "failed": 3}
    dataset.reload()
    assert done(dataset) == [1, FRAMES, FRAMES + 2]
    (key,) = pfo.list_runs(dataset)
    assert pfo.load_run(dataset, key)["counts"] == report.counts
    assert pfo.segment_dataset(dataset, model).skipped == 2 * FRAMES + 3
    dataset.persistent = True
    assert main(["status", dataset.name, "--failed"]) == 0
    said = capsys.readouterr().out
    assert f"{2 * FRAMES + 3} of {2 * FRAMES + 3} frames" in said
    assert f"{broken}, frame 1: " in said
    assert f"{short}, frame 12: the video has 12 frames by its metadata" in said

    broken.write_bytes(Path(paths[2]).read_bytes())
    broken_one = dataset.first()
    broken_one.metadata = None
    broken_one.save()
    report = pfo.segment_dataset(dataset, model, retry_failed=True)
    assert report.counts == {"ok": FRAMES, "failed": 2}
    assert done(dataset) == [FRAMES, FRAMES, FRAMES + 2]


def test_decisions_stop_a_run_that_would_replace_them(clips, model):
    pfo.segment_dataset(clips, model, limit=1)
    frame = clips.first().frames.first()
    frame.promerge.detections[0]["review"] = "accepted"
    frame.save()
    other = small(tau_b=0.3)
    with pytest.raises(pfo.DecisionsLostError, match=r"in 1 of these frames.*drop_decisions=True"):
        pfo.segment_dataset(clips, other)
    assert clips.count_values("frames.promerge.run") == {model.hash: FRAMES}
    assert pfo.segment_dataset(clips, model, limit=1).skipped == FRAMES
    with pytest.raises(pfo.DecisionsLostError):
        pfo.segment_dataset(clips, model, overwrite=True)
    report = pfo.segment_dataset(clips, other, limit=1, drop_decisions=True)
    assert sum(report.counts.values()) == FRAMES


def test_a_calibration_measures_frames_evenly_spaced_in_all_videos(clips):
    frames = evenly_spaced_frames(clips, 6)
    assert [frame.shape for frame in frames] == [(120, 160, 3)] * 6
    lefts = [int(np.argmax(frame[75, :, 0] > 120)) for frame in frames]
    steps = [round((left - 10) / 5) for left in lefts]  # where the square is says which frame
    assert steps == [0, 5, 1, 7, 3, 9]
    frames = evenly_spaced_frames(clips, 100)
    assert len(frames) == ALL


def test_the_command_segments_videos(clips, tmp_path, capsys):
    clips.persistent = True
    arguments = ["segment", clips.name, "--encoder", "texture", "--image-size", "96"]
    assert main([*arguments, "--limit", "1", "--output-dir", str(tmp_path)]) == 0
    assert done(clips) == [FRAMES, 0, 0]
    assert len(list(tmp_path.rglob("*.png"))) == clips.count("frames.promerge.detections")
    assert main([*arguments, "--limit", "1"]) == 0
    assert f"{FRAMES} frames were done before" in capsys.readouterr().out
    assert main([*arguments, "--output", str(tmp_path / "masks.json")]) == 2
    assert "to_frames" in capsys.readouterr().err


def test_what_videos_cannot_have_is_refused(clips, monkeypatch):
    embeds = pfo.load_model(encoder="texture", embed=True)
    with pytest.raises(ValueError, match=r"to_frames\(sample_frames=True\)\.clone\(\)"):
        pfo.segment_dataset(clips, embeds)
    with pytest.raises(ValueError, match="embeddings of frames"):
        clips.apply_model(embeds, label_field="promerge")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RuntimeError, match="apt-get install ffmpeg"):
        pfo.segment_dataset(clips, small())


def test_slices_of_groups_by_their_names(fo, dataset, paths, photographs, model):
    dataset.add_group_field("group", default="left")
    for path in photographs[:2]:
        group, files = fo.Group(), {"left": path, "right": photographs[2], "film": paths[0]}
        dataset.add_samples(
            [fo.Sample(filepath=file, group=group.element(name)) for name, file in files.items()]
        )
    assert pfo.segment_dataset(dataset, model, group_slice="right").counts == {"ok": 2}
    assert dataset.select_group_slices("left").values("promerge.status") == [None, None]
    film = pfo.segment_dataset(dataset, model, group_slice="film")
    assert film.counts == {"ok": 2 * FRAMES}
    assert done(dataset.select_group_slices("film")) == [FRAMES, FRAMES]
    known = r"has no slice 'up'; its slices are: 'left', 'right', 'film'"
    with pytest.raises(ValueError, match=known):
        pfo.segment_dataset(dataset, model, group_slice="up")
    with pytest.raises(ValueError, match="holds no groups"):
        pfo.segment_dataset(dataset.select_group_slices("left"), model, group_slice="left")
    dataset.persistent = True
    arguments = ["segment", dataset.name, "--encoder", "texture", "--image-size", "96"]
    assert main([*arguments, "--group-slice", "left"]) == 0
    assert None not in dataset.select_group_slices("left").values("promerge.status")


def test_what_failed_in_any_slice_is_told(fo, dataset, model, tmp_path, capsys):
    need_command("ffmpeg", "apt-get install ffmpeg")
    dataset.add_group_field("group", default="left")
    group, broken = fo.Group(), {"left": tmp_path / "left.png", "film": tmp_path / "film.mp4"}
    for name, path in broken.items():
        path.write_bytes(b"neither image nor video")
        dataset.add_sample(fo.Sample(filepath=str(path), group=group.element(name)))
    for name in broken:
        assert pfo.segment_dataset(dataset, model, group_slice=name).counts == {"failed": 1}
    dataset.persistent = True
    assert main(["status", dataset.name, "--failed"]) == 0
    said = capsys.readouterr().out
    assert f"{broken['left']} is not an image" in said
    assert f"{broken['film']}, frame 1: " in said
    dataset.delete_samples(dataset.select_group_slices("left"))
    dataset.delete_group_slice("left")
    assert main(["status", dataset.name, "--failed"]) == 0
    assert f"{broken['film']}, frame 1: " in capsys.readouterr().out
