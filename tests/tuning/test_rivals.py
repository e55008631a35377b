"""Candidates are held against a rival at the moment, not against what it took before."""

from __future__ import annotations

import dataclasses
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
from tvmdet.tuning.candidates import Candidates
from tvmdet.tuning.measure import Built, Failure, Measured, Rival
from tvmdet.tuning.planner import TaskState
from tvmdet.tuning.record import TuningRecord, rounded, typical_latency
from tvmdet.tuning.rivals import Rivals
from tvmdet.tuning.run import TuningRun
from tvmdet.tuning.task import Task
from tvmdet.tuning.timing import Timing

TARGET = get_target("host")
FALLING = [1.0 + 0.01 * n for n in range(39, -1, -1)]
DIRECT, WINOGRAD = "conv2d n1 h8", "winograd4_conv2d n1 h8"


class Numbered(Template):
    """Decisions with known costs in milliseconds; the scheduled function bears its own."""

    name = "test.numbered"

    def __init__(self, costs: Sequence[float]) -> None:
        self._costs = costs

    def match(self, func: Any, target: Any) -> Workload:
        return Workload("numbered")

    def decisions(self, workload: Any, target: Any) -> list[Decision]:
        return [Decision.of(self.name, number=number) for number in range(len(self._costs))]

    def apply(self, func: Any, workload: Any, decision: Decision) -> Any:
        cost = self._costs[int(decision["number"])]
        return schedule_of(func.with_attr("test.microseconds", round(1000 * cost)))


def task_of(costs: Sequence[float], anchor: str = "numbered") -> Task:
    made = kernels.make_task(Numbered(costs), kernels.doubled, key=anchor)
    return dataclasses.replace(made, anchor=anchor)


class UnevenMachine:
    """Takes the place of the measurer: kernels of known costs on a machine that slows down.

    Args:
        quick: Runs before it takes 1.6 times as long.
        noise: Greatest share that a call takes more.
        in_turn: Whether rivals are heeded.
        lasts: Runs of one library before it breaks.
    """

    parallel, repeats = 2, False

    def __init__(
        self, quick: int = 12, noise: float = 0.02, in_turn: bool = True, lasts: int = 10**6
    ) -> None:
        self.kept: dict[Path, int] = {}
        self._quick, self._noise, self._in_turn, self._lasts = quick, noise, in_turn, lasts
        self._random = random.Random(1)
        self._built = itertools.count()
        self._runs = 0

    def __enter__(self) -> UnevenMachine:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def build(self, inputs: Sequence[MeasureCandidate]) -> list[Built | Failure]:
        costs = [int(one.sch.mod["main"].attrs["test.microseconds"]) for one in inputs]
        built = [Built(path=Path(f"{cost}-{next(self._built)}"), args=()) for cost in costs]
        self.kept.update(dict.fromkeys((one.path for one in built), 0))
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
        pace = 1.0 if self._runs <= self._quick else 1.6
        timed = [built] if rival is None else [built, rival.built]
        if any(self.kept[one.path] >= self._lasts for one in timed):
            return Failure(kind="crash", message="it is worn out")
        latencies = [self._latencies(one, pace, round(20 * longer)) for one in timed]
        if rival is None or not self._in_turn:
            return Measured(latencies_s=latencies[0])
        over = min(latencies[0]) / min(latencies[1])
        pace = typical_latency(latencies[0]) / (rival.cost_s * over)
        return Measured(latencies_s=latencies[0], pace=pace)

    def discard(self, built: Built) -> None:
        del self.kept[built.path]

    def _latencies(self, built: Built, pace: float, count: int) -> tuple[float, ...]:
        self.kept[built.path] += 1
        cost = 1e-6 * int(built.path.name.split("-")[0])
        slow = self._random.uniform(1.0, 1.0 + self._noise)  # of a moment, not of a call
        return rounded(
            cost * pace * slow * self._random.uniform(1.0, 1.0 + self._noise) for _ in range(count)
        )


def tune(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    machine: UnevenMachine,
    *tasks: Task,
    confirm: float = 0.3,
) -> TuningStore:
    monkeypatch.setattr(TuningRun, "_measurer", lambda _run: machine)
    store = TuningStore(folder)
    options = MeasureOptions(confirm_share=confirm)
    report = tune_tasks(
        tasks, target=TARGET, store=store, budget_s=100.0, min_gain=0.0, options=options
    )
    if len(tasks) == 1:
        best = store.best(TARGET.name, tasks[0].fingerprint)
        assert best is not None
        assert report.latency_after_s == best.cost, "after the races as well"
    assert len(machine.kept) <= len(tasks), "the rivals' libraries alone"
    return store


def chosen(store: TuningStore, costs: Sequence[float]) -> float:
    """Returns the true cost of what is recorded as the fastest."""
    best = store.best(TARGET.name, "numbered")
    assert best is not None
    return costs[int(best.decision["number"])]


def test_a_machine_that_changes_its_speed_chooses_no_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(FALLING)
    alone = tune(tmp_path / "alone", monkeypatch, UnevenMachine(in_turn=False), task)
    assert chosen(alone, FALLING) > 1.02
    in_turn = tune(tmp_path / "in turn", monkeypatch, UnevenMachine(), task)
    assert chosen(in_turn, FALLING) <= 1.01


def test_many_equals_do_not_seem_faster_and_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tune(tmp_path, monkeypatch, UnevenMachine(noise=0.04), task_of([1.0] * 100))
    best = store.best(TARGET.name, "numbered")
    assert best is not None
    assert 0.97e-3 < best.cost < 1.05e-3


def test_a_later_run_is_held_against_what_an_earlier_one_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is slower by then: alone, none of the better ones would seem so."""
    costs = [1.2, 1.1, 1.0]
    tune(tmp_path, monkeypatch, UnevenMachine(quick=100), task_of([1.2, 9.0]))
    store = tune(tmp_path, monkeypatch, UnevenMachine(quick=0), task_of(costs))
    assert chosen(store, costs) == 1.0


def test_a_new_algorithm_is_held_against_one_that_an_earlier_run_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct, winograd = task_of([1.0, 1.1], DIRECT), task_of([0.9, 1.0], WINOGRAD)
    tune(tmp_path, monkeypatch, UnevenMachine(quick=100), direct)
    store = tune(tmp_path, monkeypatch, UnevenMachine(quick=0), direct, winograd)
    found = store.comparable(TARGET.name, [DIRECT, WINOGRAD])
    assert found[WINOGRAD].cost / found[DIRECT].cost == pytest.approx(0.9, abs=0.05)


def test_a_rival_that_breaks_takes_no_candidate_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = [1.0 + 0.001 * n for n in range(30)]
    store = tune(tmp_path, monkeypatch, UnevenMachine(lasts=8), task_of(costs), confirm=0.0)
    records = store.records(TARGET.name)
    assert len(records) == len(costs)
    assert all(record.ok for record in records)


def test_what_races_find_is_what_the_run_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels that take more when they are timed for longer; the helper compares."""
    machine = UnevenMachine(noise=0.0)
    run = machine.run

    def tiring(built: Built, *, longer: float = 1.0, **more: Any) -> Measured | Failure:
        result = run(built, longer=longer, **more)
        if isinstance(result, Failure) or longer == 1.0:
            return result
        slower = rounded(1.05 * seconds for seconds in result.latencies_s)
        return dataclasses.replace(result, latencies_s=slower)

    monkeypatch.setattr(machine, "run", tiring)
    store = tune(tmp_path, monkeypatch, machine, task_of([1.0] * 4))
    best = store.best(TARGET.name, "numbered")
    assert best is not None
    assert best.cost == pytest.approx(1.05e-3, rel=0.01)


def test_the_second_time_of_what_seems_fastest_counts() -> None:
    state = state_of(DIRECT, best_s=1.0e-3)
    lucky, true = (Measured(latencies_s=(seconds,)) for seconds in (0.8e-3, 1.1e-3))
    machine = UnevenMachine()
    answers = iter([lucky, true, true])
    machine.run = lambda *_, **__: next(answers)  # type: ignore[method-assign]
    timing = Timing(machine, [state], lambda: "")  # type: ignore[arg-type]
    assert timing.time(state, library(machine, "seems fast")) is true
    assert timing.time(state, library(machine, "slower")) is true, "once is enough"
    assert next(answers, None) is None


def test_what_was_measured_is_tried_before_what_was_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, store = task_of([1.0] * 9, DIRECT), TuningStore(tmp_path)
    said = TuningRecord(
        target=TARGET.name,
        fingerprint=DIRECT,
        anchor=DIRECT,
        decision=task.decisions[5],
        predicted_cycles=1.0,
        threads=1,
        cpu="a model",
    )
    measured = dataclasses.replace(
        said,
        fingerprint="of another epilogue",
        decision=task.decisions[7],
        predicted_cycles=None,
        latencies_s=(1.0,),
        cpu="another",
    )
    for record in (said, measured):
        store.append(record)
    tune(tmp_path, monkeypatch, UnevenMachine(), task, confirm=0.0)
    _, _, *own = TuningStore(tmp_path).records(TARGET.name)
    assert [record.decision for record in own[:2]] == [task.decisions[7], task.decisions[5]]


def state_of(anchor: str, best_s: float | None = 1.0) -> TaskState:
    return TaskState(task=task_of([1.0], anchor), roofline_s=0.0, best_s=best_s)


def named(rivals: Rivals, state: TaskState) -> str | None:
    rival = rivals.of(state)
    return None if rival is None else rival.built.path.name


def rivals_of(*states: TaskState) -> tuple[Rivals, UnevenMachine]:
    machine = UnevenMachine()
    return Rivals(machine, states), machine  # type: ignore[arg-type]


def library(machine: UnevenMachine, name: str) -> Built:
    machine.kept[Path(name)] = 0
    return Built(path=Path(name), args=())


def test_rivals_are_shared_by_the_algorithms_of_a_layer_and_by_pairs() -> None:
    direct, winograd, other = state_of(DIRECT), state_of(WINOGRAD), state_of("conv2d n1 h9")
    depthwise, pair = state_of("depthwise n1"), state_of(f"depthwise n1 + {DIRECT}")
    rivals, machine = rivals_of(direct, winograd, other, depthwise, pair)
    assert rivals.of(direct) is None
    assert rivals.offer(depthwise, library(machine, "depthwise"), 1.0)
    assert named(rivals, direct) == named(rivals, pair) == "depthwise", "they may be one kernel"
    assert rivals.offer(direct, library(machine, "direct"), 3.0)
    assert named(rivals, winograd) == "direct", "its own layer's before a faster one of the group"
    assert named(rivals, pair) == "depthwise"
    assert rivals.of(other) is None


def test_a_rival_stays_until_one_is_clearly_faster() -> None:
    state = state_of(DIRECT)
    rivals, machine = rivals_of(state)
    assert rivals.offer(state, library(machine, "first"), 1.0)
    assert not rivals.offer(state, library(machine, "second"), 0.96)
    assert rivals.offer(state, library(machine, "third"), 0.9)
    assert named(rivals, state) == "third"
    assert set(machine.kept) == {Path("second"), Path("third")}
    held = rivals.of(state)
    assert held is not None
    rivals.drop(held)
    assert rivals.of(state) is None
    assert rivals.wanted([state]) == [state], "built again"
    assert set(machine.kept) == {Path("second")}


def test_a_known_task_is_wanted_once() -> None:
    known, slower = state_of(DIRECT, 1.0), state_of("winograd2_conv2d n1 h8", 2.0)
    new, stranger = state_of(WINOGRAD, None), state_of("conv2d n1 h9", None)
    rivals, machine = rivals_of(known, slower, new, stranger)
    known.failed = "it broke"
    assert rivals.wanted([new]) == [slower]
    known.failed = ""
    assert rivals.wanted([new, stranger]) == [known]
    assert rivals.wanted([new, stranger, known]) == []
    rivals.offer(slower, library(machine, "slower"), 2.0)
    assert rivals.wanted([new, slower]) == []


def test_a_task_that_breaks_in_a_later_run_ends_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct, winograd = task_of([1.0, 1.1], DIRECT), task_of([0.9, 1.0], WINOGRAD)
    tune(tmp_path, monkeypatch, UnevenMachine(), direct)

    def broken(candidates: Candidates, state: TaskState) -> object:
        if state.task is direct:
            raise ValueError("no features")
        return make(candidates, state)

    make = Candidates._make_search
    monkeypatch.setattr(Candidates, "_make_search", broken)
    store = tune(tmp_path, monkeypatch, UnevenMachine(), direct, winograd)
    assert sum(record.fingerprint == WINOGRAD for record in store.records(TARGET.name)) == 2


@pytest.mark.parametrize("kind", ["board", "stopped"])
def test_a_rival_is_kept_where_nothing_can_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A board that is away for a call says nothing of a rival, and the scale stays."""
    machine, costs = UnevenMachine(quick=4), [1.0 + 0.02 * n for n in range(20)]
    run, calls = machine.run, itertools.count()

    def away(built: Built, **more: Any) -> Measured | Failure:
        at = next(calls)
        if at in (10, 11):
            return Failure(kind="crash" if at == 10 else kind, message="gone")
        return run(built, **more)

    monkeypatch.setattr(machine, "run", away)
    store = tune(tmp_path, monkeypatch, machine, task_of(costs), confirm=0.0)
    records = [record for record in store.records(TARGET.name) if record.ok]
    assert len(records) == len(costs) - 1
    assert [record.pace for record in records].count(None) == 1, "the first alone"
