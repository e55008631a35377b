"""The loop of a tuning run: slices of trials for the task with the most to gain.

Each task is measured first with what another processor's records propose, or its default, many
tasks in one round so that the builders stay busy; then slices of a few candidates go to the task
with the largest expected gain, until the time is spent or nothing promises a gain worth a slice.
What a task is tried with is in :mod:`tvmdet.tuning.candidates`, how it is timed in
:mod:`tvmdet.tuning.timing`. The rest of the time goes to the leaders
of each layer, which are timed again. Every trial is on disk before the next one runs, so the run
can be killed at any moment and a later one goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm.s_tir.meta_schedule.search_strategy import MeasureCandidate

from tvmdet.board.pipeline_model import PipelineModel
from tvmdet.board.prediction import predictor_name
from tvmdet.board.session import BoardAddress
from tvmdet.counted import counted
from tvmdet.errors import TuningError
from tvmdet.schedules.base import Decision
from tvmdet.targets import Target
from tvmdet.tuning.candidates import Batch, Candidates
from tvmdet.tuning.interrupt import InterruptFlag
from tvmdet.tuning.measure import (
    Built,
    Failure,
    Measured,
    MeasureOptions,
    Measurer,
)
from tvmdet.tuning.planner import (
    TaskState,
    close_races,
    peak_flop_per_s,
    related_layers,
    total_latency,
    worth_tuning,
)
from tvmdet.tuning.pool import START_HINT
from tvmdet.tuning.predict import Predictor
from tvmdet.tuning.progress import TuningProgress, TuningReport
from tvmdet.tuning.record import TuningRecord
from tvmdet.tuning.store import TuningStore
from tvmdet.tuning.target_records import TargetRecords
from tvmdet.tuning.task import Task
from tvmdet.tuning.timing import OF_THE_RUN, Timing

__all__ = ["TuningRun"]

_STAGNANT = 3  # slices without an improvement after which a task's pool is dropped


@dataclass(kw_only=True)
class TuningRun:
    """One tuning run: what it was asked for and how far it is.

    Attributes:
        tasks: What to tune.
        target: What kernels are compiled for; this machine, or the board, must be able to run
            it.
        store: Where records are read and written.
        budget_s: Seconds from ``started`` on.
        threads: Threads to measure on.
        progress: Called after every trial.
        model_name: For the records.
        options: How candidates are timed.
        min_gain: Share of the estimated latency that a slice must promise.
        started: ``time.monotonic()`` when the budget began.
        seed: Of the search's random choices.
        board: Where kernels run; None for this machine.
        model: Who predicts cycles; None to measure. What is a time below, in names that end with
            ``_s`` or hold ``latency``, is then a number of cycles.
    """

    tasks: Sequence[Task]
    target: Target
    store: TuningStore
    budget_s: float
    threads: int
    progress: Callable[[TuningProgress], None] | None
    model_name: str
    options: MeasureOptions
    min_gain: float
    started: float
    seed: int
    board: BoardAddress | None = None
    model: PipelineModel | None = None

    def __post_init__(self) -> None:
        """Makes the cost model and the state of every task.

        Raises:
            TuningError: xgboost is not installed.
        """
        peak: float = self.target.flop_per_cycle_f32 * self.threads
        if self.model is None:
            peak = peak_flop_per_s(self.target, self.threads)
        self._states = [TaskState(task=t, roofline_s=t.workload.flop / peak) for t in self.tasks]
        self._candidates = Candidates(
            TargetRecords(self.store, self.target),
            self.target,
            threads=self.threads,
            seed=self.seed,
            refuse=self._put_down,
        )
        self._interrupt = InterruptFlag()
        self._trials = 0
        self._search_until_s = self.budget_s
        self._history: list[tuple[float, float]] = []
        self._spent = {"list": 0.0, "build": 0.0, "run": 0.0}

    def go(self) -> str:
        """Tunes until something ends it; returns what."""
        self._spent["list"] = self._elapsed()
        for state in self._states:
            self._candidates.recall(state)
        with (
            self._interrupt,
            self._measurer() as measurer,
        ):
            self._timing = Timing(measurer, self._states, self._why_stop)
            try:
                return self._loop(measurer)
            except KeyboardInterrupt:
                return "interrupted"

    def _measurer(self) -> Measurer:
        def stop() -> bool:
            return self._interrupt.raised

        if self.model is not None:
            return Predictor(
                target=self.target,
                threads=self.threads,
                options=self.options,
                stop=stop,
                model=self.model,
            )
        return Measurer(
            target=self.target,
            threads=self.threads,
            options=self.options,
            stop=stop,
            board=self.board,
            give_up=lambda: bool(self._why_stop()),
        )

    def _loop(self, measurer: Measurer) -> str:
        self._search_until_s = self.budget_s * (1.0 - self.options.confirm_share)
        why = self._explore(measurer)
        self._search_until_s = self.budget_s
        if self.options.confirm_share:
            self._confirm(measurer)
        return why

    def _explore(self, measurer: Measurer) -> str:
        """Tries decisions that nobody has measured."""
        self._defaults(measurer)
        while not (why := self._why_stop()):
            worth = worth_tuning(self._states, self.min_gain)
            if not worth:
                left = sum(s.remaining for s in self._states if not s.failed)
                return "converged" if left else "exhausted"
            state = worth[0]
            before = state.best_s
            self._measure(measurer, [(state, self._candidates.next_batch(state))])
            state.end_slice(before)
            self._note_latency()
            if state.stale >= _STAGNANT:
                self._candidates.release(state)
        return why

    def _note_latency(self) -> None:
        latency = total_latency((s, s.best_s) for s in self._states)
        if latency is not None:
            self._history.append((self._elapsed(), latency))

    def _recent(self) -> tuple[float, float | None]:
        """Returns the seconds of the last third of the search, and the share that it saved."""
        if not self._history:
            return 0.0, None
        end, last = self._history[-1]
        earlier = [latency for elapsed, latency in self._history if elapsed <= end * 2 / 3]
        return end / 3, 1.0 - last / earlier[-1] if earlier else None

    def _confirm(self, measurer: Measurer) -> None:
        """Times the leaders of each layer again and for longer, while time is left.

        What each costs now replaces what it was recorded with.
        """
        for race in close_races(self._states, self._candidates.costs_of):
            if self._why_stop():
                return
            able = [
                (state, decision, candidate)
                for state, decision in race
                if (candidate := self._candidates.again(state, decision)) is not None
            ]
            libraries = measurer.build([candidate for *_, candidate in able])
            runners = [
                (state, decision, built)
                for (state, decision, _), built in zip(able, libraries, strict=True)
                if isinstance(built, Built)
            ]
            if runners:
                self._race(runners)

    def _race(self, runners: Sequence[tuple[TaskState, Decision, Built]]) -> None:
        leader, decision, _ = runners[0]
        libraries = [(state, built) for state, _, built in runners]
        for place, result in self._timing.race(
            libraries, self._candidates.costs_of(leader)[decision]
        ):
            state, decision, _ = runners[place]
            self._put_down(state, decision, result)
        for state in {state for state, *_ in runners}:
            state.best_s = min(self._candidates.costs_of(state).values())

    def _defaults(self, measurer: Measurer) -> None:
        """Measures one decision of every task that no earlier run has measured.

        Pairs of convolutions come last: they are timed in turn with one of the two.
        """
        waiting = [s for s in self._states if s.best_s is None and not s.failed]
        waiting.sort(key=lambda state: len(related_layers(state.task)))
        step = max(1, 2 * measurer.parallel)
        for at in range(0, len(waiting), step):
            if self._why_stop():
                return
            states = waiting[at : at + step]
            self._measure(measurer, [(s, self._candidates.next_batch(s, size=1)) for s in states])
            for state in states:
                state.end_slice(None)

    def _why_stop(self) -> str:
        if self._interrupt.raised:
            return "interrupted"
        return "budget" if self._elapsed() >= self._search_until_s else ""

    def _elapsed(self) -> float:
        return time.monotonic() - self.started

    # Measuring

    def _measure(self, measurer: Measurer, work: Sequence[tuple[TaskState, Batch]]) -> None:
        """Builds every candidate, then runs them one at a time, each on disk before the next."""
        known = []
        if not measurer.repeats:
            known = self._unbuilt_rivals([state for state, batch in work if batch])
        candidates = [candidate for _, batch in work for _, candidate in batch]
        start = time.perf_counter()
        libraries = measurer.build(candidates + [candidate for *_, candidate in known])
        self._spent["build"] += time.perf_counter() - start
        built = iter(libraries)
        for (state, cost, _), library in zip(known, libraries[len(candidates) :], strict=True):
            if isinstance(library, Built) and not self._timing.rivals.offer(state, library, cost):
                measurer.discard(library)
        for state, batch in work:
            measured: Batch = []
            costs: list[float | None] = []
            for decision, candidate in batch:
                start = time.perf_counter()
                result = self._timing.time(state, next(built))
                self._spent["run"] += time.perf_counter() - start
                if isinstance(result, Failure):
                    self._refuse_unusable(result)
                    if result.kind in OF_THE_RUN:
                        continue
                self._put_down(state, decision, result)
                measured.append((decision, candidate))
                costs.append(None if isinstance(result, Failure) else result.cost_s)
            self._candidates.learn(state, measured, costs)

    def _unbuilt_rivals(
        self, states: Sequence[TaskState]
    ) -> list[tuple[TaskState, float, MeasureCandidate]]:
        """Returns what earlier runs found fastest, to be built, and what it costs."""
        found = []
        for state in self._timing.rivals.wanted(states):
            seconds = self._candidates.costs_of(state)
            decision = min(seconds, key=seconds.__getitem__)
            candidate = self._candidates.again(state, decision)
            if candidate is not None:
                found.append((state, seconds[decision], candidate))
        return found

    def _refuse_unusable(self, failure: Failure) -> None:
        """Ends a run in which nothing can be measured."""
        if failure.kind == "start":
            raise TuningError(f"a tuning worker cannot be started: {failure.message}; {START_HINT}")
        if failure.kind == "setup":
            raise TuningError(
                f"the board at {self.board} answers and cannot run kernels: {failure.message}; "
                f"is it a {self.target.name}? Make its kit again (docs/arm.md)"
            )

    def _put_down(self, state: TaskState, decision: Decision, result: Measured | Failure) -> None:
        record = TuningRecord(
            target=self.target.name,
            fingerprint=state.task.fingerprint,
            anchor=state.task.anchor,
            decision=decision,
            **self._outcome(result),
            threads=self.threads,
            cpu=self.store.cpu,
            tvm=tvm.__version__,
            time=time.time(),
            model=self.model_name,
        )
        self.store.append(record)
        self._trials += 1
        state.tried += 1
        if record.ok:
            state.record(record.cost)
        else:
            state.error = f"{record.error_kind}: {record.error}"
        if self.progress is not None:
            self.progress(self._snapshot(state))

    def _outcome(self, result: Measured | Failure) -> dict[str, Any]:
        """Returns the fields of a record that say what came of a candidate."""
        if isinstance(result, Failure):
            return {"error": result.message, "error_kind": result.kind}
        if self.model is not None:
            return {"predicted_cycles": result.cost_s}
        return {"latencies_s": result.latencies_s, "pace": result.pace}

    # Telling

    def _snapshot(self, state: TaskState) -> TuningProgress:
        elapsed = self._elapsed()
        left = sum(s.remaining for s in self._states if not s.failed)
        per_trial = elapsed / max(self._trials, 1)
        total = len(self._states)
        return TuningProgress(
            elapsed_s=elapsed,
            budget_s=self.budget_s,
            trials=self._trials,
            tasks_done=total - len(worth_tuning(self._states, self.min_gain)),
            tasks_total=total,
            known=f"{sum(s.known for s in self._states)} of {counted(total, 'task')} already known",
            task=state.task.anchor,
            **self._totals(self._states, now="latency_s", before="latency_start_s"),
            predicted_by=self._predicted_by,
            eta_s=max(0.0, min(self.budget_s - elapsed, left * per_trial)),
        )

    @property
    def _predicted_by(self) -> str:
        return "" if self.model is None else predictor_name(self.model)

    def _totals(self, states: Sequence[TaskState], **names: str) -> dict[str, Any]:
        """Returns both sums by the names that they have in seconds, or as predicted cycles."""
        now = total_latency((s, s.best_s) for s in states)
        before = total_latency((s, s.start_s) for s in states)
        if self.model is None:
            return {names["now"]: now, names["before"]: before}
        return {
            names["now"]: None,
            names["before"]: None,
            "predicted_cycles": now,
            "predicted_cycles_before": before,
        }

    def report(self, stopped: str, untunable: int) -> TuningReport:
        """Returns what the run did."""
        measured = [s for s in self._states if s.best_s is not None and s.start_s is not None]
        recent_s, recent_gain = self._recent()
        spent = self._spent | self._candidates.spent_s
        return TuningReport(
            target=self.target.name,
            threads=self.threads,
            tasks=len(self._states),
            untunable=untunable,
            known_before=sum(s.known for s in self._states),
            trials=self._trials,
            new=sum(s.best_s is not None and not s.known for s in self._states),
            improved=sum((s.best_s or 0.0) < (s.start_s or 0.0) for s in measured),
            failed=tuple((s.task.anchor, s.failed) for s in self._states if s.failed),
            **self._totals(measured, now="latency_after_s", before="latency_before_s"),
            predicted_by=self._predicted_by,
            seconds=self._elapsed(),
            stopped=stopped,
            recent_s=recent_s,
            recent_gain=recent_gain,
            spent_s={phase: round(seconds, 3) for phase, seconds in spent.items()},
        )
