"""Decisions on labels, their undoing and their counts, against the database."""

from __future__ import annotations

import json

import numpy as np
import pytest
from bson import ObjectId

from promerge_fo import dataset as pfo

SCORES = [[0.9, 0.1, 0.5], [0.3], [], [0.7, 0.05]]


@pytest.fixture
def labelled(fo, dataset):
    """Four samples whose labels have the SCORES; areas fall from 0.4 by halves."""
    area = 0.8
    samples = []
    for i, scores in enumerate(SCORES):
        detections = []
        for score in scores:
            area /= 2
            detections.append(
                fo.Detection(label="fg", confidence=score, bounding_box=[0, 0, 1, 1], area=area)
            )
        samples.append(
            fo.Sample(
                filepath=f"/nowhere/{i}.png",
                metadata=fo.ImageMetadata(width=10, height=10),
                promerge=fo.Detections(detections=detections),
            )
        )
    dataset.add_samples(samples)
    return dataset


def ids(samples, path="promerge.detections.id"):
    return samples.values(path, unwind=True)


def reviews(samples, path="promerge.detections.review"):
    return samples.values(path, unwind=True)


def counts(samples):
    progress = pfo.review_progress(samples, "promerge")
    return progress.total, progress.accepted, progress.rejected


def test_decisions_stand_on_the_labels_and_in_the_schema(labelled):
    first, second, *_, last = ids(labelled)
    assert pfo.accept(labelled, "promerge", [first, last], reviewer="Ada") == 2
    assert pfo.reject(labelled, "promerge", [second]) == 1
    assert reviews(labelled) == ["accepted", "rejected", None, None, None, "accepted"]
    reviewers = labelled.values("promerge.detections.reviewer", unwind=True)
    assert reviewers == ["Ada", None, None, None, None, "Ada"]
    times = labelled.values("promerge.detections.reviewed_at", unwind=True)
    assert times[0] == times[5] < times[1] and times[2:5] == [None] * 3
    schema = labelled.get_field_schema(flat=True)
    for name in ("review", "reviewer", "reviewed_at"):
        assert f"promerge.detections.{name}" in schema
    assert "promerge.detections.review_past" not in schema


def test_objects_in_memory_see_decisions(labelled):
    sample = labelled.first()
    pfo.accept(labelled, "promerge", [sample.promerge.detections[1].id])
    assert sample.promerge.detections[1].review == "accepted"
    assert sample.promerge.detections[1].confidence == 0.1


def test_progress_counts_and_reads(labelled):
    assert str(pfo.review_progress(labelled, "promerge")) == "0 of 6"
    pfo.accept(labelled, "promerge", ids(labelled)[:2])
    pfo.reject(labelled, "promerge", ids(labelled)[4:5])
    patches = labelled.to_patches("promerge")
    for samples in (labelled, patches):
        progress = pfo.review_progress(samples, "promerge")
        assert (progress.total, progress.accepted, progress.rejected) == (6, 2, 1)
    assert (progress.decided, progress.undecided) == (3, 3)
    assert str(progress) == "3 of 6, 67 % accepted"
    assert counts(labelled[:1]) == (3, 2, 0)
    assert counts(labelled.limit(0)) == (0, 0, 0)


def test_a_filter_is_decided_on_whole(labelled):
    from fiftyone import ViewField as F

    doubtful = labelled.filter_labels("promerge", F("confidence") < 0.4)
    assert pfo.reject(doubtful, "promerge", reviewer="Ada") == 3
    wanted = [None, "rejected", None, "rejected", None, "rejected"]
    assert reviews(labelled) == wanted
    undecided = labelled.filter_labels("promerge", F("review") == None)  # noqa: E711
    assert pfo.accept(undecided, "promerge") == 3
    assert counts(labelled) == (6, 3, 3)
    assert pfo.accept(labelled.limit(0), "promerge") == 0


def test_undo_goes_back_decision_by_decision(labelled):
    first, second, third, *_ = ids(labelled)
    pfo.accept(labelled, "promerge", [first, second], reviewer="Ada")
    pfo.reject(labelled, "promerge", reviewer="Bo")
    pfo.accept(labelled, "promerge", [third])
    assert reviews(labelled)[:3] == ["rejected", "rejected", "accepted"]
    assert pfo.undo(labelled, "promerge") == 1
    assert reviews(labelled) == ["rejected"] * 6
    assert pfo.undo(labelled, "promerge") == 6
    assert reviews(labelled) == ["accepted", "accepted", None, None, None, None]
    assert labelled.values("promerge.detections.reviewer", unwind=True)[:3] == ["Ada", "Ada", None]
    assert pfo.undo(labelled, "promerge") == 2
    assert counts(labelled) == (6, 0, 0)
    assert pfo.undo(labelled, "promerge") == 0


def test_accepting_and_rejecting_at_once_is_one_decision(labelled):
    a, b, c, *_ = ids(labelled)
    assert pfo.decide(labelled, "promerge", [a, b], [c], reviewer="Ada") == 3
    assert reviews(labelled)[:3] == ["accepted", "accepted", "rejected"]
    assert pfo.undo(labelled, "promerge") == 3
    with pytest.raises(ValueError, match=f"1 labels .* such as {a}"):
        pfo.decide(labelled, "promerge", [a], [a])


def test_undo_is_there_for_those_who_come_later(fo, labelled):
    """Nothing but the database is needed, and clones have the history too."""
    pfo.accept(labelled, "promerge", ids(labelled)[:1])
    pfo.reject(labelled, "promerge", ids(labelled)[:1])
    clone = labelled.clone()
    assert pfo.undo(clone, "promerge") == 1
    assert reviews(clone)[0] == "accepted" and reviews(labelled)[0] == "rejected"
    clone.delete()


def test_undo_within_a_view_leaves_the_others(labelled):
    pfo.accept(labelled, "promerge")
    assert pfo.undo(labelled[:1], "promerge") == 3
    assert reviews(labelled) == [None] * 3 + ["accepted"] * 3


def test_a_label_keeps_its_twenty_latest_decisions(labelled):
    label = ids(labelled)[0]
    for _ in range(12):
        pfo.accept(labelled, "promerge", [label])
        pfo.reject(labelled, "promerge", [label])
    undone = []
    while pfo.undo(labelled, "promerge"):
        undone.append(reviews(labelled)[0])
    assert undone == ["accepted", "rejected"] * 10 + [None]


def test_names_are_taken_as_they_are(labelled):
    pfo.accept(labelled, "promerge", ids(labelled)[:1], reviewer="$filepath")
    assert labelled.first().promerge.detections[0].reviewer == "$filepath"


def test_wrong_ids_and_fields_are_refused(fo, labelled):
    assert pfo.accept(labelled, "promerge", [str(ObjectId())]) == 0
    with pytest.raises(ValueError, match="ids must be those of labels: 'nonsense'"):
        pfo.accept(labelled, "promerge", ["nonsense"])
    with pytest.raises(ValueError, match="'nothing' does not exist.* that do: 'promerge'"):
        pfo.accept(labelled, "nothing")
    with pytest.raises(ValueError, match="'filepath' holds"):
        pfo.review_queue(labelled.to_patches("promerge"), "filepath")
    video = fo.Dataset()
    video.add_sample(fo.Sample(filepath="/nowhere/a.mp4"))
    with pytest.raises(fo.core.media.MediaTypeError, match="to_frames"):
        pfo.review_progress(video, "promerge")
    video.delete()


def test_the_queue_is_ordered_by_doubt_and_holds_what_is_undecided(labelled):
    queue = pfo.review_queue(labelled, "promerge", limit=4)
    assert queue.values("promerge.confidence") == [0.05, 0.1, 0.3, 0.5]
    pfo.accept(queue, "promerge", queue.values("id")[:3], reviewer="Ada")
    assert queue.values("promerge.review") == ["accepted"] * 3 + [None]
    assert sorted(filter(None, reviews(labelled))) == ["accepted"] * 3
    queue = pfo.review_queue(labelled, "promerge", limit=4)
    assert queue.values("promerge.confidence") == [0.5, 0.7, 0.9]
    pfo.reject(queue, "promerge")
    assert counts(labelled) == (6, 3, 3)
    assert len(pfo.review_queue(labelled, "promerge")) == 0


def test_the_queue_by_size_starts_with_the_oddest(fo, labelled):
    first = labelled.first()
    first.promerge.detections.append(
        fo.Detection(label="fg", bounding_box=[0, 0, 0.1, 0.01], confidence=0.5)
    )
    first.save()
    areas = pfo.review_queue(labelled, "promerge", "size").values("promerge.area")
    assert areas[0] is None  # its box has 0.001 of the image, 50 times less than the median
    median = 0.05  # of 0.4, 0.2, 0.1, 0.05, 0.025, 0.0125, 0.001
    odd = [abs(np.log(area / median)) for area in areas[1:]]
    np.testing.assert_allclose(odd, np.log([8, 4, 4, 2, 2, 1]), atol=1e-9)


def test_the_queue_by_typicality_starts_with_the_least_typical_of_any_group(fo, labelled):
    with pytest.raises(ValueError, match="'promerge' are in no groups.*promerge group"):
        pfo.review_queue(labelled, "promerge", "typicality")
    typicality = [[0.9, 0.2, None], [0.4], None, [0.8, 0.1]]
    groups = [["1", "2", None], ["1"], None, ["2", "1"]]
    labelled.set_values("promerge.detections.group", groups, dynamic=True)
    labelled.set_values("promerge.detections.typicality", typicality, dynamic=True)
    queue = pfo.review_queue(labelled, "promerge", "typicality", limit=3)
    assert queue.values("promerge.typicality") == [0.1, 0.2, 0.4]
    assert queue.values("promerge.group") == ["1", "2", "1"]
    pfo.reject(queue, "promerge")
    queue = pfo.review_queue(labelled, "promerge", "typicality")
    assert queue.values("promerge.typicality") == [0.8, 0.9, None]
    of_patches = pfo.review_queue(labelled.to_patches("promerge"), "promerge", "typicality")
    assert of_patches.values("promerge.typicality") == [0.8, 0.9, None]


def test_labels_without_a_score_come_last(fo, labelled):
    sample = labelled.first()
    sample.promerge.detections[1].confidence = None
    sample.save()
    queue = pfo.review_queue(labelled, "promerge")
    assert queue.values("promerge.confidence") == [0.05, 0.3, 0.5, 0.7, 0.9, None]


def test_the_queue_of_a_view_has_only_its_labels(labelled):
    view = pfo.select_between(labelled, "promerge", "score", 0.1, 0.7)
    queue = pfo.review_queue(view, "promerge")
    assert queue.values("promerge.confidence") == [0.1, 0.3, 0.5]
    patches = labelled.to_patches("promerge")
    assert pfo.review_queue(patches, "promerge", limit=2).values("promerge.confidence") == [
        0.05,
        0.1,
    ]


def test_undo_of_patches_is_that_of_their_dataset(labelled):
    page = pfo.review_queue(labelled, "promerge", limit=2)
    pfo.accept(page, "promerge", page.values("id")[:1])
    following = pfo.review_queue(labelled, "promerge", limit=2)
    assert pfo.undo(following, "promerge") == 1
    assert pfo.undo(following, "promerge") == 0
    assert counts(labelled) == (6, 0, 0)
    pfo.accept(following, "promerge", reviewer="Ada")
    assert following.values("promerge.reviewer") == ["Ada", "Ada"]
    assert pfo.undo(following, "promerge") == 2
    assert following.values("promerge.review") == [None, None]
    assert counts(labelled) == (6, 0, 0)


def test_a_wrong_order_or_limit_is_refused(labelled):
    with pytest.raises(ValueError, match="the order is 'age', but must be one of score, dis"):
        pfo.review_queue(labelled, "promerge", "age")
    with pytest.raises(ValueError, match="the limit is 0"):
        pfo.review_queue(labelled, "promerge", limit=0)
    for other in (None, "promerge"):
        with pytest.raises(ValueError, match="must be another field than 'promerge'"):
            pfo.review_queue(labelled, "promerge", "disagreement", other)


def test_disagreement_is_the_iou_with_the_best_of_the_other_field(fo, dataset):
    def box(x, w, mask=True):
        pixels = np.ones((10, int(w * 10)), dtype=bool) if mask else None
        return fo.Detection(label="fg", bounding_box=[x, 0, w, 1], mask=pixels)

    one, other = [box(0, 0.4), box(0.6, 0.4), box(0.4, 0.1)], [box(0, 0.2), box(0.6, 0.4)]
    for i in range(2):
        dataset.add_sample(
            fo.Sample(
                filepath=f"/nowhere/{i}.png",
                metadata=fo.ImageMetadata(width=10, height=10),
                promerge=fo.Detections(detections=[d.copy() for d in one]),
                maskcut=fo.Detections(detections=[d.copy() for d in other]) if i == 0 else None,
            )
        )
    broken = fo.Sample(filepath="/nowhere/c.png", promerge=fo.Detections(detections=[box(0, 1)]))
    dataset.add_sample(broken)
    queue = pfo.review_queue(dataset[:1], "promerge", "disagreement", "maskcut")
    assert queue.values("promerge.iou_with_maskcut") == [0.0, 0.5, 1.0]
    assert dataset.values("promerge.detections.iou_with_maskcut") == [
        [0.5, 1.0, 0.0],
        [None] * 3,
        [None],
    ]
    queue = pfo.review_queue(dataset, "promerge", "disagreement", "maskcut")
    assert queue.values("promerge.iou_with_maskcut") == [0.0] * 4 + [0.5, 1.0, None]
    assert "promerge.detections.iou_with_maskcut" in dataset.get_field_schema(flat=True)
    boxes = dataset[:1].clone()
    boxes.set_values("maskcut.detections.mask", [[None, None]])
    pfo.measure_agreement(boxes, "promerge", "maskcut")
    assert boxes.values("promerge.detections.iou_with_maskcut") == [[0.5, 1.0, 0.0]]
    boxes.delete()


def test_histograms_count_what_their_bars_select(labelled):
    pfo.accept(labelled, "promerge", ids(labelled)[:1])
    pfo.reject(labelled, "promerge", ids(labelled)[1:2])
    histograms = pfo.review_histograms(labelled, "promerge")
    score = histograms["score"]
    assert score.edges.tolist() == [round(0.05 * i, 2) for i in range(21)]
    assert np.flatnonzero(score.counts["accepted"]).tolist() == [18]
    assert np.flatnonzero(score.counts["rejected"]).tolist() == [2]
    assert np.flatnonzero(score.counts["undecided"]).tolist() == [1, 6, 10, 14]
    assert histograms["area"].counts["accepted"].tolist()[-2:] == [1, 0]  # 0.4
    assert histograms["masks"].counts["images"][:4].tolist() == [1, 1, 1, 1]
    assert histograms["area"].progress() == pfo.review_progress(labelled, "promerge")
    for quantity, histogram in histograms.items():
        total = sum(histogram.counts.values())
        assert total.sum() == (4 if quantity == "masks" else 6)
        for bar, count in enumerate(total):
            view = pfo.select_between(labelled, "promerge", quantity, *histogram.bounds(bar))
            found = len(view) if quantity == "masks" else view.count("promerge.detections")
            assert found == count, (quantity, bar)


def test_histograms_take_what_lies_beyond_and_labels_without_score_or_area(fo, labelled):
    sample = labelled.first()
    first, second, third = sample.promerge.detections
    first.confidence, second.confidence, third.confidence = 1.0, 7.0, None
    first.area, second.area = None, 0.0
    third.bounding_box = [0, 0, 0.5, 0.5]
    third.area = None
    sample.save()
    for _ in range(30):
        sample.promerge.detections.append(fo.Detection(bounding_box=[0, 0, 1, 1], confidence=-1))
    sample.save()
    histograms = pfo.review_histograms(labelled[:1], "promerge")
    score, area, masks = (histograms[name] for name in ("score", "area", "masks"))
    assert score.missing == 1
    assert score.counts["undecided"][[0, 19]].tolist() == [30, 2]
    assert area.counts["undecided"][[0, 17, 19]].tolist() == [1, 1, 31]  # 0.25 of the image
    assert masks.counts["images"][25] == 1 and masks.counts["images"].sum() == 1
    assert masks.bounds(25) == (25.0, None)
    for quantity, bar, count in (
        ("score", 0, 30),
        ("score", 19, 2),
        ("area", 0, 1),
        ("area", 17, 1),
    ):
        view = pfo.select_between(labelled, "promerge", quantity, *histograms[quantity].bounds(bar))
        assert view[:1].count("promerge.detections") >= count
    with pytest.raises(ValueError, match="the quantity is 'age', but must be one of score, area"):
        pfo.select_between(labelled, "promerge", "age")


@pytest.mark.parametrize("quantity", ["score", "area"])
def test_views_of_bars_have_no_infinity_which_json_lacks(labelled, quantity):
    sample = labelled.first()
    for label, value in zip(sample.promerge.detections, (np.inf, -np.inf, np.nan), strict=False):
        label.confidence = label.area = value
    sample.save()
    view = pfo.select_between(labelled[:1], "promerge", quantity)
    json.dumps(view._serialize(), allow_nan=False)
    assert view.count("promerge.detections") == 0


def test_reviews_of_frames_reach_their_videos(fo, dataset):
    sample = fo.Sample(filepath="/nowhere/a.mp4", metadata=fo.VideoMetadata(total_frame_count=2))
    for number in (1, 2):
        sample.frames[number] = fo.Frame(
            filepath=f"/nowhere/{number}.png",
            promerge=fo.Detections(
                detections=[fo.Detection(bounding_box=[0, 0, 1, 1], confidence=number / 10)]
            ),
        )
    dataset.add_sample(sample)
    frames = dataset.to_frames()
    queue = pfo.review_queue(frames, "promerge", limit=1)
    assert queue.values("promerge.confidence") == [0.1]
    assert pfo.accept(queue, "promerge", reviewer="Ada") == 1
    path = "frames.promerge.detections.review"
    assert dataset.values(path) == [[["accepted"], [None]]]
    assert pfo.reject(frames, "promerge") == 2
    assert dataset.values(path) == [[["rejected"], ["rejected"]]]
    assert pfo.undo(queue, "promerge") == 2
    assert dataset.values(path) == [[["accepted"], [None]]]
    assert "promerge.detections.review" in dataset.get_frame_field_schema(flat=True)


def test_evaluation_patches_are_reviewed_too(fo, labelled):
    labelled.clone_sample_field("promerge", "truth")
    labelled.evaluate_detections("promerge", "truth", eval_key="eval")
    patches = labelled.to_evaluation_patches("eval")
    ids_ = ids(labelled)
    assert pfo.accept(patches, "promerge", ids_[:2]) == 2
    assert reviews(labelled)[:3] == ["accepted", "accepted", None]
    assert pfo.undo(patches, "promerge") == 2
    assert counts(labelled) == (6, 0, 0)


def test_the_annotate_tab_is_switched_on(labelled):
    pfo.enable_annotation(labelled, "promerge")
    assert labelled.active_label_schemas == ["promerge"]
    schema = labelled.label_schemas["promerge"]
    assert schema["type"] == "detections"
    read_only = {a["name"]: a.get("read_only", False) for a in schema["attributes"]}
    assert read_only["review"] and read_only["reviewer"] and not read_only["confidence"]
    pfo.enable_annotation(labelled, "promerge")
    assert labelled.active_label_schemas == ["promerge"]


def test_decisions_outlast_what_is_saved_afterwards(labelled):
    """The App's Annotate tab saves whole samples, as Python does."""
    pfo.accept(labelled, "promerge", ids(labelled)[:1], reviewer="Ada")
    pfo.reject(labelled, "promerge", ids(labelled)[:2], reviewer="Bo")
    sample = labelled.first()
    sample.promerge.detections[0].mask = np.ones((3, 3), np.uint8)
    sample.save()
    assert reviews(labelled)[:2] == ["rejected", "rejected"]
    assert pfo.undo(labelled, "promerge") == 2
    assert reviews(labelled)[:2] == ["accepted", None]
    assert labelled.first().promerge.detections[0].reviewer == "Ada"


def test_labels_are_listed_with_what_was_decided(labelled):
    pfo.accept(labelled, "promerge", ids(labelled)[1:2], reviewer="Ada")
    listed = pfo.list_labels(labelled[:1], "promerge")
    assert [label["id"] for label in listed] == ids(labelled)[:3]
    assert [label["score"] for label in listed] == SCORES[0]
    assert [label["review"] for label in listed] == [None, "accepted", None]
    assert listed[1]["reviewer"] == "Ada" and listed[1]["area"] == 0.2
    assert pfo.list_labels(labelled[2:3], "promerge") == []
