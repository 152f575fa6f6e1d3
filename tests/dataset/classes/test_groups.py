"""Groups of masks, as attributes of labels."""

from collections import Counter

import numpy as np
import pytest
from fiftyone import ViewField as F

from promerge_fo import dataset as pfo
from tests.dataset.classes.made import FIELD, embed, fill, kinds_of, labels_of, vectors

DETECTIONS = f"{FIELD}.detections"


def groups_of(samples):
    return {i: label.group for i, label in labels_of(samples).items()}


def by_kind(samples):
    """For each kind the groups of its masks, and how many are in which."""
    kinds = kinds_of(samples)
    found = {kind: Counter() for kind in kinds.values()}
    for i, group in groups_of(samples).items():
        found[kinds[i]][group] += 1
    return found


def test_each_group_has_masks_of_one_kind(embedded):
    groups = pfo.group_instances(embedded, FIELD)
    assert 3 <= len(groups) <= 6
    kinds = [set(groups) for groups in by_kind(embedded).values()]
    assert sum(map(len, kinds)) == len(set.union(*kinds)) == len(groups)
    assert [each.name for each in groups] == [str(i + 1) for i in range(len(groups))]


def test_groups_are_listed_with_what_is_typical_of_them(embedded):
    groups = pfo.group_instances(embedded, FIELD, 3)
    assert [(each.name, each.size, each.names) for each in groups] == [
        (name, 20, {}) for name in "123"
    ]
    assert str(groups[0]) == "group 1: 20 masks"
    assert sorted(map(list, map(Counter.items, by_kind(embedded).values()))) == [
        [("1", 20)], [("2", 20)], [("3", 20)],
    ]  # fmt: skip
    labels = labels_of(embedded)
    assert all(0.7 < label.typicality <= 1 for label in labels.values())
    for group in groups:
        typical = [label.typicality for label in labels.values() if label.group == group.name]
        assert [labels[i].typicality for i in group.typical] == sorted(typical)[:-5:-1]
        for i, sample in zip(group.typical, group.sample_ids, strict=True):
            assert i in [label.id for label in embedded[sample][FIELD].detections]


def test_groups_are_attributes_that_the_app_filters_by(embedded):
    import fiftyone

    pfo.group_instances(embedded, FIELD, 3)
    kinds = {"group": fiftyone.StringField, "typicality": fiftyone.FloatField}
    for name, kind in kinds.items():
        assert isinstance(embedded.get_field(f"{DETECTIONS}.{name}"), kind)
    assert embedded.distinct(f"{DETECTIONS}.group") == ["1", "2", "3"]
    assert embedded.filter_labels(FIELD, F("group") == "2").count(DETECTIONS) == 20
    low, high = embedded.bounds(f"{DETECTIONS}.typicality")
    assert 0.7 < low < high <= 1


def test_the_same_again_and_the_number_given(embedded):
    pfo.group_instances(embedded, FIELD)
    before = groups_of(embedded)
    pfo.group_instances(embedded, FIELD)
    assert groups_of(embedded) == before
    assert [each.name for each in pfo.group_instances(embedded, FIELD, 5)] == list("12345")
    sizes = [each.size for each in pfo.group_instances(embedded, FIELD, 2)]
    assert sum(sizes) == 60
    assert sizes == sorted(sizes, reverse=True)
    assert pfo.list_groups(embedded, FIELD)[1].size == sizes[1]


def test_a_group_is_shown_most_or_least_typical_first(embedded):
    pfo.group_instances(embedded, FIELD, 3)
    group = pfo.list_groups(embedded, FIELD)[1]
    shown = pfo.view_group(embedded, FIELD, group.name)
    typicality = shown.values(f"{FIELD}.typicality")
    assert len(typicality) == 20
    assert typicality == sorted(typicality, reverse=True)
    assert shown.values("id")[:4] == group.typical
    assert set(shown.values(f"{FIELD}.group")) == {group.name}
    least = pfo.view_group(embedded, FIELD, group.name, "least typical", limit=3)
    assert least.values(f"{FIELD}.typicality") == typicality[:-4:-1]
    assert pfo.list_groups(shown, FIELD) == pfo.list_groups(embedded, FIELD)
    with pytest.raises(ValueError, match="has no group '9'; its groups are: 1, 2, 3"):
        pfo.view_group(embedded, FIELD, "9")
    with pytest.raises(ValueError, match="must be 'most typical' or 'least typical'"):
        pfo.view_group(embedded, FIELD, "1", "oddest")
    with pytest.raises(ValueError, match="limit is 0"):
        pfo.view_group(embedded, FIELD, "1", limit=0)


def test_groups_are_merged_and_split(embedded):
    pfo.group_instances(embedded, FIELD, 3)
    before = by_kind(embedded)
    merged = pfo.merge_groups(embedded, FIELD, ["2", "3"])
    assert (merged.name, merged.size) == ("2", 40)
    assert [each.size for each in pfo.list_groups(embedded, FIELD)] == [40, 20]
    typical = [x.typicality for x in labels_of(embedded).values() if x.group == "2"]
    assert max(typical) < 0.9, "two kinds are less alike than one"
    parts = pfo.split_group(embedded, FIELD, "2")
    assert sorted(each.name for each in parts) == ["2", "3"]
    assert [each.size for each in parts] == [20, 20]
    kinds = {kind: set(groups) for kind, groups in by_kind(embedded).items()}
    assert sorted(map(sorted, kinds.values())) == [["1"], ["2"], ["3"]]
    assert all(x.typicality > 0.7 for x in labels_of(embedded).values())
    assert {k for k, v in kinds.items() if v == {"1"}} == {k for k, v in before.items() if "1" in v}


def test_what_cannot_be_merged_or_split_changes_nothing(embedded):
    pfo.group_instances(embedded, FIELD, 3)
    before = groups_of(embedded)
    for groups in (["1"], [], ["1", "1"], "12"):
        with pytest.raises(ValueError, match="must be two or more different ones"):
            pfo.merge_groups(embedded, FIELD, groups)
    with pytest.raises(ValueError, match="has no group '8'"):
        pfo.merge_groups(embedded, FIELD, ["1", "8"])
    with pytest.raises(ValueError, match="has no group '8'"):
        pfo.split_group(embedded, FIELD, "8")
    with pytest.raises(ValueError, match="into is 1"):
        pfo.split_group(embedded, FIELD, "1", 1)
    with pytest.raises(ValueError, match="has 20 masks with an embedding, too few for 21 parts"):
        pfo.split_group(embedded, FIELD, "1", 21)
    assert groups_of(embedded) == before


def test_a_view_gets_groups_of_its_own(embedded):
    pfo.group_instances(embedded, FIELD, 3)
    before = groups_of(embedded)
    view = embedded.limit(10)
    inside = set(groups_of(view))
    groups = pfo.group_instances(view, FIELD, 2)
    assert {each.name for each in groups} == {"4", "5"}
    after = groups_of(embedded)
    assert all(after[i] in ("4", "5") for i in inside)
    assert {i: g for i, g in after.items() if i not in inside} == {
        i: g for i, g in before.items() if i not in inside
    }


def test_masks_without_an_embedding_or_with_nan_are_in_no_group(fo, dataset, caplog):
    fill(dataset, fo)
    given = vectors()
    given[0, 1, 3] = np.nan
    embed(dataset, given)
    first, second = list(dataset)[:2]
    label = second[FIELD].detections[0]
    label.mask = np.ones((2, 2), dtype=bool)  # painted since it was embedded
    second.save()
    pfo.group_instances(dataset, FIELD)
    found = groups_of(dataset)
    without = {i for i, group in found.items() if group is None}
    assert without == {first[FIELD].detections[1].id, label.id}
    assert all(labels_of(dataset)[i].typicality is None for i in without)
    assert sum(each.size for each in pfo.list_groups(dataset, FIELD)) == 58


def test_masks_that_were_deleted_meanwhile_do_no_harm(embedded, monkeypatch):
    from promerge_fo.dataset.classes import groups

    gone = embedded.first()[FIELD].detections[0].id
    find = groups.find_groups

    def delete_and_find(*args, **kwargs):
        embedded.delete_labels(ids=[gone], fields=FIELD)
        embedded.delete_samples([embedded.last().id])
        return find(*args, **kwargs)

    monkeypatch.setattr(groups, "find_groups", delete_and_find)
    found = pfo.group_instances(embedded, FIELD, 3)
    assert sum(each.size for each in found) == 56
    assert None not in groups_of(embedded).values()
    assert len(groups_of(embedded)) == 56
    monkeypatch.undo()
    assert sum(each.size for each in pfo.group_instances(embedded, FIELD)) == 56


def test_what_cannot_be_grouped_says_why(fo, dataset):
    fill(dataset, fo)
    with pytest.raises(ValueError, match=f"promerge embed {dataset.name} --label-field {FIELD}"):
        pfo.group_instances(dataset, FIELD)
    with pytest.raises(ValueError, match="'masks' does not exist"):
        pfo.group_instances(dataset, "masks")
    embed(dataset, np.ones((20, 3, 8)))
    with pytest.raises(ValueError, match="all 60 embeddings are equal"):
        pfo.group_instances(dataset, FIELD)
    embed(dataset, np.full((20, 3, 8), np.nan))
    with pytest.raises(ValueError, match="NaN"):
        pfo.group_instances(dataset, FIELD)
    embed(dataset, vectors())
    with pytest.raises(ValueError, match="61 groups of 60 masks"):
        pfo.group_instances(dataset, FIELD, 61)
    one = dataset.limit(1).select_labels(ids=[next(iter(labels_of(dataset)))])
    with pytest.raises(ValueError, match="one mask here; groups want at least two"):
        pfo.group_instances(one, FIELD)
    assert not dataset.has_field(f"{DETECTIONS}.group")
    dataset.set_values(FIELD, [fo.Detections()] * 20)
    with pytest.raises(ValueError, match="has no masks here"):
        pfo.group_instances(dataset, FIELD)
