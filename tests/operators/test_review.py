"""The review's operators and panels, run by FiftyOne's executor against the database."""

from __future__ import annotations

import pytest

SCORES = [[0.9, 0.1, 0.5], [0.3]]
FIELD = "promerge"


@pytest.fixture
def labelled(fo, dataset):
    for i, scores in enumerate(SCORES):
        detections = [
            fo.Detection(label="fg", confidence=score, bounding_box=[0, 0, 0.5, 1], area=0.1)
            for score in scores
        ]
        sample = fo.Sample(filepath=f"/nowhere/{i}.png")
        sample[FIELD] = fo.Detections(detections=detections)
        dataset.add_sample(sample)
    return dataset


def asked(ctx):
    """What was asked of the App, by operator, the last of each."""
    return {request.operator_uri: request.params for request in ctx.executor._requests}


def shown(ctx, fo):
    """The view that the App was told to show."""
    return fo.DatasetView._build(ctx.dataset, asked(ctx)["set_view"]["view"])


def reviews(dataset):
    return dataset.values(f"{FIELD}.detections.review", unwind=True)


def test_operators_run_from_python(fo, operator, labelled):
    result = operator("review_instances")(labelled, FIELD, limit=2, reviewer="Ada").result
    assert result == {"shown": 2, "progress": "0 of 4"}
    first = labelled.first()[FIELD].detections[0].id
    assert operator("accept")(labelled, FIELD, [first], reviewer="Ada").result == {"decided": 1}
    view = labelled.filter_labels(FIELD, fo.ViewField("confidence") < 0.2)
    assert operator("reject")(view, FIELD).result == {"decided": 1}
    assert reviews(labelled) == ["accepted", "rejected", None, None]
    assert operator("undo")(labelled, FIELD).result == {"undone": 1}
    assert operator("undo")(labelled[1:], FIELD).result == {"undone": 0}
    assert reviews(labelled) == ["accepted", None, None, None]
    assert operator("undo")(labelled, FIELD).result == {"undone": 1}


def test_the_review_opens_on_the_most_doubtful(fo, operator, labelled, context):
    params = {"label_field": FIELD, "order": "score", "limit": 3, "reviewer": "Ada"}
    ctx = context(labelled, params)
    assert operator("review_instances").execute(ctx) == {"shown": 3, "progress": "0 of 4"}
    assert shown(ctx, fo).values(f"{FIELD}.confidence") == [0.1, 0.3, 0.5]
    style = {"default": "thumbsup", "alt": "thumbsdown"}
    assert asked(ctx)["set_sample_selection_style"] == style
    assert asked(ctx)["open_panel"]["name"] == "promerge_review"


def test_what_is_selected_is_decided_and_the_next_page_comes(fo, operator, labelled, context):
    review = operator("review_instances")
    ctx = context(labelled, {"label_field": FIELD, "limit": 2, "reviewer": "Ada"})
    review.execute(ctx)
    page = shown(ctx, fo)
    ids = page.values("id")
    ctx = context(page, {}, selected=ids[:1])
    assert operator("accept").execute(ctx) == {"decided": 1}
    assert labelled.values(f"{FIELD}.detections.reviewer", unwind=True)[1] == "Ada"
    following = shown(ctx, fo)
    assert following.values(f"{FIELD}.confidence") == [0.3, 0.5]
    ctx = context(following, {"scope": "view"})
    assert operator("reject").execute(ctx) == {"decided": 2}
    assert shown(ctx, fo).values(f"{FIELD}.confidence") == [0.9]
    ctx = context(shown(ctx, fo), {"scope": "view"})
    operator("accept").execute(ctx)
    assert not shown(ctx, fo)._is_patches and len(shown(ctx, fo)) == 2
    assert "Everything here is decided" in asked(ctx)["notify"]["message"]
    assert reviews(labelled) == ["accepted", "accepted", "rejected", "rejected"]
    assert operator("undo").execute(context(labelled)) == {"undone": 1}


def test_labels_of_an_image_and_whole_samples_are_decided(operator, labelled, context):
    ids = labelled.values(f"{FIELD}.detections.id", unwind=True)
    sample = labelled.first().id
    chosen = {"label_id": ids[2], "sample_id": sample, "field": FIELD, "type": "default"}
    operator("accept").execute(context(labelled, selected_labels=[chosen]))
    assert reviews(labelled) == [None, None, "accepted", None]
    operator("reject").execute(context(labelled, {"label_field": FIELD}, selected=[sample]))
    assert reviews(labelled) == ["rejected"] * 3 + [None]
    page = labelled.to_patches(FIELD)
    chosen = {"label_id": ids[3], "sample_id": ids[3], "field": FIELD, "type": "default"}
    operator("accept").execute(context(page, selected_labels=[chosen]))
    assert reviews(labelled)[3] == "accepted"


def test_wrong_input_is_told(fo, operator, labelled, context):
    for name in ("accept", "reject"):
        form = operator(name).resolve_input(context(labelled))
        assert form.type.properties["scope"].type.values == ["view"]
        with pytest.raises(ValueError, match="nothing is selected: select patches"):
            operator(name).execute(context(labelled))
    for name in ("review_instances", "accept", "reject", "undo"):
        with pytest.raises(ValueError, match="'nothing' does not exist.* that do: 'promerge'"):
            operator(name)(labelled, "nothing")
    form = operator("review_instances").resolve_input(
        context(labelled, {"order": "disagreement", "label_field": FIELD})
    )
    assert form.invalid and "'promerge' is the only field" in form.error_message
    labelled.clone_sample_field(FIELD, "other")
    form = operator("review_instances").resolve_input(
        context(labelled, {"order": "disagreement", "label_field": FIELD})
    )
    assert form.type.properties["other_field"].type.values == ["other"]
    empty, video = fo.Dataset(), fo.Dataset()
    empty.add_sample(fo.Sample(filepath="/nowhere/a.png"))
    video.add_sample(fo.Sample(filepath="/nowhere/a.mp4"))
    for name in ("review_instances", "accept", "reject", "undo"):
        form = operator(name).resolve_input(context(empty))
        assert form.invalid and "segment the images first" in form.error_message
        form = operator(name).resolve_input(context(video))
        assert form.invalid and "to_frames" in form.error_message
        form = operator(name).resolve_input(context(video.to_frames(sample_frames="dynamic")))
        assert form.invalid and "the App reviews datasets of images" in form.error_message
    empty.delete()
    video.delete()


def test_the_least_typical_of_their_groups_come_first(fo, operator, panel, labelled, context):
    params = {"order": "typicality", "label_field": FIELD}
    form = operator("review_instances").resolve_input(context(labelled, params))
    assert form.invalid and "'promerge' are in no groups" in form.error_message
    panel("promerge_review", "on_load", labelled)
    panel.state["order"] = "typicality"
    ctx = panel("promerge_review", "open_queue", labelled)
    assert "'promerge' are in no groups" in asked(ctx)["notify"]["message"]
    assert "set_view" not in asked(ctx)
    labelled.set_values(f"{FIELD}.detections.group", [["1", "2", "1"], ["2"]], dynamic=True)
    typicality = [[0.9, 0.3, 0.5], [0.2]]
    labelled.set_values(f"{FIELD}.detections.typicality", typicality, dynamic=True)
    assert not operator("review_instances").resolve_input(context(labelled, params)).invalid
    ctx = panel("promerge_review", "open_queue", labelled)
    assert shown(ctx, fo).values(f"{FIELD}.typicality") == [0.2, 0.3, 0.5, 0.9]
    assert f"{FIELD}.group" in asked(ctx)["set_active_fields"]["fields"]  # each patch shows it


def test_the_last_settings_are_remembered(operator, labelled, context):
    labelled.clone_sample_field(FIELD, "other")
    params = {"label_field": "other", "order": "size", "limit": 3, "reviewer": "Bo"}
    operator("review_instances").execute(context(labelled, params))
    form = operator("review_instances").resolve_input(context(labelled)).type.properties
    assert {name: form[name].default for name in params} == params


def test_the_panel_shows_progress_and_opens_bars(fo, panel, labelled, context):
    panel("promerge_review", "on_load", labelled)
    counted = panel.state["counted"]
    assert counted["progress"] == "0 of 4"
    assert sum(counted["bars"]["score"]["undecided"]) == 4
    ctx = panel("promerge_review", "open_bar", labelled, {"path": "score_plot", "idx": 2})
    assert shown(ctx, fo).values(f"{FIELD}.detections.confidence") == [[0.1]]
    ctx = panel("promerge_review", "open_bar", labelled, {"path": "masks_plot", "idx": 1})
    assert shown(ctx, fo).values(f"{FIELD}.detections.confidence") == [[0.3]]
    doubtful = shown(
        panel("promerge_review", "open_bar", labelled, {"path": "area_plot", "idx": 16}), fo
    )
    panel.state["reviewer"] = "Ada"
    panel("promerge_review", "reject_shown", doubtful)
    assert panel.state["counted"]["progress"] == "4 of 4, 0 % accepted"
    panel("promerge_review", "take_back", labelled)
    assert panel.state["counted"]["progress"] == "0 of 4"
    ctx = panel("promerge_review", "take_back", labelled)
    assert asked(ctx)["notify"]["message"] == "There is no decision to take back"


def test_the_panel_counts_when_the_last_page_is_done(fo, panel, labelled):
    panel("promerge_review", "on_load", labelled)
    page = shown(panel("promerge_review", "open_queue", labelled), fo)
    ctx = panel("promerge_review", "accept_shown", page)
    assert panel.state["counted"]["progress"] == "4 of 4, 100 % accepted"
    assert not shown(ctx, fo)._is_patches
    ctx = panel("promerge_review", "on_change_view", labelled)
    assert "clear_sample_selection_style" in asked(ctx)


def test_where_there_are_no_masks_nothing_is_said_to_be_decided(fo, panel, labelled):
    labelled.add_sample(fo.Sample(filepath="/nowhere/new.png"))
    panel("promerge_review", "on_load", labelled)
    ctx = panel("promerge_review", "open_queue", labelled.match({"filepath": "/nowhere/new.png"}))
    assert asked(ctx)["notify"]["message"] == "There are no masks of 'promerge' here"
    page = shown(panel("promerge_review", "open_queue", labelled), fo)
    ctx = panel("promerge_review", "accept_shown", page)
    assert asked(ctx)["notify"]["message"] == "Everything here is decided"
    ctx = panel("promerge_review", "take_back", labelled)
    assert len(shown(ctx, fo)) == 4, "the queue is open again"


def test_the_panel_decides_by_thumbs(fo, panel, labelled):
    panel("promerge_review", "on_load", labelled)
    page = shown(panel("promerge_review", "open_queue", labelled), fo)
    up, down, *_ = page.values("id")
    marks = [{"id": up, "type": "default"}, {"id": down, "type": "alt"}]
    panel("promerge_review", "decide_marked", page, selected_samples=marks)
    assert reviews(labelled) == [None, "accepted", None, "rejected"]
    ctx = panel("promerge_review", "decide_marked", page)
    assert "Nothing is marked" in asked(ctx)["notify"]["message"]
    ctx = panel("promerge_review", "accept_selected", page)
    assert "Nothing is selected" in asked(ctx)["notify"]["message"]
    panel("promerge_review", "accept_selected", labelled, selected=[labelled.first().id])
    assert reviews(labelled) == ["accepted", "accepted", "accepted", "rejected"]


def test_the_panel_of_one_sample_lists_and_decides(panel, labelled):
    first = labelled.first().id
    panel("promerge_sample", "on_load", labelled, current_sample=first)
    masks = panel.state["masks"]
    assert [mask["score"] for mask in masks] == SCORES[0]
    one = {"what": "accept", "label": masks[1]["id"]}
    panel("promerge_sample", "decide_one", labelled, one, current_sample=first)
    assert [mask["review"] for mask in panel.state["masks"]] == [None, "accepted", None]
    panel("promerge_sample", "decide_all", labelled, {"what": "reject"}, current_sample=first)
    assert reviews(labelled) == ["rejected"] * 3 + [None]
    panel("promerge_sample", "take_back", labelled, current_sample=first)
    assert reviews(labelled) == [None, "accepted", None, None]
    ctx = panel(
        "promerge_sample", "decide_selected", labelled, {"what": "accept"}, current_sample=first
    )
    assert "Nothing is selected" in asked(ctx)["notify"]["message"]
