"""The form of the operator that segments."""

from types import SimpleNamespace

import pytest


@pytest.mark.parametrize(
    ("media_type", "words"), [("video", "to_frames"), ("group", "groups"), ("3d", "3d samples")]
)
def test_what_has_no_images_is_refused_with_what_to_select(fo, dataset, media_type, words):
    from operators.segment_instances import SegmentInstances

    if media_type == "group":
        dataset.add_group_field("group", default="left")
        dataset.add_group_slice("left", "image")
    else:
        name = {"video": "clip.mp4", "3d": "scene.fo3d"}[media_type]
        dataset.add_sample(fo.Sample(filepath=f"/nowhere/{name}"))
    assert dataset.media_type == media_type
    form = SegmentInstances().resolve_input(SimpleNamespace(dataset=dataset, params={}))
    assert form.invalid
    assert list(form.type.properties) == ["refused"]
    assert words in form.type.properties["refused"].view.description
