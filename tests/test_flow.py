"""Stages that overlap: order, bounds, failures, threads."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from promerge_fo.flow import Round, flow


def double(items):
    return [2 * item for item in items]


def run(items, first=lambda i: i, rounds=None, readers=2, workers=3):
    rounds = [Round(double, 4, lambda i: i + 1)] if rounds is None else rounds
    return flow(items, first, rounds, readers=readers, workers=workers)


@pytest.mark.parametrize("count", [0, 1, 4, 7, 100])
def test_results_come_in_order(count):
    def unsteady(item):
        time.sleep(0.001 * (item * 7 % 5))
        return item

    rounds = [Round(double, 4, unsteady), Round(double, 3, lambda i: i + 1)]
    results = run(range(count), first=unsteady, rounds=rounds)
    assert list(results) == [4 * i + 1 for i in range(count)]


def test_batches_are_full_but_for_the_last():
    sizes = []

    def noted(items):
        sizes.append(len(items))
        return items

    list(run(range(10), rounds=[Round(noted, 4, lambda i: i)]))
    assert sizes == [4, 4, 2]


def test_all_stages_are_at_work_at_once():
    meeting = threading.Barrier(4)  # read, together, each, and the caller

    def read(item):
        if item == 8:
            meeting.wait(20)
        return item

    def together(items):
        if items == [5]:
            meeting.wait(20)
        return items

    def each(item):
        if item == 2:
            meeting.wait(20)
        return item

    results = run(range(12), read, [Round(together, 1, each)], readers=6, workers=3)
    assert [next(results), next(results)] == [0, 1]
    meeting.wait(20)
    assert list(results) == list(range(2, 12))


def test_items_under_way_are_bounded():
    taken = []

    def source():
        for item in range(1000):
            taken.append(item)
            yield item

    results = run(source())
    for done in range(50):
        next(results)
        assert len(taken) <= done + 1 + 2 + 3 + 2 * 4
    results.close()
    assert len(taken) < 100


@pytest.mark.parametrize("where", ["source", "first", "together", "each"])
def test_what_a_stage_raises_comes_in_place_of_the_result(where):
    def broken(stage):
        def check(item):
            if stage == where and item == 5:
                raise RuntimeError(f"broken in {where}")
            return item

        return check

    before = threading.active_count()
    rounds = [Round(lambda items: [broken("together")(i) for i in items], 1, broken("each"))]
    results = run(map(broken("source"), range(20)), broken("first"), rounds)
    got = []
    with pytest.raises(RuntimeError, match=f"broken in {where}"):
        got.extend(results)  # not list(results): what came before is looked at below
    if where != "source":  # which is ahead of the results
        assert got == [0, 1, 2, 3, 4]
    assert threading.active_count() == before


def test_a_flow_that_is_left_stops_its_threads():
    before = threading.active_count()
    results = run(range(1000))
    assert next(results) == 1
    assert threading.active_count() > before
    results.close()
    assert threading.active_count() == before


def test_torchs_threads_are_not_multiplied():
    before = torch.get_num_threads()

    def count(_):
        return torch.get_num_threads()

    together = Round(lambda items: [(i, torch.get_num_threads()) for i in items], 2,
                     lambda pair: (*pair, torch.get_num_threads()))  # fmt: skip
    torch.set_num_threads(2)
    try:
        assert set(run(range(8), count, [together])) == {(1, 2, 1)}
        assert torch.get_num_threads() == 2
        later = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert later == [2]
    finally:
        torch.set_num_threads(before)
