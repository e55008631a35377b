"""What to try next of each task: what earlier runs know of it, and its search.

A search is made when its task is first asked for. A task whose function breaks a search, a
schedule or the cost model is given up with the reason, and ends no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from tvm.s_tir.meta_schedule.search_strategy import MeasureCandidate

from tvmdet.errors import TvmdetError
from tvmdet.passes.lower import tvm_target
from tvmdet.schedules.base import Decision
from tvmdet.targets import Target
from tvmdet.tuning.measure import Failure
from tvmdet.tuning.nearness import fitted
from tvmdet.tuning.planner import TaskState
from tvmdet.tuning.ranking import Ranking
from tvmdet.tuning.search import BATCH, TaskSearch, one_line
from tvmdet.tuning.target_records import TargetRecords

__all__ = ["Batch", "Candidates"]

Batch: TypeAlias = list[tuple[Decision, MeasureCandidate]]

_RELEARN = 12  # records of an earlier run that the cost model is taught per task


class Candidates:
    """The searches of a run's tasks, and the records that they begin with.

    Attributes:
        spent_s: Seconds spent in schedules and in the cost model.
    """

    def __init__(
        self,
        records: TargetRecords,
        target: Target,
        *,
        threads: int,
        seed: int,
        refuse: Callable[[TaskState, Decision, Failure], None],
    ) -> None:
        """Searches nothing yet.

        Args:
            records: What is known of the target.
            target: What candidates are compiled for.
            threads: Threads that they compute with.
            seed: Of the random choices.
            refuse: Told of each decision that cannot be scheduled.

        Raises:
            TuningError: xgboost is not installed.
        """
        self.spent_s = {"schedule": 0.0, "model": 0.0}
        self._records = records
        self._tvm_target = tvm_target(target, threads)
        self._threads = threads
        self._seed = seed
        self._refuse = refuse
        self._ranking = Ranking(seed=seed)
        self._searches: dict[TaskState, TaskSearch] = {}

    def recall(self, state: TaskState) -> None:
        """Takes over what earlier runs found out about a task."""
        task = state.task
        found = self._records.measured(task.fingerprint, self._threads)
        valid = set(task.decisions)
        state.remaining = sum(decision not in found for decision in task.decisions)
        slice_start = None
        for decision, record in found.items():
            if decision not in valid:  # of an older version of the template
                continue
            state.tried += 1
            if record.ok:
                state.record(record.cost)
                state.known = True
            else:
                state.error = f"{record.error_kind}: {record.error}"
            if state.tried % BATCH == 0:  # as if earlier records had been slices of this run
                state.end_slice(slice_start)
                slice_start = state.best_s
        state.start_s = state.best_s
        if state.best_s is None and not state.remaining:
            state.failed = state.error or "no candidate could be measured"

    def costs_of(self, state: TaskState) -> dict[Decision, float]:
        """Returns what each decision costs that is measured by now, earlier runs included."""
        found = self._records.measured(state.task.fingerprint, self._threads)
        valid = set(state.task.decisions)
        return {d: record.cost for d, record in found.items() if d in valid and record.ok}

    def again(self, state: TaskState, decision: Decision) -> MeasureCandidate | None:
        """Schedules a decision that has run before; None if that is not possible any more."""
        try:
            search = self._search_of(state)
        except Exception as error:  # see next_batch
            state.give_up(one_line(error))
            return None
        candidate = search.candidate(decision)
        search.take_rejected()  # its record stands
        return candidate

    def next_batch(self, state: TaskState, size: int = BATCH) -> Batch:
        """Returns what to measure next; a task that breaks is given up, and nothing returned."""
        try:
            return self._ask(state, self._search_of(state), size)
        except TvmdetError:
            raise
        except Exception as error:  # one task must not end the run, whatever TVM raises
            state.give_up(one_line(error))
            return []

    def learn(self, state: TaskState, batch: Batch, costs: Sequence[float | None]) -> None:
        """Teaches the cost model what a task's candidates cost; None for one that failed."""
        if not batch:
            return
        try:
            self._searches[state].learn(batch, costs)
        except Exception as error:  # a kernel whose features break the model; see next_batch
            state.give_up(one_line(error))

    def release(self, state: TaskState) -> None:
        """Drops what is scheduled of a task that stagnates and not yet measured."""
        search = self._searches.get(state)
        if search is not None:
            search.release()

    def _search_of(self, state: TaskState) -> TaskSearch:
        if state not in self._searches:
            self._searches[state] = self._make_search(state)
        return self._searches[state]

    def _make_search(self, state: TaskState) -> TaskSearch:
        task = state.task
        found = self._records.measured(task.fingerprint, self._threads)
        search = TaskSearch(task, self._tvm_target, self._ranking, measured=found, seed=self._seed)
        ran = sorted(self.costs_of(state).items(), key=lambda entry: entry[1])
        for decision, cost in ran:
            search.seen(decision, cost)
        taught: Batch = []
        costs: list[float] = []
        for decision, cost in ran[:: -(-len(ran) // _RELEARN) or 1]:  # from the best to the worst
            candidate = search.candidate(decision)
            if candidate is not None:
                taught.append((decision, candidate))
                costs.append(cost)
        search.take_rejected()
        if taught:
            search.learn(taught, costs)
        return search

    def _ask(self, state: TaskState, search: TaskSearch, size: int) -> Batch:
        """Asks for candidates and puts down the decisions that cannot be scheduled."""
        search.suggest(self._hints(state))
        batch = search.next_batch(size)
        for rejected in search.take_rejected():
            why = Failure(kind="schedule", message=rejected.error)
            self._refuse(state, rejected.decision, why)
        state.remaining = search.remaining
        for phase, seconds in search.spent_s.items():
            self.spent_s[phase] += seconds
            search.spent_s[phase] = 0.0
        return batch

    def _hints(self, state: TaskState) -> list[Decision]:
        """Returns what did well on other processors, then on similar workloads."""
        task, records = state.task, self._records
        name = task.template.name
        allowed = frozenset(task.decisions)
        known = (
            records.best(task.fingerprint, self._threads, allowed),
            records.borrow(task.anchor, name, self._threads, allowed),
        )
        borrowed = [record for record in known if record is not None]
        borrowed.sort(key=lambda record: record.predicted)  # as the compiler takes them
        hints = [record.decision for record in borrowed]
        near = records.near(task.anchor, name, self._threads)
        if near is not None:
            hints.append(fitted(near.decision, task.decisions))
        return hints
