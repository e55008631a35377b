"""The order in which decisions are tried."""

import kernels
import pytest
from tvmdet.schedules.base import Decision
from tvmdet.targets import get_target

from tvmdet.errors import TuningError
from tvmdet.passes.lower import tvm_target
from tvmdet.tuning.ranking import Ranking
from tvmdet.tuning.search import TaskSearch

TARGET = tvm_target(get_target("host"), 2)


def make_search(task, ranking=None, **more):
    return TaskSearch(task, TARGET, ranking or Ranking(seed=0), **more)


def tile_cost(decision):
    return 1e-4 * (abs(decision["y"] - 6) + abs(decision["x"] - 16) + 1)


def measure(search, batch):
    search.learn(batch, [tile_cost(d) for d, _ in batch])


def test_the_default_comes_first_then_the_templates_order():
    task = kernels.tiles_task()
    search = make_search(task)
    assert [d for d, _ in search.next_batch(1)] == [task.decisions[0]]
    assert [d for d, _ in search.next_batch(4)] == list(task.decisions[1:5])
    assert search.remaining == 59


def test_borrowed_decisions_come_before_the_rest_if_they_are_of_this_space():
    task = kernels.tiles_task()
    search = make_search(task)
    foreign = Decision.of("test.tiles", y=99, x=99)
    search.suggest([task.decisions[40], foreign, task.decisions[0]])
    expected = [task.decisions[40], task.decisions[0], task.decisions[1]]
    assert [d for d, _ in search.next_batch(3)] == expected


def test_what_was_measured_before_is_not_tried_again():
    task = kernels.tiles_task()
    search = make_search(task, measured=task.decisions[:62])
    assert [d for d, _ in search.next_batch()] == list(task.decisions[62:])
    assert search.next_batch() == []


def test_decisions_that_cannot_be_scheduled_are_put_down_and_passed_over():
    task = kernels.make_task(kernels.Kinds("fine", "unschedulable", "other"), kernels.doubled)
    search = make_search(task)
    assert [d["kind"] for d, _ in search.next_batch()] == ["fine", "other"]
    (rejected,) = search.take_rejected()
    assert rejected.decision["kind"] == "unschedulable"
    assert rejected.error.startswith("ScheduleError: ")
    assert "\n" not in rejected.error
    assert search.take_rejected() == []


def test_every_decision_is_tried_once_with_the_model_ranking_the_later_ones():
    task, ranking = kernels.tiles_task(), Ranking(seed=0)
    search = make_search(task, ranking)
    tried = []
    while batch := search.next_batch():
        tried += [d for d, _ in batch]
        measure(search, batch)
    assert ranking.ready
    assert sorted(map(str, tried)) == sorted(map(str, task.decisions))


def test_what_the_model_learned_serves_a_new_task():
    task, ranking = kernels.tiles_task(), Ranking(seed=0)
    teacher = make_search(task, ranking)
    for _ in range(7):
        measure(teacher, teacher.next_batch())
    search = make_search(task, ranking, measured=task.decisions[:16], seed=1)
    for decision in task.decisions[:16]:
        search.seen(decision, tile_cost(decision))
    costs = [tile_cost(d) for d, _ in search.next_batch()]
    left = sorted(tile_cost(d) for d in task.decisions[16:])
    assert sum(costs) / len(costs) < sum(left) / len(left)


def test_failures_alone_teach_nothing():
    ranking = Ranking(seed=0)
    search = make_search(kernels.tiles_task(), ranking)
    batch = search.next_batch()
    search.learn(batch, [None for _ in batch])
    assert not ranking.ready


def test_without_xgboost_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "xgboost", None)
    with pytest.raises(TuningError, match=r"pip install tvmdet\[tune\]"):
        Ranking(seed=0)
