"""Panels open in one column beside the grid, wide enough to be read, the runs below the others."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture
def opened(fo, operator, context, dataset):
    """The App's spaces after panels were opened one after the other: ``opened("promerge_runs")``.

    FiftyOne's own request, which halves the window, is carried out as the App does.
    """
    module = type(operator("promerge_review")).__module__
    places = sys.modules[f"{module.rpartition('.')[0]}.places"]

    def run(*names, spaces=None):
        spaces = spaces or fo.Space(children=[fo.Panel(type="Samples", pinned=True)])
        for name in names:
            ctx = context(dataset, spaces=spaces.to_dict())
            places.open_panel(ctx, name)
            (asked,) = ctx.executor._requests
            if asked.operator_uri.endswith("set_spaces"):
                spaces = fo.Space.from_dict(asked.params["spaces"])
            elif asked.params.get("layout"):
                new = fo.Space(children=[fo.Panel(type=asked.params["name"])])
                spaces = fo.Space(children=[spaces, new], orientation="horizontal")
        return shape(spaces)

    return run


def shape(space):
    """Panels by name; spaces as lists, those of tabs with the one in front first."""
    kinds = [child if hasattr(child, "type") else None for child in space.children]
    if None in kinds:
        return [space.orientation, *map(shape, space.children)]
    in_front = [k.type for k in kinds if k.component_id == space.active_child]
    return in_front + [k.type for k in kinds if k.type not in in_front]


def test_the_first_panel_halves_the_window(opened):
    assert opened("promerge_review") == ["horizontal", ["Samples"], ["promerge_review"]]


def test_panels_share_a_column_with_the_runs_below(opened):
    right = ["vertical", ["promerge_compare", "promerge_review"], ["promerge_runs"]]
    for names in (
        ("promerge_runs", "promerge_review", "promerge_compare"),
        ("promerge_review", "promerge_runs", "promerge_compare"),
        ("promerge_review", "promerge_compare", "promerge_runs"),
    ):
        columns = opened(*names)
        assert columns[:2] == ["horizontal", ["Samples"]]
        top, below = columns[2][1:]
        assert columns[2][0] == "vertical" and below == ["promerge_runs"]
        assert set(top) == set(right[1])


def test_a_new_panel_is_in_front(opened):
    names = ("promerge_review", "promerge_runs", "promerge_groups", "promerge_training")
    *_, right = opened(*names)
    assert right[1] == ["promerge_training", "promerge_review", "promerge_groups"]


def test_the_map_stays_in_view_beside_the_groups(opened):
    both = ["Embeddings"], ["promerge_groups"]
    columns = opened("promerge_runs", "promerge_groups", "Embeddings")
    assert columns[2] == ["vertical", ["vertical", *both], ["promerge_runs"]]
    columns = opened("promerge_runs", "Embeddings", "promerge_groups")
    assert columns[2] == ["vertical", both[0], ["vertical", both[1], ["promerge_runs"]]]


def test_what_is_open_is_brought_to_the_front_and_stays_where_it_is(opened, fo):
    panels = [fo.Panel(type="Samples", pinned=True), fo.Panel(type="promerge_runs")]
    tabs = ["Samples", "promerge_runs"]
    assert opened("promerge_runs", spaces=fo.Space(children=panels)) == tabs
    mine = fo.Space(children=[*panels, fo.Panel(type="Histograms")], active_child=None)
    assert opened("promerge_runs", spaces=mine) == [*tabs, "Histograms"]


def test_a_page_that_sends_no_spaces(operator, context, dataset):
    module = type(operator("promerge_review")).__module__
    ctx = context(dataset)
    sys.modules[f"{module.rpartition('.')[0]}.places"].open_panel(ctx, "promerge_runs")
    (asked,) = ctx.executor._requests
    assert (asked.params["name"], asked.params["layout"]) == ("promerge_runs", "horizontal")
