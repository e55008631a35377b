"""Candidates are held against the leader at the moment, not against what it took before."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kernels
import pytest
from tvm.s_tir.meta_schedule.search_strategy import MeasureCandidate
from tvmdet.schedules.base import Decision, Template, Workload, schedule_of
from tvmdet.targets import get_target

from tvmdet.tuning import MeasureOptions, TuningStore, tune_tasks
from tvmdet.tuning.leaders import Leaders
from tvmdet.tuning.measure import Built, Failure, Measured, Rival
from tvmdet.tuning.planner import TaskState
from tvmdet.tuning.record import rounded, typical_latency
from tvmdet.tuning.run import TuningRun
from tvmdet.tuning.task import Task

TARGET = get_target("host")
COSTS = [1.0 + 0.01 * n for n in range(39, -1, -1)]
QUICK = 12  # runs before the machine slows down


class Numbered(Template):
    """Decisions that differ in their number alone, which the scheduled function bears."""

    name = "test.numbered"

    def match(self, func: Any, target: Any) -> Workload:
        return Workload("numbered")

    def decisions(self, workload: Any, target: Any) -> list[Decision]:
        return [Decision.of(self.name, number=number) for number in range(len(COSTS))]

    def apply(self, func: Any, workload: Any, decision: Decision) -> Any:
        return schedule_of(func.with_attr("test.number", decision["number"]))


class UnevenMachine:
    """Takes the place of the measurer: kernels of known costs on a machine that slows down."""

    parallel = 2

    def __init__(self, in_turn: bool) -> None:
        self.kept: set[Path] = set()
        self._in_turn = in_turn
        self._noise = random.Random(1)
        self._built = itertools.count()
        self._runs = 0

    def __enter__(self) -> UnevenMachine:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def build(self, inputs: Sequence[MeasureCandidate]) -> list[Built | Failure]:
        numbers = [int(one.sch.mod["main"].attrs["test.number"]) for one in inputs]
        built = [Built(path=Path(f"{n}-{next(self._built)}"), args=()) for n in numbers]
        self.kept.update(one.path for one in built)
        return list(built)

    def run(
        self,
        built: Built,
        *,
        best_s: float | None = None,
        rival: Rival | None = None,
        longer: float = 1.0,
    ) -> Measured | Failure:
        self._runs += 1
        pace = 1.0 if self._runs <= QUICK else 1.6
        latencies = self._latencies(built, pace)
        if rival is None or not self._in_turn:
            return Measured(latencies_s=latencies)
        assert rival.built.path in self.kept
        now = typical_latency(self._latencies(rival.built, pace))
        return Measured(latencies_s=latencies, pace=now / rival.cost_s)

    def discard(self, built: Built) -> None:
        self.kept.remove(built.path)

    def _latencies(self, built: Built, pace: float) -> tuple[float, ...]:
        assert built.path in self.kept
        cost = 1e-3 * COSTS[int(built.path.name.split("-")[0])]
        return rounded(cost * pace * self._noise.uniform(1.0, 1.02) for _ in range(20))


def chosen(
    folder: Path, monkeypatch: pytest.MonkeyPatch, in_turn: bool, budget_s: float = 100.0
) -> float:
    """Returns the true cost of what a run finds fastest, the least being 1."""
    machine = UnevenMachine(in_turn)
    monkeypatch.setattr(TuningRun, "_measurer", lambda _run: machine)
    store = TuningStore(folder)
    task = kernels.make_task(Numbered(), kernels.doubled)
    options = MeasureOptions(confirm_share=0.3)
    tune_tasks([task], target=TARGET, store=store, budget_s=budget_s, min_gain=0.0, options=options)
    assert len(machine.kept) <= 1, "the leader's library alone"
    best = store.best(TARGET.name, task.fingerprint)
    assert best is not None
    return COSTS[int(best.decision["number"])]


def test_a_machine_that_changes_its_speed_chooses_no_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen(tmp_path / "alone", monkeypatch, in_turn=False) > 1.02
    assert chosen(tmp_path / "in turn", monkeypatch, in_turn=True) <= 1.01


def test_a_later_run_is_held_against_what_an_earlier_one_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = TuningStore(tmp_path)
    chosen(tmp_path, monkeypatch, in_turn=True)
    task = kernels.make_task(Numbered(), kernels.doubled)
    leader = store.best(TARGET.name, task.fingerprint)
    assert leader is not None
    # One of middling cost that has met a lucky moment, in turn, and one that has not been tried.
    kept = [r for r in store.records(TARGET.name) if r.decision != leader.decision][:20]
    again = tmp_path / "again"
    for record in [*kept, leader]:
        TuningStore(again).append(record)
    assert chosen(again, monkeypatch, in_turn=True) <= 1.01


def state_of(anchor: str, best_s: float | None = 1.0) -> TaskState:
    base = kernels.make_task(Numbered(), kernels.doubled)
    task = Task(
        func=base.func,
        fingerprint=anchor,
        anchor=anchor,
        template=base.template,
        workload=base.workload,
        decisions=base.decisions,
        count=1,
    )
    return TaskState(task=task, roofline_s=0.0, best_s=best_s)


def library(name: str) -> Built:
    return Built(path=Path(name), args=())


def test_algorithms_of_a_layer_and_pairs_are_rivals() -> None:
    machine = UnevenMachine(in_turn=True)
    leaders = Leaders(machine)  # type: ignore[arg-type]
    direct, winograd = state_of("conv2d n1 h8"), state_of("winograd4_conv2d n1 h8")
    depthwise, other = state_of("depthwise n1 h8"), state_of("conv2d n1 h9")
    pair = state_of("depthwise n1 h8 + conv2d n1 h8")
    assert leaders.rival(direct) is None
    leaders.hold(direct, library("direct"), 3.0)
    for state in (direct, winograd):
        found = leaders.rival(state)
        assert found is not None
        assert found.built.path.name == "direct"
    assert leaders.rival(other) is leaders.rival(depthwise) is None
    leaders.hold(depthwise, library("depthwise"), 2.0)
    found = leaders.rival(pair)
    assert found is not None
    assert found.built.path.name == "depthwise"


def test_a_leader_is_wanted_once_and_only_where_one_is_known() -> None:
    leaders = Leaders(UnevenMachine(in_turn=True))  # type: ignore[arg-type]
    known, new, held = state_of("a"), state_of("b", None), state_of("c")
    leaders.hold(held, library("c"), 1.0)
    assert leaders.wanted([known, new, held]) == [known]
    assert leaders.wanted([known, new, held]) == []
