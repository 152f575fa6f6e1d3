"""Names of masks: given, spread, taken back, and handed on to the next run."""

import numpy as np
import pytest

from promerge_fo import dataset as pfo
from promerge_fo.dataset.database import documents
from tests.dataset.classes.made import FIELD, KINDS, embed, fill, kinds_of, labels_of, vectors


def stored(samples):
    """The labels as the database stores them, by their ids."""
    found = documents(samples, {}, FIELD)
    return {str(x["_id"]): x for each in found for x in each[FIELD]["detections"]}


def of_kind(samples, kind):
    return [i for i, each in kinds_of(samples).items() if each == kind]


def names_of(samples):
    return {i: label.label for i, label in labels_of(samples).items()}


def test_masks_are_named_by_hand_and_keep_what_they_were_called(embedded):
    cats = of_kind(embedded, "cat")
    assert pfo.name_instances(embedded, FIELD, " tom cat ", cats[:3]) == 3
    labels = labels_of(embedded)
    assert {i for i, label in labels.items() if label.label == "tom cat"} == set(cats[:3])
    named = labels[cats[0]]
    assert (named.former_label, named.named_by, named.name_distance) == ("fg", "hand", None)
    assert named.named_at is not None
    assert pfo.name_instances(embedded, FIELD, "lynx", cats[:1]) == 1
    assert labels_of(embedded)[cats[0]].former_label == "tom cat"
    assert pfo.list_names(embedded, FIELD) == {"tom cat": 2, "lynx": 1}
    for name in ("named_by", "named_at", "name_distance", "former_label"):
        assert embedded.get_field(f"{FIELD}.detections.{name}") is not None


def test_a_view_and_patches_are_named(embedded):
    assert pfo.name_instances(embedded.limit(2), FIELD, "thing") == 6
    assert pfo.list_names(embedded, FIELD) == {"thing": 6}
    patches = embedded.to_patches(FIELD).limit(8)
    assert pfo.name_instances(patches, FIELD, "part", patches.values("id")[5:7]) == 2
    assert patches.values(f"{FIELD}.label")[4:] == ["thing", "part", "part", "fg"]
    assert pfo.list_names(embedded, FIELD) == {"thing": 5, "part": 2}
    assert pfo.name_instances(patches, FIELD, "all") == 8
    assert pfo.list_names(embedded, FIELD) == {"all": 8}
    assert pfo.undo_names(patches, FIELD) == 8
    assert patches.values(f"{FIELD}.label")[4:] == ["thing", "part", "part", "fg"]
    assert pfo.list_names(embedded, FIELD) == {"thing": 5, "part": 2}


def test_groups_are_named(embedded):
    pfo.group_instances(embedded, FIELD, 3)
    members = {i for i, label in labels_of(embedded).items() if label.group in ("1", "3")}
    assert pfo.name_groups(embedded, FIELD, "animal", ["1", "3"]) == 40
    labels = labels_of(embedded)
    assert {i for i, label in labels.items() if label.label == "animal"} == members
    assert {labels[i].named_by for i in members} == {"group"}
    names = {each.name: each.names for each in pfo.list_groups(embedded, FIELD)}
    assert names == {"1": {"animal": 20}, "2": {}, "3": {"animal": 20}}
    shown = pfo.view_group(embedded, FIELD, "2", limit=5)
    assert pfo.name_groups(shown, FIELD, "car", "2") == 20, "more than are shown"
    assert set(shown.values(f"{FIELD}.label")) == {"car"}
    with pytest.raises(ValueError, match="has no group '7'; its groups are: 1, 2, 3"):
        pfo.name_groups(embedded, FIELD, "car", ["1", "7"])


def test_names_spread_to_the_nearest_masks_that_have_none(embedded):
    kinds = kinds_of(embedded)
    for kind in KINDS:
        pfo.name_instances(embedded, FIELD, kind, of_kind(embedded, kind)[:2])
    found = pfo.nearest_unnamed(embedded, FIELD, "dog", limit=5, max_distance=0.5)
    assert len(found) == 5
    assert [kinds[i] for i in found.ids] == found.names == ["dog"] * 5
    assert found.distances == sorted(found.distances)
    before = stored(embedded)
    shown = pfo.view_nearest(embedded, FIELD, found)
    assert shown.values("id") == found.ids
    assert stored(embedded) == before, "looking changes nothing"

    named = pfo.propagate_names(shown, FIELD, found.without(found.ids[1:3]))
    assert named == 3
    assert shown.values(f"{FIELD}.label") == ["dog", "fg", "fg", "dog", "dog"]
    labels = labels_of(embedded)
    assert [labels[i].label for i in found.ids] == ["dog", "fg", "fg", "dog", "dog"]
    for i, distance in zip(found.ids, found.distances, strict=True):
        if labels[i].label == "dog":
            assert (labels[i].named_by, labels[i].name_distance) == ("propagation", distance)
    rest = pfo.nearest_unnamed(embedded, FIELD, limit=None, max_distance=0.5)
    assert len(rest) == 60 - 9
    assert pfo.propagate_names(embedded, FIELD, rest) == 51
    assert names_of(embedded) == kinds


def test_distances_are_those_of_the_embeddings_and_names_stop_at_one(embedded):
    dogs = of_kind(embedded, "dog")
    pfo.name_instances(embedded, FIELD, "dog", dogs[:1])
    embeddings = pfo.read_embeddings(embedded, FIELD)
    at = embeddings.label_ids.tolist().index(dogs[0])
    distances = 1 - embeddings.vectors @ embeddings.vectors[at]
    expected = dict(zip(embeddings.label_ids.tolist(), distances.tolist(), strict=True))
    everything = pfo.nearest_unnamed(embedded, FIELD, limit=None, max_distance=2)
    assert len(everything) == 59
    assert everything.distances == pytest.approx([expected[i] for i in everything.ids], abs=1e-4)
    stop = everything.distances[7]
    some = pfo.nearest_unnamed(embedded, FIELD, limit=None, max_distance=stop + 1e-4)
    assert some.ids == everything.ids[:8]
    by_default = pfo.nearest_unnamed(embedded, FIELD, limit=None)
    kinds = kinds_of(embedded)
    assert {kinds[i] for i in by_default.ids} == {"dog"}, (
        "10 % of all pairs are nearer than other kinds"
    )
    assert 0 < by_default.max_distance < 0.5


def test_undo_restores_exactly(embedded):
    pfo.group_instances(embedded, FIELD, 3)
    pfo.accept(embedded, FIELD, [next(iter(labels_of(embedded)))], "Ada")
    stages = [stored(embedded)]
    ids = list(labels_of(embedded))
    pfo.name_instances(embedded, FIELD, "one", ids[:5])
    stages.append(stored(embedded))
    pfo.name_groups(embedded, FIELD, "two", ["1"])
    stages.append(stored(embedded))
    pfo.propagate_names(embedded, FIELD, pfo.nearest_unnamed(embedded, FIELD, limit=10))
    stages.append(stored(embedded))
    pfo.name_instances(embedded, FIELD, "everything")
    for before in reversed(stages):
        assert pfo.undo_names(embedded, FIELD) > 0
        assert stored(embedded) == before
    assert pfo.undo_names(embedded, FIELD) == 0
    assert pfo.review_progress(embedded, FIELD).accepted == 1


def test_undo_in_a_view_changes_its_labels_alone(embedded):
    pfo.name_instances(embedded, FIELD, "thing")
    assert pfo.undo_names(embedded.limit(3), FIELD) == 9
    assert pfo.list_names(embedded, FIELD) == {"thing": 51}


def test_names_that_are_none_are_refused(embedded):
    for name in ("", "  ", "two\nlines"):
        with pytest.raises(ValueError, match="one line of text that is not empty"):
            pfo.name_instances(embedded, FIELD, name)
        with pytest.raises(ValueError, match="one line of text that is not empty"):
            pfo.name_groups(embedded, FIELD, name, ["1"])
    with pytest.raises(ValueError, match="'fg', which masks without a name are called"):
        pfo.name_instances(embedded, FIELD, "fg")
    with pytest.raises(ValueError, match="ids must be those of labels"):
        pfo.name_instances(embedded, FIELD, "cat", ["no id"])
    with pytest.raises(ValueError, match="'masks' does not exist"):
        pfo.name_instances(embedded, "masks", "cat")
    with pytest.raises(ValueError, match="has no group '1'; its groups are: none; promerge group"):
        pfo.name_groups(embedded, FIELD, "cat", ["1"])
    with pytest.raises(ValueError, match=r"has a name; the names are: none\. promerge name"):
        pfo.nearest_unnamed(embedded, FIELD)
    ids = list(labels_of(embedded))
    assert pfo.name_instances(embedded, FIELD, "cat", ["0" * 24]) == 0
    assert pfo.name_instances(embedded, FIELD, "cat", ids[:1]) == 1
    with pytest.raises(ValueError, match="has the name 'dog'; the names are: cat"):
        pfo.nearest_unnamed(embedded, FIELD, "dog")
    with pytest.raises(ValueError, match="the limit is 0"):
        pfo.nearest_unnamed(embedded, FIELD, limit=0)
    with pytest.raises(ValueError, match="max_distance is 3"):
        pfo.nearest_unnamed(embedded, FIELD, max_distance=3)
    assert pfo.name_instances(embedded, FIELD, "$cat.1", ids[1:2]) == 1, "no expression"
    assert labels_of(embedded)[ids[1]].label == "$cat.1"
    found = pfo.nearest_unnamed(embedded, FIELD, "$cat.1", limit=1)
    assert pfo.propagate_names(embedded, FIELD, found) == 1
    assert labels_of(embedded)[found.ids[0]].label == "$cat.1"


def test_masks_that_were_deleted_since_they_were_shown_are_not_named(embedded):
    dogs = of_kind(embedded, "dog")
    pfo.name_instances(embedded, FIELD, "dog", dogs[:1])
    found = pfo.nearest_unnamed(embedded, FIELD, "dog", limit=4, max_distance=1)
    embedded.delete_labels(ids=found.ids[:1], fields=FIELD)
    assert pfo.propagate_names(embedded, FIELD, found) == 3
    assert pfo.name_instances(embedded, FIELD, "cat", [found.ids[0], dogs[1]]) == 1


def test_masks_without_embeddings_can_be_named_but_not_spread(fo, dataset):
    fill(dataset, fo)
    assert pfo.name_instances(dataset, FIELD, "dog", of_kind(dataset, "dog")[:1]) == 1
    with pytest.raises(ValueError, match=f"promerge embed {dataset.name} --label-field {FIELD}"):
        pfo.nearest_unnamed(dataset, FIELD)
    given = vectors()
    given[0] = np.nan  # the dog's
    embed(dataset, given)
    with pytest.raises(ValueError, match=r"no mask .* that has an embedding has a name"):
        pfo.nearest_unnamed(dataset, FIELD)


def test_names_are_saved_as_views_and_tags_that_exports_take(fo, embedded, tmp_path):
    from fiftyone import ViewField as F

    kinds = kinds_of(embedded)
    cats = [i for i, kind in kinds.items() if kind == "cat"]
    pfo.name_instances(embedded, FIELD, "cat", cats[:4])
    view = embedded.filter_labels(FIELD, F("label") == "cat")
    embedded.save_view("cats", view)
    view.tag_labels("animal", FIELD)
    pfo.name_instances(embedded, FIELD, "cat", cats[4:6])
    saved = embedded.load_saved_view("cats")
    assert set(saved.values(f"{FIELD}.detections.id", unwind=True)) == {*cats[:6]}
    options = {"min_area": 0, "classes": ["cat"]}
    path = tmp_path / "cats.json"
    assert pfo.export_pseudo_labels(saved, FIELD, path, **options)["annotations"] == 6
    tagged = pfo.export_pseudo_labels(embedded, FIELD, path, tags=["animal"], **options)
    assert tagged["annotations"] == 4
