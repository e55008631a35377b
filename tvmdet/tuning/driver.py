"""Tunes a model within a wall-clock budget.

Each task is measured with its default first, all tasks in one round so that the builders stay
busy; then slices of a few candidates go to the task with the largest expected gain, until the
time is spent or nothing promises a gain worth a slice. Every trial is on disk before the next
one runs, so the run can be killed at any moment and a later one goes on from there.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import tvm
from tvm.s_tir.meta_schedule.builder import BuilderInput
from tvm.s_tir.meta_schedule.runner import RunnerInput, RunnerResult
from tvm.s_tir.meta_schedule.search_strategy import MeasureCandidate

from tvmdet.errors import InputError, TargetError, TuningError
from tvmdet.passes.lower import lower, tvm_target
from tvmdet.schedules.base import Decision
from tvmdet.targets import Target, resolve_target
from tvmdet.tuning.measure import (
    MeasureOptions,
    Measurer,
    split_error,
    usable_cpus,
)
from tvmdet.tuning.planner import TaskState, cpu_model, peak_flop_per_s, total_latency, worth_tuning
from tvmdet.tuning.pool import START_HINT
from tvmdet.tuning.progress import TuningProgress, TuningReport
from tvmdet.tuning.ranking import Ranking
from tvmdet.tuning.record import TuningRecord
from tvmdet.tuning.search import BATCH, TaskSearch, one_line
from tvmdet.tuning.store import TuningStore, default_store
from tvmdet.tuning.task import Task, extract_tasks

__all__ = ["tune", "tune_tasks"]

_MIN_GAIN = 2e-4  # of the estimated latency: a slice that promises less is not worth its time
_RELEARN = 24  # records of an earlier run that the cost model is taught per task

Batch = list[tuple[Decision, MeasureCandidate]]


def tune(
    model: Any,
    *,
    target: str | Target = "host",
    budget_s: float = 600.0,
    batch_sizes: Sequence[int] = (1,),
    logs: Path | None = None,
    progress: Callable[[TuningProgress], None] | None = None,
    threads: int | None = None,
) -> TuningReport:
    """Measures schedules for a model's kernels and keeps what it finds in the tuning store.

    Args:
        model: As ``tvmdet.import_onnx`` returns it.
        target: Name of a target that this machine can run, or the target itself.
        budget_s: Seconds that tuning may take.
        batch_sizes: Batch buckets that the model will be compiled with.
        logs: Folder to write records to; the user's own store by default.
        progress: Called after every trial, in this thread.
        threads: Threads to measure on; by default the CPUs that this process may use.

    Returns:
        What was tried and gained. Ctrl-C ends the run early and is told by the report.

    Raises:
        InputError: The budget, a batch size or the number of threads is not positive.
        TargetError: The target is unknown, or this machine cannot run it.
        TuningError: xgboost is missing, or the store cannot be written.
    """
    chosen = resolve_target(target)
    _check(chosen, budget_s, threads)
    if not batch_sizes or min(batch_sizes) < 1:
        raise InputError(f"batch_sizes is {tuple(batch_sizes)}; give one or more sizes from 1")
    start = time.monotonic()
    module = lower(model, tuple(dict.fromkeys(batch_sizes)), chosen)
    return tune_tasks(
        extract_tasks(module, chosen),
        target=chosen,
        store=default_store(logs),
        budget_s=budget_s,
        progress=progress,
        threads=threads,
        model_name=model.name,
        started=start,
    )


def tune_tasks(
    tasks: Sequence[Task],
    *,
    target: Target,
    store: TuningStore,
    budget_s: float,
    progress: Callable[[TuningProgress], None] | None = None,
    threads: int | None = None,
    model_name: str = "",
    options: MeasureOptions | None = None,
    min_gain: float = _MIN_GAIN,
    started: float | None = None,
    seed: int = 0,
) -> TuningReport:
    """Tunes tasks; :func:`tune` for what is not a model.

    Args:
        tasks: What to tune; those with a single decision are left out.
        target: What they are compiled for.
        store: Where records are read and written.
        budget_s: Seconds that tuning may take.
        progress: Called after every trial.
        threads: Threads to measure on; by default the CPUs that this process may use.
        model_name: For the records.
        options: How candidates are timed.
        min_gain: Share of the estimated latency that a slice must promise; 0 to go on until
            every candidate is measured or the budget is spent.
        started: ``time.monotonic()`` when the budget began; now by default.
        seed: Of the search's random choices.

    Raises:
        InputError, TargetError, TuningError: As for :func:`tune`.
    """
    _check(target, budget_s, threads)
    run = _Run(
        [task for task in tasks if task.tunable],
        target=target,
        store=store,
        budget_s=budget_s,
        progress=progress,
        threads=threads or usable_cpus(),
        model_name=model_name,
        options=options or MeasureOptions(),
        min_gain=min_gain,
        started=time.monotonic() if started is None else started,
        seed=seed,
    )
    stopped = run.go()
    return run.report(stopped, untunable=len(tasks) - len(run.states))


def _check(target: Target, budget_s: float, threads: int | None) -> None:
    if not budget_s > 0:
        raise InputError(f"the tuning budget is {budget_s} s; give more than 0")
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}; give 1 or more")
    missing = target.missing_features()
    if missing:
        raise TargetError(
            f"this machine cannot run target {target.name}: it lacks {', '.join(missing)}; "
            "tune on a machine that has them, or choose another target (see `tvmdet targets`)"
        )


class _Run:
    """One tuning run."""

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        target: Target,
        store: TuningStore,
        budget_s: float,
        progress: Callable[[TuningProgress], None] | None,
        threads: int,
        model_name: str,
        options: MeasureOptions,
        min_gain: float,
        started: float,
        seed: int,
    ) -> None:
        self._target = target
        self._tvm_target = tvm_target(target, threads)
        self._store = store
        self._budget_s = budget_s
        self._progress = progress
        self._threads = threads
        self._model_name = model_name
        self._options = options
        self._min_gain = min_gain
        self._start = started
        self._seed = seed
        self._cpu = cpu_model()
        self._ranking = Ranking(seed=seed)
        self._interrupted = False
        self._trials = 0
        self._spent = {"schedule": 0.0, "build": 0.0, "run": 0.0, "model": 0.0}
        self._searches: dict[TaskState, TaskSearch] = {}
        peak = peak_flop_per_s(target, threads)
        self.states = [TaskState(task=t, roofline_s=t.workload.flop / peak) for t in tasks]

    def go(self) -> str:
        """Tunes until something ends it; returns what."""
        for state in self.states:
            self._recall(state)
        self._new = [state for state in self.states if not state.known]
        with (
            self._interrupt_as_flag(),
            Measurer(
                target=self._target,
                threads=self._threads,
                options=self._options,
                stop=lambda: self._interrupted,
            ) as measurer,
        ):
            try:
                return self._loop(measurer)
            except KeyboardInterrupt:
                return "interrupted"

    def _loop(self, measurer: Measurer) -> str:
        self._defaults(measurer)
        while not (why := self._why_stop()):
            worth = worth_tuning(self.states, self._min_gain)
            if not worth:
                left = sum(s.remaining for s in self.states if not s.failed)
                return "converged" if left else "exhausted"
            state = worth[0]
            search = self._open(state)
            if search is None:
                continue
            before = state.best_s
            batch = self._next_batch(state, search)
            self._measure(measurer, [(state, search, batch)])
            state.end_slice(before)
        return why

    def _defaults(self, measurer: Measurer) -> None:
        """Measures the default of every task that no earlier run has measured."""
        waiting = [s for s in self.states if s.best_s is None and not s.failed]
        step = max(1, 2 * measurer.parallel)
        for at in range(0, len(waiting), step):
            if self._why_stop():
                return
            work = []
            for state in waiting[at : at + step]:
                search = self._open(state)
                if search is not None:
                    work.append((state, search, self._next_batch(state, search, size=1)))
            self._measure(measurer, work)
            for state, _, _ in work:
                state.end_slice(None)

    def _why_stop(self) -> str:
        if self._interrupted:
            return "interrupted"
        return "budget" if self._elapsed() >= self._budget_s else ""

    def _elapsed(self) -> float:
        return time.monotonic() - self._start

    # Before and after measuring

    def _recall(self, state: TaskState) -> None:
        """Takes over what earlier runs found out about a task."""
        task = state.task
        found = self._store.measured(self._target.name, task.fingerprint, self._threads)
        valid = set(task.decisions)
        state.remaining = sum(decision not in found for decision in task.decisions)
        for decision, record in found.items():
            state.tried += decision in valid
            if record.ok:
                before = state.best_s
                state.record(record.median_s)
                state.known = True
                # As if each batch of earlier records had been a slice of this run.
                if state.tried % BATCH == 0:
                    state.end_slice(before)
            else:
                state.error = record.error
        state.start_s = state.best_s
        if state.best_s is None and not state.remaining:
            state.failed = state.error or "no candidate could be measured"

    def _open(self, state: TaskState) -> TaskSearch | None:
        """Returns the search of a task; one that cannot be made is reported and left out."""
        if state not in self._searches:
            try:
                self._searches[state] = self._make_search(state)
            except Exception as error:  # one task must not end the run, whatever TVM raises
                state.failed = one_line(error)
                return None
        return self._searches[state]

    def _make_search(self, state: TaskState) -> TaskSearch:
        task, target = state.task, self._target.name
        found = self._store.measured(target, task.fingerprint, self._threads)
        search = TaskSearch(task, self._tvm_target, self._ranking, measured=found, seed=self._seed)
        taught: list[tuple[Decision, MeasureCandidate]] = []
        results: list[RunnerResult] = []
        for decision, record in sorted(found.items(), key=lambda item: item[1].median_s):
            if decision not in set(task.decisions) or not record.ok:
                continue
            search.seen(decision, record.median_s)
            candidate = search.candidate(decision) if len(taught) < _RELEARN else None
            if candidate is not None:
                taught.append((decision, candidate))
                results.append(RunnerResult([record.median_s], None))
        search.take_rejected()
        if taught:
            search.learn(taught, results)
        return search

    def _next_batch(self, state: TaskState, search: TaskSearch, size: int = BATCH) -> Batch:
        """Asks for candidates and puts down the decisions that cannot be scheduled."""
        task, target = state.task, self._target.name
        borrowed = (
            self._store.best(target, task.fingerprint, self._threads),
            self._store.borrow(target, task.anchor, task.template.name, self._threads),
        )
        search.suggest(record.decision for record in borrowed if record is not None)
        batch = search.next_batch(size)
        for rejected in search.take_rejected():
            self._put_down(state, rejected.decision, error=rejected.error, kind="schedule")
        state.remaining = search.remaining
        for phase, seconds in search.spent_s.items():
            self._spent[phase] += seconds
            search.spent_s[phase] = 0.0
        return batch

    # Measuring

    def _measure(
        self, measurer: Measurer, work: Sequence[tuple[TaskState, TaskSearch, Batch]]
    ) -> None:
        """Builds every candidate, then runs them one at a time, each on disk before the next."""
        inputs = [
            BuilderInput(candidate.sch.mod, self._tvm_target)
            for _, _, batch in work
            for _, candidate in batch
        ]
        start = time.perf_counter()
        built = iter(measurer.builder.build(inputs) if inputs else [])
        self._spent["build"] += time.perf_counter() - start
        for state, search, batch in work:
            measured: Batch = []
            results: list[RunnerResult] = []
            for decision, candidate in batch:
                result = self._run_one(measurer, state, candidate, next(built))
                kind, message = split_error(result.error_msg or "")
                if kind == "start":
                    raise TuningError(f"a tuning worker cannot be started: {message}; {START_HINT}")
                if kind == "stopped":
                    continue
                latencies = tuple(float(value) for value in result.run_secs or ())
                self._put_down(state, decision, latencies, error=message, kind=kind)
                measured.append((decision, candidate))
                results.append(result)
            self._learn(state, search, measured, results)

    def _run_one(
        self, measurer: Measurer, state: TaskState, candidate: MeasureCandidate, built: Any
    ) -> RunnerResult:
        if built.error_msg:
            return RunnerResult(None, built.error_msg)
        if self._why_stop():
            return RunnerResult(None, "stopped: the run has ended")
        start = time.perf_counter()
        measurer.best_s = state.best_s
        item = RunnerInput(built.artifact_path, "cpu", candidate.args_info)
        (future,) = measurer.runner.run([item])
        result = future.result()
        self._spent["run"] += time.perf_counter() - start
        return result

    def _learn(
        self, state: TaskState, search: TaskSearch, batch: Batch, results: list[RunnerResult]
    ) -> None:
        if not batch:
            return
        try:
            search.learn(batch, results)
        except (tvm.error.TVMError, ValueError, RuntimeError) as error:
            # Features of an unusual kernel: the task is given up, what it measured is kept.
            state.remaining = 0
            state.error = one_line(error)

    def _put_down(
        self,
        state: TaskState,
        decision: Decision,
        latencies_s: tuple[float, ...] = (),
        *,
        error: str = "",
        kind: str = "",
    ) -> None:
        record = TuningRecord(
            target=self._target.name,
            fingerprint=state.task.fingerprint,
            anchor=state.task.anchor,
            decision=decision,
            latencies_s=latencies_s,
            error=error,
            error_kind=kind,
            threads=self._threads,
            cpu=self._cpu,
            tvm=tvm.__version__,
            time=time.time(),
            model=self._model_name,
        )
        self._store.append(record)
        self._trials += 1
        state.tried += 1
        if record.ok:
            state.record(record.median_s)
        else:
            state.error = f"{kind}: {error}"
        if self._progress is not None:
            self._progress(self._snapshot(state))

    # Telling

    def _snapshot(self, state: TaskState) -> TuningProgress:
        elapsed = self._elapsed()
        left = sum(s.remaining for s in self.states if not s.failed)
        per_trial = elapsed / max(self._trials, 1)
        total = len(self.states)
        return TuningProgress(
            elapsed_s=elapsed,
            budget_s=self._budget_s,
            trials=self._trials,
            tasks_done=total - len(worth_tuning(self.states, self._min_gain)),
            tasks_total=total,
            known=f"{sum(s.known for s in self.states)} of {total} tasks already known",
            task=state.task.anchor,
            latency_s=total_latency((s, s.best_s) for s in self.states),
            latency_start_s=total_latency((s, s.start_s) for s in self.states),
            eta_s=max(0.0, min(self._budget_s - elapsed, left * per_trial)),
        )

    def report(self, stopped: str, untunable: int) -> TuningReport:
        """Returns what the run did."""
        measured = [s for s in self.states if s.best_s is not None and s.start_s is not None]
        return TuningReport(
            target=self._target.name,
            threads=self._threads,
            tasks=len(self.states),
            untunable=untunable,
            known_before=sum(s.known for s in self.states),
            trials=self._trials,
            new=sum(s.best_s is not None for s in self._new),
            improved=sum((s.best_s or 0.0) < (s.start_s or 0.0) for s in measured),
            failed=tuple((s.task.anchor, s.failed) for s in self.states if s.failed),
            latency_before_s=total_latency((s, s.start_s) for s in measured),
            latency_after_s=total_latency((s, s.best_s) for s in measured),
            seconds=self._elapsed(),
            stopped=stopped,
            spent_s={phase: round(seconds, 3) for phase, seconds in self._spent.items()},
        )

    @contextlib.contextmanager
    def _interrupt_as_flag(self) -> Iterator[None]:
        """Turns the first Ctrl-C into a request to stop; a second one acts at once.

        A KeyboardInterrupt in the middle of a callback from TVM would be lost in its C++.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, frame: FrameType | None) -> None:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True

        previous = signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)
