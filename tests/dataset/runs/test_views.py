"""What a view holds is settled when a run begins, whatever its stages say as labels are written."""

from __future__ import annotations

from pathlib import Path

import pytest
from fiftyone import ViewField as F

from promerge_fo import dataset as pfo
from promerge_fo.config import ProMergeConfig
from promerge_fo.dataset import samples as ground
from promerge_fo.dataset.samples import settled

SMALL = ProMergeConfig(image_size=96, min_refined_iou=0)
FIELD = "promerge"


@pytest.fixture(scope="module")
def small(fo):
    return pfo.load_model(encoder="texture", config=SMALL)


@pytest.fixture
def begun(fo, dataset, small, photographs):
    """Four photographs, of which the first has masks."""
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    pfo.segment_dataset(dataset.limit(1), small, FIELD)
    return dataset


# fmt: off
VIEWS = {
    "exists": (lambda d: d.exists(FIELD, False), 3, 0),
    "match": (lambda d: d.match(F(f"{FIELD}.run") == None), 3, 0),  # noqa: E711
    "match, limit": (lambda d: d.match(F(f"{FIELD}.status") != "ok").limit(2), 2, 0),
    "match, skip": (lambda d: d.exists(FIELD, False).skip(1), 2, 0),
    "exists, take": (lambda d: d.exists(FIELD, False).take(2), 2, 0),
    "sort_by, limit": (lambda d: d.sort_by(F(f"{FIELD}.detections").length()).limit(2), 2, 0),
    "sort_by, reverse": (lambda d: d.sort_by(f"{FIELD}.status", reverse=True).limit(2), 1, 1),
    "limit": (lambda d: d.limit(3), 2, 1),
    "shuffle": (lambda d: d.shuffle(), 3, 1),
    "take": (lambda d: d.take(4), 3, 1),
    "select_fields": (lambda d: d.select_fields(), 3, 1),
    "exclude_fields": (lambda d: d.exclude_fields(FIELD), 3, 1),
    "filter_labels": (lambda d: d.filter_labels(FIELD, F("area") > 0), 0, 1),
    "filter_labels, all": (
        lambda d: d.filter_labels(FIELD, F("area") > 1, only_matches=False), 3, 1,
    ),
    "filter_field": (
        lambda d: d.filter_field(FIELD, F("status") == "failed", only_matches=False), 3, 1,
    ),
    "set_field": (lambda d: d.set_field(f"{FIELD}.run", None), 3, 1),
    "concat": (lambda d: d.limit(2).concat(d.skip(1)), 3, 1),
}
# fmt: on


@pytest.mark.parametrize("name", VIEWS)
def test_a_run_does_and_says_what_its_view_held_at_the_beginning(begun, small, name):
    make, made, skipped = VIEWS[name]
    labels = begun.first().promerge.detections
    report = pfo.segment_dataset(make(begun), small, FIELD, batch_size=1)
    assert (report.counts, report.skipped) == ({"ok": made} if made else {}, skipped)
    assert begun.count_values(f"{FIELD}.status").get("ok") == 1 + made
    begun.reload()
    assert [label.id for label in begun.first().promerge.detections] == [i.id for i in labels]
    assert report.instances == begun.count(f"{FIELD}.detections") - len(labels)


def test_a_stage_for_finished_images_can_do_them_again(begun, small):
    first = begun.values(f"{FIELD}.detections.id")[0]
    view = begun.match(F(f"{FIELD}.run") == small.hash)
    report = pfo.segment_dataset(view, small, FIELD, overwrite=True)
    assert (report.counts, report.skipped) == ({"ok": 1}, 0)
    assert begun.values(f"{FIELD}.detections.id")[0] != first
    assert begun.values(f"{FIELD}.status") == ["ok", None, None, None]


def test_a_view_of_failed_images_is_retried(fo, begun, small, photographs, tmp_path):
    broken = [tmp_path / f"{name}.jpg" for name in "ab"]
    for path in broken:
        path.write_bytes(b"no image")
        begun.add_sample(fo.Sample(filepath=str(path)))
    assert pfo.segment_dataset(begun, small, FIELD).counts == {"ok": 3, "failed": 2}
    broken[0].write_bytes(Path(photographs[0]).read_bytes())
    view = begun.match(F(f"{FIELD}.status") == "failed")
    report = pfo.segment_dataset(view, small, FIELD, retry_failed=True)
    assert (report.counts, report.skipped) == ({"ok": 1, "failed": 1}, 0)
    assert begun.count_values(f"{FIELD}.status") == {"ok": 5, "failed": 1}


def test_what_a_view_hides_is_not_lost(begun, small):
    """Decisions on labels that the view does not show."""
    pfo.accept(begun, FIELD)
    other = pfo.load_model(encoder="texture", config=SMALL.replace(tau_b=0.9))
    for view in (
        begun.select_fields(),
        begun.exclude_fields(FIELD),
        begun.filter_labels(FIELD, F("area") > 1, only_matches=False),
    ):
        with pytest.raises(pfo.DecisionsLostError, match="decisions"):
            pfo.segment_dataset(view, other, FIELD)


def test_many_samples_are_settled_in_order_and_in_parts(begun, small, monkeypatch):
    monkeypatch.setattr(ground, "_SETTLED", 3)
    view = begun.sort_by("filepath", reverse=True)
    parts = settled(view)
    assert [len(part) for part in parts] == [3, 1]
    assert [i for part in parts for i in part.values("id")] == view.values("id")
    assert settled(begun) == [begun]
    done = []
    report = pfo.segment_dataset(view, small, FIELD, progress=lambda total: Bar(total, done))
    assert (report.counts, report.skipped, sum(done)) == ({"ok": 3}, 1, 3)
    (key,) = pfo.list_runs(begun)
    assert pfo.load_run(begun, key)["counts"] == {"ok": 4}


class Bar:
    """A progress bar that notes its steps."""

    def __init__(self, total, done):
        assert total == 3
        self.done = done

    def update(self, steps):
        self.done.append(steps)

    def close(self):
        pass


def test_patches_that_are_filtered_are_settled_too(begun):
    patches = begun.to_patches(FIELD)
    some = patches.limit(1)
    (part,) = settled(some)
    assert part.values("id") == some.values("id")
    assert part.media_type == "image" and settled(patches) == [patches]
