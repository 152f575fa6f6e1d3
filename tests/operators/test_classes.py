"""Groups and names from the App: operators and the panel, run by FiftyOne's executor."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from promerge_fo import dataset as pfo
from tests.operators.conftest import PAGE

FIELD = "promerge"
PANEL = "promerge_groups"


@pytest.fixture
def grouped(fo, dataset, tmp_path):
    """Sixty masks of three kinds, with embeddings and images, in three groups."""
    from tests.dataset.classes.made import embed, fill, vectors

    fill(dataset, fo)
    paths = []
    for number in range(len(dataset)):
        paths.append(str(tmp_path / f"{number}.png"))
        pixels = np.full((12, 12, 3), 200, dtype=np.uint8)
        Image.fromarray(pixels).save(paths[-1])
    dataset.set_values("filepath", paths)
    embed(dataset, vectors())
    pfo.group_instances(dataset, FIELD, 3)
    return dataset


def asked(ctx):
    """What was asked of the App, by operator, the last of each."""
    return {
        request.operator_uri.split("/")[-1]: request.params for request in ctx.executor._requests
    }


def said(ctx):
    return asked(ctx)["notify"]["message"]


def shown(ctx, fo):
    return fo.DatasetView._build(ctx.dataset, asked(ctx)["set_view"]["view"])


def members(dataset, group):
    dataset.reload()
    labels = (label for sample in dataset for label in sample[FIELD].detections)
    return {label.id: label for label in labels if label.group == group}


def test_masks_are_grouped_as_a_job(operator, from_app, form, grouped):
    done = from_app(operator("group_instances"), grouped, label_field=FIELD, groups=4)
    assert (done.state, done.panel) == ("done", "promerge_groups")
    assert done.outcome.startswith("4 groups\n\n- group 1: ")
    result = operator("group_instances")(grouped, label_field=FIELD).result
    assert sum(result["groups"].values()) == 60
    wrong = from_app(operator("group_instances"), grouped, label_field=FIELD, groups=61)
    assert wrong.state == "failed"
    assert "61 groups of 60 masks are too many" in wrong.outcome


def test_masks_are_embedded_and_mapped_as_a_job(operator, from_app, form, segmented):
    embed, total = operator("embed_instances"), segmented.count(f"{FIELD}.detections")
    asked_for = set(form(embed, segmented).type.properties)
    assert {"label_field", "map", "encoder", "checkpoint", "overwrite"} <= asked_for
    assert not {"facet", "block"} & asked_for
    shown = form(embed, segmented, encoder="vit_small_patch8_224.dino").type.properties
    assert {"facet", "block"} <= set(shown)
    done = from_app(embed, segmented, label_field=FIELD, map="pca")
    assert (done.state, done.panel) == ("done", "Embeddings")
    assert done.outcome.startswith(f"{total} masks of 4 images embedded in ")
    assert f"A map of {total} masks is in the Embeddings panel: `promerge_map`" in done.outcome
    assert segmented.list_brain_runs() == ["promerge_map", "promerge_map_similarity"]
    result = embed(segmented, label_field="ground_truth", map="none", encoder="texture").result
    assert (result["masks"], result["failed"]) == (total, {})
    assert segmented.list_brain_runs() == ["promerge_map", "promerge_map_similarity"]
    wrong = from_app(embed, segmented, label_field=FIELD, map="none", encoder="no_encoder")
    assert (wrong.state, "no_encoder" in wrong.outcome) == ("failed", True)


def test_masks_are_embedded_in_the_pass_that_makes_them(operator, from_app, form, segmented):
    segment = operator("segment_instances")
    names = ("embed_facet", "embed_block")
    asked_for = form(segment, segmented, embed=True).type.properties
    assert {"embed", *names} <= set(asked_for)
    texture = form(segment, segmented, embed=True, encoder="texture").type.properties
    assert not set(names) & set(texture)
    done = from_app(segment, segmented, label_field="fine", encoder="texture", embed=True)
    assert done.state == "done"
    segmented.reload()
    assert len(pfo.read_embeddings(segmented, "fine")) == segmented.count("fine.detections") > 0


def test_masks_are_named_from_python_and_from_the_app(operator, context, form, grouped):
    name = operator("name_instances")
    ids = list(members(grouped, "1"))
    assert name(grouped, FIELD, "cat", ids=ids[:3]).result == {"named": 3}
    assert name(grouped, FIELD, "dog", groups=["2", "3"]).result == {"named": 40}
    assert name(grouped.limit(1), FIELD, "thing").result == {"named": 3}
    patches = grouped.to_patches(FIELD)
    chosen = patches.values("id")[10:12]
    params = {"name": "cow", "label_field": FIELD, "scope": "selected"}
    ctx = context(patches, params, selected=chosen)
    assert name.execute(ctx) == {"named": 2}
    assert said(ctx) == "2 masks are named 'cow'"
    assert pfo.list_names(grouped, FIELD)["cow"] == 2
    with pytest.raises(ValueError, match="nothing is selected"):
        name.execute(context(grouped, params))
    with pytest.raises(ValueError, match="one line of text that is not empty"):
        name.execute(context(grouped, {**params, "name": "", "scope": "view"}))


def test_the_panel_lists_groups_with_pictures_and_opens_them(panel, fo, grouped):
    panel(PANEL, "on_load", grouped)
    groups = panel.state["groups"]
    assert [each["text"] for each in groups] == [f"group {i}: 20 masks" for i in (1, 2, 3)]
    head, _, picture = panel.state["picture_2"].partition(",")
    assert head == "data:image/jpeg;base64"
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))
    assert pixels.shape == (96, 4 * 96, 3)
    middle = pixels[48, 48::96].mean(axis=1)
    assert (middle > 150).all(), "the mask is as bright as the image"
    assert (pixels[[2, -3]].max(axis=2) < 120).mean() > 0.8, "and the rest is dark"

    view = shown(panel(PANEL, "open_group", grouped, {"group": "2"}), fo)
    assert set(view.values("id")) == set(members(grouped, "2"))
    typicality = view.values(f"{FIELD}.typicality")
    assert typicality == sorted(typicality, reverse=True)
    panel.state["first"] = "least typical"
    view = shown(panel(PANEL, "reopen", grouped), fo)
    assert view.values(f"{FIELD}.typicality") == sorted(typicality)


def test_the_panel_splits_merges_and_says_what_is_wrong(panel, fo, grouped):
    panel(PANEL, "on_load", grouped)
    panel(PANEL, "open_group", grouped, {"group": "1"})
    assert said(panel(PANEL, "merge", grouped)) == "Choose the other group to merge with"
    panel.state["other"] = "3"
    ctx = panel(PANEL, "merge", grouped)
    assert said(ctx) == "group 1: 40 masks"
    assert len(shown(ctx, fo)) == 40
    assert [each["name"] for each in panel.state["groups"]] == ["1", "2"]
    ctx = panel(PANEL, "split", grouped)
    assert said(ctx).startswith("group 1: 20 masks and group 3: 20 masks")
    assert len(panel.state["groups"]) == 3
    pfo.merge_groups(grouped, FIELD, ["1", "2"])
    panel.state["group"] = "2"
    assert "has no group '2'" in said(panel(PANEL, "split", grouped))


def test_the_panel_names_groups_and_selected_masks_and_takes_it_back(panel, fo, grouped):
    panel(PANEL, "on_load", grouped)
    view = shown(panel(PANEL, "open_group", grouped, {"group": "1"}), fo)
    assert "not empty" in said(panel(PANEL, "name_group", view))
    panel.state["name"] = "cat"
    ctx = panel(PANEL, "name_group", view)
    assert said(ctx) == "20 masks are named 'cat'"
    assert "reload_dataset" in asked(ctx), "the patches that are shown keep their old names"
    view = shown(panel(PANEL, "open_group", grouped, {"group": "1"}), fo)
    assert set(view.values(f"{FIELD}.label")) == {"cat"}
    assert panel.state["groups"][0]["text"] == "group 1: 20 masks (20 cat)"
    panel.state["name"] = "lynx"
    chosen = view.values("id")[:2]
    assert "Nothing is selected" in said(panel(PANEL, "name_selected", view))
    panel(PANEL, "name_selected", view, selected=chosen)
    assert pfo.list_names(grouped, FIELD) == {"cat": 18, "lynx": 2}
    assert said(panel(PANEL, "take_back", view)) == "2 masks have their former names"
    panel(PANEL, "take_back", view)
    assert pfo.list_names(grouped, FIELD) == {}
    assert said(panel(PANEL, "take_back", view)) == "There is no name to take back"


def test_a_group_is_named_in_the_whole_dataset_whatever_is_in_view(
    panel, operator, context, grouped
):
    few = grouped.limit(2)
    panel(PANEL, "on_load", few)
    panel.state.update(group="1", name="cat")
    assert said(panel(PANEL, "name_group", few)) == "20 masks are named 'cat'"
    params = {"label_field": FIELD, "name": "dog", "scope": "group", "group": "2"}
    operator("name_instances").execute(context(few, params, **PAGE))
    assert pfo.list_names(grouped, FIELD) == {"cat": 20, "dog": 20}


def test_what_a_lasso_is_drawn_around_is_named(panel, operator, context, grouped):
    stage = "fiftyone.core.stages."
    ids = list(members(grouped, "2"))
    panel(PANEL, "on_load", grouped)
    panel.state["name"] = "cat"
    lasso = {"ids": ids[:5], "fields": [FIELD], "bool": True}
    ctx = panel(PANEL, "name_selected", grouped, extended={f"{stage}MatchLabels": lasso})
    assert said(ctx) == "5 masks are named 'cat'"
    assert {i for i, label in members(grouped, "2").items() if label.label == "cat"} == {*ids[:5]}
    panel.state["name"] = "dog"
    patches, lasso = grouped.to_patches(FIELD), {"sample_ids": ids[5:9]}
    ctx = panel(PANEL, "name_selected", patches, extended={f"{stage}Select": lasso})
    assert said(ctx) == "4 masks are named 'dog'"
    sort = {"query": ids[0], "brain_key": "no_key"}
    with pytest.raises(ValueError, match="nothing is selected"):
        operator("name_instances").execute(
            context(
                grouped,
                {"name": "cow", "label_field": FIELD},
                extended={f"{stage}SortBySimilarity": sort},
            )
        )
    accepted = operator("accept").execute(
        context(patches, {"label_field": FIELD}, extended={f"{stage}Select": lasso})
    )
    assert accepted == {"decided": 4}
    assert pfo.list_names(grouped, FIELD) == {"cat": 5, "dog": 4}


def test_the_panel_shows_the_nearest_unnamed_before_it_names_them(panel, fo, grouped):
    panel(PANEL, "on_load", grouped)
    assert "no mask of 'promerge'" in said(panel(PANEL, "show_nearest", grouped))
    one = next(iter(members(grouped, "1")))
    pfo.name_instances(grouped, FIELD, "cat", [one])
    ctx = panel(PANEL, "show_nearest", grouped)
    view, found = shown(ctx, fo), panel.state["found"]
    assert view.values("id") == found["ids"]
    assert 2 <= len(found["ids"]) <= 50
    assert pfo.list_names(grouped, FIELD) == {"cat": 1}, "nothing is named yet"
    wrong = found["ids"][:1]
    ctx = panel(PANEL, "propagate", view, selected=wrong)
    assert said(ctx) == f"{len(found['ids']) - 1} masks are named"
    assert pfo.list_names(grouped, FIELD) == {"cat": len(found["ids"])}
    assert shown(ctx, fo).values("id") == found["ids"][1:]
    assert panel.state["found"] is None


def test_the_panel_is_drawn_at_any_time(panel, fo, dataset, grouped):
    drawn = panel(PANEL, "on_load", grouped)
    text = str(asked(drawn).get("show_panel_output"))
    for label in ("Open group 1", "Name group 1", "50 nearest unnamed", "Merge group 1 with"):
        assert label in text
    grouped.set_values(f"{FIELD}.detections.group", [[None] * 3] * 20)
    drawn = panel(PANEL, "on_load", grouped)
    assert "No masks are grouped yet" in str(asked(drawn).get("show_panel_output"))
