"""Which masks are exported, and into which split."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from promerge_fo import dataset as pfo
from promerge_fo.dataset.exchange.selection import split_by_tags, split_randomly


def export(samples, path, **options):
    """The summary and the annotations of an export, with no mask too small."""
    summary = pfo.export_pseudo_labels(samples, "promerge", path, **{"min_area": 0, **options})
    return summary, json.loads(path.read_text())["annotations"]


def scores(samples) -> list[float]:
    return samples.values("promerge.detections.confidence", unwind=True)


def test_by_score(scenes, tmp_path):
    all_scores = scores(scenes)
    limit = sorted(all_scores)[len(all_scores) // 2]
    summary, annotations = export(scenes, tmp_path / "a.json", min_score=limit)
    assert [a["score"] for a in annotations] == [s for s in all_scores if s >= limit]
    assert summary["low_score"] == len(all_scores) - len(annotations) > 0


def test_labels_without_confidence_count_as_1(scenes, tmp_path):
    sample = scenes.first()
    sample.promerge.detections[-1].confidence = None
    sample.save()
    first = scenes.limit(1)
    _, annotations = export(first, tmp_path / "a.json", min_score=1)
    assert [a["score"] for a in annotations] == [None]
    _, annotations = export(first, tmp_path / "a.json", max_per_image=1)
    assert [a["score"] for a in annotations] == [None]


def test_by_review(scenes, tmp_path):
    states = ["accepted", "rejected", None]
    values = [
        [states[(i + k) % 3] for k in range(len(ids))]
        for i, ids in enumerate(scenes.values("promerge.detections.id"))
    ]
    scenes.set_values("promerge.detections.review", values)
    counts = Counter(value for row in values for value in row)
    wanted = {"all": 3, "accepted": 1, "not_rejected": 2, "by default": 2}
    for review, kinds in wanted.items():
        given = {} if review == "by default" else {"review": review}
        summary, annotations = export(scenes, tmp_path / "a.json", **given)
        kept = sum(counts[state] for state in (["accepted", None, "rejected"][:kinds]))
        assert len(annotations) == kept
        assert summary["unreviewed"] == sum(counts.values()) - kept


def test_without_a_review_nothing_is_accepted_and_nothing_rejected(scenes, tmp_path):
    assert export(scenes, tmp_path / "a.json", review="accepted")[1] == []
    assert len(export(scenes, tmp_path / "a.json", review="not_rejected")[1]) == len(scores(scenes))


def test_the_best_of_each_image_in_stored_order(fo, scenes, tmp_path):
    sample = scenes.first()
    given = [0.5, 0.9, 0.5, 0.1]
    label = sample.promerge.detections[0]
    sample.promerge.detections = [
        fo.Detection(label="fg", mask=label.mask, bounding_box=label.bounding_box, confidence=value)
        for value in given
    ]
    sample.save()
    for count, wanted in ((1, [0.9]), (2, [0.5, 0.9]), (3, [0.5, 0.9, 0.5]), (9, given)):
        summary, annotations = export(scenes.limit(1), tmp_path / "a.json", max_per_image=count)
        assert [a["score"] for a in annotations] == wanted
        assert summary["beyond_limit"] == 4 - len(wanted)
    # of several filters, the number comes last
    _, annotations = export(scenes.limit(1), tmp_path / "a.json", max_per_image=2, min_score=0.6)
    assert [a["score"] for a in annotations] == [0.9]


def test_a_mask_is_counted_once(scenes, tmp_path):
    total = len(scores(scenes))
    summary, _ = export(
        scenes, tmp_path / "a.json", min_area=0.2, min_score=0.4, max_per_image=1, tags="none"
    )
    assert summary["untagged"] == total
    summary, _ = export(scenes, tmp_path / "a.json", min_area=0.3, min_score=0.4, max_per_image=1)
    parts = ("low_score", "too_small", "beyond_limit", "annotations")
    assert all(summary[name] > 0 for name in parts)
    assert sum(summary[name] for name in parts) == total


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"min_score": 2}, r"min_score is 2, but must lie in \[0, 1\]"),
        ({"min_score": float("nan")}, "min_score is nan"),
        (
            {"review": "yes"},
            "review is 'yes', but must be one of 'not_rejected', 'accepted', 'all'",
        ),
        ({"max_per_image": 0}, "max_per_image is 0, but must be at least 1"),
    ],
)
def test_values_out_of_range_are_refused(scenes, tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        export(scenes, tmp_path / "a.json", **options)
    assert not (tmp_path / "a.json").exists()


def names(count: int) -> list[str]:
    return [f"folder/{number}.jpg" for number in range(count)]


def test_a_random_split_has_its_share_and_depends_on_names_and_seed_alone():
    everything = names(1000)
    of = split_randomly(everything, 0.2, seed=3).of
    assert of.sum() == 200 and set(of.tolist()) == {0, 1}
    np.testing.assert_array_equal(of, split_randomly(everything, 0.2, seed=3).of)
    np.testing.assert_array_equal(of[::-1], split_randomly(everything[::-1], 0.2, seed=3).of)
    other = split_randomly(everything, 0.2, seed=4).of
    assert 100 < (of != other).sum() < 400
    # drawn anywhere, not at one end
    assert 60 < of[:500].sum() < 140
    # more images of the same kind: hardly any changes sides
    more = split_randomly(names(1100), 0.2, seed=3).of[:1000]
    assert (of != more).sum() < 60


@pytest.mark.parametrize(
    ("count", "fraction", "words"),
    [
        (10, 0, "val_fraction is 0, but must lie between 0 and 1"),
        (10, 1, "val_fraction is 1, but must lie between 0 and 1"),
        (10, float("nan"), "val_fraction is nan"),
        (10, 0.01, "of 10 images, that leaves none for validation"),
        (10, 0.99, "of 10 images, that leaves none for training"),
    ],
)
def test_splits_without_an_image_are_refused(count, fraction, words):
    with pytest.raises(ValueError, match=words):
        split_randomly(names(count), fraction, seed=0)


def test_splits_by_tags():
    tags = [["val"], [], ["train", "sunny"], ["train"]]
    split = split_by_tags(names(4), tags, ["train", "val"])
    assert split.names == ("train", "val")
    assert split.of.tolist() == [1, -1, 0, 0]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (["train", "sunny"], "folder/2.jpg has the tags 'train' and 'sunny'"),
        (["train", "test"], "no image has the sample tag 'test'"),
        (["train", "../val"], r"the tag '../val' cannot name a file"),
        (["train", "train"], "must be different tags"),
        ([], "must be different tags"),
        ("train", "must be different tags, as a list"),
    ],
)
def test_tags_that_do_not_split_are_refused(wanted, words):
    with pytest.raises(ValueError, match=words):
        split_by_tags(names(4), [["val"], [], ["train", "sunny"], ["train"]], wanted)
