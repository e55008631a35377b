"""Rounds: whose turn it is, what is dropped, and what a failure leaves."""

from __future__ import annotations

import pytest

from tvmdet.report.timing import Plan, time_in_turn
from tvmdet.report.worker import WorkerError


class Fake:
    """Takes its name and a list that notes every turn."""

    def __init__(self, name: str, turns: list[str], *, fails_at: int = 10**9) -> None:
        self.name = name
        self.turns = turns
        self.count = 0
        self.fails_at = fails_at
        self.restless = False

    def time(self, *, untimed: int = 1) -> float:
        assert untimed == 1
        self.count += 1
        self.turns.append(self.name)
        if self.count >= self.fails_at:
            raise WorkerError("segmentation fault")
        return float(self.count)

    def wait_until_asleep(self, *, at_least_s: float, at_most_s: float) -> bool:
        return not self.restless


def test_nobody_to_time() -> None:
    assert time_in_turn({}, Plan(rounds=3)).seconds == {}


def test_each_begins_in_turn_and_warm_up_is_dropped() -> None:
    turns: list[str] = []
    sides = {name: Fake(name, turns) for name in "abc"}
    told: list[int] = []
    plan = Plan(rounds=3, warm_up=2)
    found = time_in_turn(sides, plan, lambda rounds, _elapsed_s: told.append(rounds))
    assert "".join(turns) == "abccbabcaacbcab"
    assert found.seconds == {name: [3.0, 4.0, 5.0] for name in "abc"}
    assert found.warm_up == {name: [1.0, 2.0] for name in "abc"}
    assert told == [1, 2, 3]
    assert not found.failed


def test_between_timed_rounds_all_sleep() -> None:
    turns: list[str] = []
    sides = {name: Fake(name, turns) for name in "ab"}
    time_in_turn(sides, Plan(rounds=2, warm_up=1), between=lambda: turns.append("-"))
    assert "".join(turns) == "ab-ba-ba"


def test_a_failure_takes_one_contestant_out() -> None:
    turns: list[str] = []
    sides = {"a": Fake("a", turns), "b": Fake("b", turns, fails_at=3)}
    found = time_in_turn(sides, Plan(rounds=4, warm_up=0))
    assert found.failed == {"b": "segmentation fault"}
    assert list(found.seconds) == ["a"]
    assert len(found.seconds["a"]) == 4


def test_threads_that_spin_on_are_noted() -> None:
    turns: list[str] = []
    sides = {"a": Fake("a", turns), "b": Fake("b", turns)}
    sides["b"].restless = True
    assert time_in_turn(sides, Plan(rounds=2)).restless == {"b"}


@pytest.mark.parametrize(
    ("plan", "rounds", "elapsed_s", "done"),
    [
        (Plan(rounds=0), 0, 0.0, True),
        (Plan(rounds=5), 4, 1e9, False),
        (Plan(rounds=5), 5, 0.0, True),
        (Plan(duration_s=10), 100, 9.0, False),
        (Plan(duration_s=10), 100, 10.0, True),
        (Plan(duration_s=10), 5, 60.0, False),
    ],
)
def test_plans(plan: Plan, rounds: int, elapsed_s: float, done: bool) -> None:
    assert plan.is_done(rounds, elapsed_s) == done
