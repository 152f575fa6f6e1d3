"""What people did to labels, when the images are segmented again."""

import numpy as np
import pytest

from promerge_fo import dataset as pfo
from promerge_fo.config import ProMergeConfig

FIELD = "promerge"


def model(**changes):
    return pfo.load_model(encoder="texture", config=ProMergeConfig(image_size=96, **changes))


@pytest.fixture
def images(fo, dataset, photographs):
    """Photographs with masks; a run with the filtering of :func:`other` makes the same and more."""
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    pfo.segment_dataset(dataset, model(), FIELD)
    return dataset


def labels_of(images):
    images.reload()
    return {label.id: label for sample in images for label in sample[FIELD].detections}


def test_masks_that_stay_keep_what_people_did_to_them(images):
    first, second, *rest = labels_of(images)
    pfo.accept(images, FIELD, [first], reviewer="Ada")
    pfo.reject(images, FIELD, [first], reviewer="Bob")
    images.select_labels(ids=[second], fields=FIELD).tag_labels("nice", label_fields=FIELD)
    named = images.select_labels(ids=[second], fields=FIELD).first()
    named[FIELD].detections[0].label = "cat"
    named.save()
    before = labels_of(images)
    # the same masks by another name: the seed is not used by this prompting
    report = pfo.segment_dataset(images, model(seed=1), FIELD)
    assert sum(report.counts.values()) == len(images)
    after = labels_of(images)
    assert {first, second} <= after.keys()
    assert not set(rest) & after.keys()
    for name in ("review", "reviewer", "reviewed_at"):
        assert after[first][name] == before[first][name] is not None
    assert (after[second].tags, after[second].label) == (["nice"], "cat")
    assert pfo.undo(images, FIELD) == 1
    assert labels_of(images)[first].review == "accepted"


def test_a_run_that_would_lose_a_decision_changes_nothing_and_says_so(images):
    decided = list(labels_of(images))
    pfo.accept(images, FIELD, decided, reviewer="Ada")
    runs, before = pfo.list_runs(images), images.values(f"{FIELD}.run")
    strict = model(min_component_ratio=1.0, tau_b=0.5)
    with pytest.raises(pfo.DecisionsLostError, match="drop_decisions=True") as told:
        pfo.segment_dataset(images, strict, FIELD)
    assert f"people have worked on {len(decided)} masks of 'promerge'" in str(told.value)
    assert images.values(f"{FIELD}.run") == before
    assert pfo.list_runs(images) == runs
    assert pfo.review_progress(images, FIELD).accepted == len(decided)

    pfo.segment_dataset(images, strict, FIELD, drop_decisions=True)
    kept = pfo.review_progress(images, FIELD).accepted
    assert kept < len(decided)
    assert set(images.values(f"{FIELD}.run")) == {strict.hash}
    images.reload()
    old = runs[0]
    count = pfo.restore_decisions(images, old)
    assert count == len(decided) - kept
    assert pfo.review_progress(images, FIELD).accepted == len(decided)
    assert set(decided) <= labels_of(images).keys()
    assert pfo.restore_decisions(images, old) == count, "it does no harm twice"
    assert pfo.review_progress(images, FIELD).accepted == len(decided)
    assert len(labels_of(images)) == len(set(labels_of(images)))


def test_a_label_that_cannot_be_used_is_not_in_the_way_of_a_run(images):
    sample = images.first()
    label = sample[FIELD].detections[0].id
    pfo.accept(images, FIELD, [label], reviewer="Ada")
    update = {"$set": {f"{FIELD}.detections.0.bounding_box": [0.1, 0.2, 0.3]}}
    images._sample_collection.update_one({"_id": sample._id}, update)
    images.reload()
    with pytest.raises(pfo.DecisionsLostError, match="people have worked on 1 masks"):
        pfo.segment_dataset(images, model(seed=1), FIELD)
    report = pfo.segment_dataset(images, model(seed=1), FIELD, drop_decisions=True)
    assert sum(report.counts.values()) == len(images)


def test_masks_made_anew_by_the_same_settings_keep_decisions(images):
    decided = list(labels_of(images))
    pfo.reject(images, FIELD, decided)
    pfo.segment_dataset(images, model(), FIELD, overwrite=True)
    assert pfo.review_progress(images, FIELD).rejected == len(decided)
    pfo.segment_dataset(images, model(), FIELD)
    assert pfo.review_progress(images, FIELD).rejected == len(decided)


def test_an_import_that_replaces_them_keeps_decisions_or_nothing_is_changed(images, tmp_path):
    decided = list(labels_of(images))
    pfo.export_pseudo_labels(images, FIELD, tmp_path / "all.json", min_area=0)
    pfo.accept(images, FIELD, decided)
    pfo.import_predictions(images, tmp_path / "all.json", FIELD, overwrite=True)
    assert set(labels_of(images)) == set(decided)
    assert pfo.review_progress(images, FIELD).accepted == len(decided)
    pfo.export_pseudo_labels(images, FIELD, tmp_path / "few.json", min_area=0, max_per_image=1)
    few = (images, tmp_path / "few.json", FIELD)
    with pytest.raises(pfo.DecisionsLostError, match="Nothing was changed"):
        pfo.import_predictions(*few, overwrite=True)
    assert pfo.review_progress(images, FIELD).accepted == len(decided)
    runs = pfo.list_runs(images)
    pfo.import_predictions(*few, overwrite=True, drop_decisions=True)
    kept = pfo.review_progress(images, FIELD)
    assert kept.accepted == kept.total < len(decided)
    assert pfo.restore_decisions(images, runs[-1]) == len(decided) - kept.total


def test_a_painted_mask_stays_where_the_new_one_nearly_equals_it(images, fo):
    pfo.enable_annotation(images, FIELD)
    sample = images.first()
    label = sample[FIELD].detections[0]
    painted = np.repeat(np.repeat(label.mask.astype(np.uint8), 2, axis=0), 2, axis=1)
    painted[:2] = 1
    label.mask = painted
    sample.save()
    pfo.segment_dataset(images, model(seed=1), FIELD)
    after = labels_of(images)[label.id]
    assert after.mask.dtype == np.uint8
    np.testing.assert_array_equal(after.mask, painted)


def test_what_the_app_writes_back_does_not_undo_decisions(images):
    """As the Annotate tab does: it writes the attributes of the label that it holds."""
    label_id, other = list(labels_of(images))[:2]
    pfo.accept(images, FIELD, [label_id], reviewer="Ada")
    held = labels_of(images)[label_id]
    pfo.reject(images, FIELD, [label_id], reviewer="Bob")
    pfo.accept(images, FIELD, [other])
    view = images.select_labels(ids=[label_id], fields=FIELD)
    for name in ("review", "reviewer", "reviewed_at"):
        view.set_values(f"{FIELD}.detections.{name}", [[held[name]]])
    assert labels_of(images)[label_id].review == "accepted"
    progress = pfo.review_progress(images, FIELD)
    assert (progress.accepted, progress.rejected) == (1, 1)
    label = labels_of(images)[label_id]
    assert (label.review, label.reviewer) == ("rejected", "Bob")

    assert pfo.undo(images, FIELD) == 1
    assert pfo.undo(images, FIELD) == 1
    assert labels_of(images)[label_id].review == "accepted"


def test_names_are_handed_on_to_the_masks_of_the_next_run(images):
    first, second, third, *_ = labels_of(images)
    pfo.name_instances(images, FIELD, "cat", [first, second])
    pfo.name_instances(images, FIELD, "lion", [first])
    before, old_run = labels_of(images), images.first()[FIELD].run
    pfo.segment_dataset(images, model(seed=1), FIELD)
    after = labels_of(images)
    assert {first, second} <= after.keys()
    assert third not in after
    for label_id, name, former in ((first, "lion", "cat"), (second, "cat", "fg")):
        label = after[label_id]
        assert (label.label, label.former_label, label.named_by) == (name, former, "hand")
        assert label.named_at == before[label_id].named_at
        assert label.name_from_run == old_run != images.first()[FIELD].run
    assert all(label.label == "fg" for i, label in after.items() if i not in (first, second))
    assert pfo.undo_names(images, FIELD) == 1
    assert pfo.list_names(images, FIELD) == {"cat": 2}


def test_a_run_that_would_lose_a_name_changes_nothing_and_says_so(images):
    pfo.name_instances(images, FIELD, "thing")
    strict = model(min_component_ratio=1.0, tau_b=0.5)
    with pytest.raises(pfo.DecisionsLostError, match="decisions, names, tags"):
        pfo.segment_dataset(images, strict, FIELD)
    (total,) = pfo.list_names(images, FIELD).values()
    runs = pfo.list_runs(images)
    pfo.segment_dataset(images, strict, FIELD, drop_decisions=True)
    (kept,) = pfo.list_names(images, FIELD).values()
    assert 0 < kept < total
    assert pfo.restore_decisions(images, runs[0]) == total - kept
    assert pfo.list_names(images, FIELD) == {"thing": total}


def test_what_the_app_writes_back_does_not_undo_names(images):
    label_id, other = list(labels_of(images))[:2]
    pfo.name_instances(images, FIELD, "cat", [label_id])
    held = labels_of(images)[label_id]
    pfo.name_instances(images, FIELD, "lion", [label_id])
    pfo.name_instances(images, FIELD, "dog", [other])
    view = images.select_labels(ids=[label_id], fields=FIELD)
    for name in ("label", "former_label", "named_by", "named_at"):
        view.set_values(f"{FIELD}.detections.{name}", [[held[name]]])
    assert labels_of(images)[label_id].label == "cat"
    assert pfo.list_names(images, FIELD) == {"dog": 1, "lion": 1}
    assert labels_of(images)[label_id].label == "lion"
    assert labels_of(images)[label_id].former_label == "cat"


def test_a_name_that_is_changed_in_the_app_stays(images):
    label_id = next(iter(labels_of(images)))
    pfo.name_instances(images, FIELD, "cat", [label_id])
    view = images.select_labels(ids=[label_id], fields=FIELD)
    view.set_values(f"{FIELD}.detections.label", [["tomcat"]])
    assert pfo.list_names(images, FIELD) == {"tomcat": 1}
    pfo.segment_dataset(images, model(seed=1), FIELD)
    assert pfo.list_names(images, FIELD) == {"tomcat": 1}


def test_an_import_names_what_was_accepted_but_had_no_name(images, tmp_path):
    pfo.accept(images, FIELD, list(labels_of(images)))
    pfo.export_pseudo_labels(images, FIELD, tmp_path / "all.json", min_area=0)
    named = {"overwrite": True, "class_names": {1: "cat"}}
    pfo.import_predictions(images, tmp_path / "all.json", FIELD, **named)
    assert {label.label for label in labels_of(images).values()} == {"cat"}
    assert pfo.review_progress(images, FIELD).accepted == len(labels_of(images))
