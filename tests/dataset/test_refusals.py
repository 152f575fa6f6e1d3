"""Collections without images are refused, by the model and by what calls it."""

from __future__ import annotations

import pytest

from promerge_fo import dataset as pfo


@pytest.fixture
def media_type_error(fo):
    from fiftyone.core.media import MediaTypeError

    return MediaTypeError


def test_videos(fo, dataset, media_type_error):
    dataset.add_sample(fo.Sample(filepath="clip.mp4"))
    with pytest.raises(media_type_error, match=r"to_frames\(sample_frames=True\)"):
        pfo.require_images(dataset)


@pytest.fixture
def frames(fo, dataset, photographs):
    """The photographs as the frames of a video, in a view of images."""
    sample = fo.Sample(filepath="clip.mp4")
    for number, path in enumerate(photographs, start=1):
        sample.frames[number] = fo.Frame(filepath=path)
    dataset.add_sample(sample)
    return dataset.to_frames()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_frames_of_videos_as_images_are_welcome(dataset, frames, model, expected, num_workers):
    """FiftyOne's loader loads their dataset again in this process where it has no workers."""
    pfo.require_images(frames)
    frames.apply_model(model, label_field="promerge", batch_size=2, num_workers=num_workers)
    assert dataset.values("frames.promerge.status") == [["ok"] * 4]
    assert "promerge.status" in dataset.get_frame_field_schema(flat=True)
    (key,) = pfo.list_runs(dataset)
    assert pfo.load_run(dataset, key)["counts"] == {"ok": 4}
    masks = sum(map(len, expected))
    assert dataset.count("frames.promerge.detections") == masks
    dataset.reload()
    assert dataset.first().frames.first().promerge.status == "ok"
    again = dataset.to_frames()
    assert again.values("promerge.status") == ["ok"] * 4
    assert again.count("promerge.detections") == masks


def test_frames_can_be_read_after_a_run_that_was_killed(dataset, frames, model, monkeypatch):
    monkeypatch.setattr(type(model), "__exit__", lambda self, *reason: None)
    frames.apply_model(model, label_field="promerge", batch_size=2, num_workers=0)
    dataset.reload()
    assert "promerge" in dataset.get_frame_field_schema()
    assert dataset.to_frames().first().promerge.status == "ok"


def test_3d(fo, dataset, model, media_type_error):
    dataset.add_sample(fo.Sample(filepath="scene.fo3d"))
    with pytest.raises(media_type_error, match=r"holds 3d samples.*orthographic_projection"):
        pfo.require_images(dataset)
    with pytest.raises(media_type_error, match="3d"):
        dataset.apply_model(model, label_field="promerge")


def test_groups(fo, dataset, model, media_type_error, photographs):
    dataset.add_group_field("group", default="left")
    files = {"left": photographs[0], "right": photographs[1], "lidar": "points.pcd"}
    group = fo.Group()
    dataset.add_samples(
        [fo.Sample(filepath=path, group=group.element(name)) for name, path in files.items()]
    )
    with pytest.raises(media_type_error, match=r"select_group_slices\(\['left', 'right'\]\)"):
        pfo.require_images(dataset)
    with pytest.raises(ValueError, match="select_group_slices"):
        dataset.apply_model(model, label_field="promerge")

    images = dataset.select_group_slices(["left", "right"])
    pfo.require_images(images)
    images.apply_model(model, label_field="promerge", batch_size=2, num_workers=0)
    assert images.values("promerge.status") == ["ok", "ok"]
    assert pfo.load_run(dataset, pfo.list_runs(dataset)[0])["images"] == 2


def test_groups_without_images(fo, dataset, media_type_error):
    dataset.add_group_field("group", default="lidar")
    dataset.add_sample(fo.Sample(filepath="a.pcd", group=fo.Group().element("lidar")))
    with pytest.raises(media_type_error, match="none of its slices has images"):
        pfo.require_images(dataset)


def test_groups_by_a_field(fo, dataset, media_type_error, photographs):
    dataset.add_samples([fo.Sample(filepath=path, scene="one") for path in photographs])
    groups = dataset.group_by("scene")
    with pytest.raises(media_type_error, match=r"flatten it: samples.flatten\(\)"):
        pfo.review_queue(groups, "promerge")
    pfo.require_images(groups.flatten())


def test_nothing(dataset, media_type_error):
    with pytest.raises(media_type_error, match="is empty here"):
        pfo.require_images(dataset)
