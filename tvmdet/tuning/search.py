"""The search for one task, as a MetaSchedule search strategy over a template's decisions.

The space is the template's list of joint decisions and not a MetaSchedule trace to mutate:

* Knobs are tied together. Registers bound the product of the tiles, a row tile must divide
  the row, a loop order may need a certain padding mode. A mutation of one sampled knob mostly
  leaves the valid set, and MetaSchedule finds out by applying the trace.
* Some knobs choose the structure (where to pad, which transform), so that one trace cannot
  express the space; each structure would be a design space of its own with its own population.
* The lists are short, tens to a few hundreds, because the template's author has left out what
  cannot win. Measuring costs 0.1 s and what remains for the search is to choose the order.
* A decision outlives changes of the schedule's code, prints, and is what the store keeps.

What MetaSchedule does here: contexts, candidates, features and the cost model.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm.ir.utils import derived_object
from tvm.s_tir import Schedule
from tvm.s_tir.meta_schedule import TuneContext, _ffi_api
from tvm.s_tir.meta_schedule.arg_info import ArgInfo
from tvm.s_tir.meta_schedule.search_strategy import MeasureCandidate, PySearchStrategy

from tvmdet.schedules.base import Decision
from tvmdet.tuning.ranking import Ranking
from tvmdet.tuning.task import Task

__all__ = ["BATCH", "Rejected", "TaskSearch"]

BATCH = 8
# Candidates that are scheduled and ranked, of which the best are measured. On ten convolutions
# with 80 to 100 decisions each, ranking 48 found in 24 trials what random order found in 40;
# ranking 16 gained nothing.
_POOL = 48
_IN_ORDER = 8  # successes of a task in the template's order before the model ranks
_EPSILON = 0.15  # share of a batch taken at random


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A decision whose schedule could not be made."""

    decision: Decision
    error: str


class TaskSearch:
    """Everything about one task between two slices of the run.

    Attributes:
        task: What is tuned.
        context: MetaSchedule's context; its strategy is this search.
        spent_s: Seconds spent in schedules and in the cost model since last asked.
    """

    def __init__(
        self,
        task: Task,
        target: tvm.target.Target,
        ranking: Ranking,
        *,
        measured: Iterable[Decision] = (),
        seed: int = 0,
    ) -> None:
        """Prepares the search.

        Args:
            task: What to tune.
            target: What candidates are compiled for.
            ranking: The cost model of the run.
            measured: Decisions that earlier runs have tried.
            seed: Of the random choices.
        """
        self.task = task
        self.spent_s = {"schedule": 0.0, "model": 0.0}
        self._ranking = ranking
        self._rng = random.Random(seed)
        done = set(measured)
        space = list(dict.fromkeys(task.decisions))
        self._hints: list[Decision] = []
        self._head = [d for d in space[:1] if d not in done]
        self._rest = [d for d in space[1:] if d not in done]
        self._pool: dict[Decision, MeasureCandidate] = {}
        self._handed_out: list[Decision] = []
        self._rejected: list[Rejected] = []
        self._scores: dict[Decision, float] = {}
        self._args = ArgInfo.from_prim_func(task.func)
        self.batch = BATCH
        mod = tvm.IRModule({"main": task.func.with_attr("global_symbol", "main")})
        self.context = _context(mod, target, _DecisionStrategy(self), task.anchor, seed)
        self.context.pre_tuning(len(space), BATCH, [Schedule(mod)])

    @property
    def remaining(self) -> int:
        """Decisions not tried yet."""
        return len(self._hints) + len(self._head) + len(self._rest) + len(self._pool)

    def suggest(self, decisions: Iterable[Decision]) -> None:
        """Puts decisions that did well elsewhere first, where they are new to this task.

        Before the default too: a run that ends early must not leave its task with less than it had.
        """
        for decision in decisions:
            for waiting in (self._head, self._rest):
                if decision in waiting:
                    waiting.remove(decision)
                    self._hints.append(decision)

    def seen(self, decision: Decision, cost: float) -> None:
        """Says what a decision costs that an earlier run measured."""
        self._scores[decision] = cost

    def next_batch(self, size: int = BATCH) -> list[tuple[Decision, MeasureCandidate]]:
        """Returns the next candidates to measure, none when all have been tried."""
        self.batch = size
        candidates = self.context.generate_measure_candidates()
        return list(zip(self._handed_out, candidates or [], strict=True))

    def take_rejected(self) -> list[Rejected]:
        """Returns the decisions that could not be scheduled since last asked."""
        taken, self._rejected = self._rejected, []
        return taken

    def candidate(self, decision: Decision) -> MeasureCandidate | None:
        """Applies a decision; one that does not fit is put down as rejected."""
        start = time.perf_counter()
        try:
            schedule = self.task.template.apply(self.task.func, self.task.workload, decision)
            # As the compiler marks them: buffers of one call never overlap.
            main = schedule.mod["main"].with_attr("tirx.noalias", True)
            schedule.mod.update_func(schedule.mod.get_global_var("main"), main)
            return MeasureCandidate(schedule, self._args)
        except Exception as error:  # templates are plug-ins: whatever they raise is an answer
            self._rejected.append(Rejected(decision=decision, error=one_line(error)))
            return None
        finally:
            self.spent_s["schedule"] += time.perf_counter() - start

    def _generate(self) -> list[MeasureCandidate] | None:
        chosen: dict[Decision, MeasureCandidate] = {}
        for waiting in (self._hints, self._head):
            while waiting and len(chosen) < self.batch:
                self._add(chosen, waiting.pop(0))
        room = self.batch - len(chosen)
        if room and self._ranking.ready and len(self._scores) >= _IN_ORDER:
            chosen |= self._ranked(room)
        while self._rest and len(chosen) < self.batch:
            self._add(chosen, self._rest.pop(0))
        self._handed_out = list(chosen)
        return list(chosen.values()) or None

    def _add(self, chosen: dict[Decision, MeasureCandidate], decision: Decision) -> None:
        candidate = self.candidate(decision)
        if candidate is not None:
            chosen[decision] = candidate

    def _ranked(self, size: int) -> dict[Decision, MeasureCandidate]:
        self._fill_pool()
        pool = list(self._pool)
        if len(pool) > size:
            start = time.perf_counter()
            speeds = self._ranking.predict(self.context, list(self._pool.values()))
            order = sorted(zip(-speeds, range(len(pool)), strict=True))
            pool = [pool[index] for _, index in order]
            self.spent_s["model"] += time.perf_counter() - start
        explore = sum(self._rng.random() < _EPSILON for _ in range(size))
        best, others = pool[: size - explore], pool[size - explore :]
        best += self._rng.sample(others, min(explore, len(others)))
        return {decision: self._pool.pop(decision) for decision in best}

    def _fill_pool(self) -> None:
        """Adds neighbours of the best decisions, then random ones."""
        near = sorted(self._scores, key=self._scores.__getitem__)[:3]
        self._rng.shuffle(self._rest)
        self._rest.sort(key=lambda d: min((_distance(d, n) for n in near), default=0) > 1)
        while self._rest and len(self._pool) < _POOL:
            # Half from the front, which is near the best, half from anywhere.
            at = 0 if len(self._pool) % 2 else self._rng.randrange(len(self._rest))
            self._add(self._pool, self._rest.pop(at))

    def learn(
        self,
        batch: Sequence[tuple[Decision, MeasureCandidate]],
        costs: Sequence[float | None],
    ) -> None:
        """Takes what each candidate of a batch costs; None for one that failed."""
        start = time.perf_counter()
        for (decision, _), cost in zip(batch, costs, strict=True):
            if cost is not None:
                self._scores[decision] = cost
        self._ranking.learn(self.context, [candidate for _, candidate in batch], costs)
        self.spent_s["model"] += time.perf_counter() - start

    def release(self) -> None:
        """Drops the scheduled pool, about 0.1 MB a candidate, of a task that stagnates."""
        self._ranking.forget(list(self._pool.values()))
        self._rest += self._pool
        self._pool.clear()


@derived_object
class _DecisionStrategy(PySearchStrategy):  # type: ignore[misc]
    """MetaSchedule's view of a :class:`TaskSearch`."""

    def __init__(self, search: TaskSearch) -> None:
        super().__init__()
        self._search = search

    def _initialize_with_tune_context(self, context: TuneContext) -> None:
        pass

    def pre_tuning(self, *args: Any) -> None:
        pass

    def post_tuning(self) -> None:
        pass

    def generate_measure_candidates(self) -> list[MeasureCandidate] | None:
        return self._search._generate()

    def notify_runner_results(self, measure_candidates: Any, results: Any) -> None:
        pass

    def clone(self) -> Any:
        return _DecisionStrategy(self._search)


def one_line(error: BaseException, limit: int = 600) -> str:
    """Returns the telling line of an error: TVM prints the whole function before it."""
    text = str(error).strip()
    text = text.rpartition("Error message:")[2] or text
    return f"{type(error).__name__}: {' '.join(text.split())[-limit:]}"


def _distance(left: Decision, right: Decision) -> int:
    """Returns how many knobs differ."""
    return sum(a != b for a, b in zip(left.knobs, right.knobs, strict=False))


def _context(
    mod: tvm.IRModule, target: tvm.target.Target, strategy: Any, name: str, seed: int
) -> TuneContext:
    """Makes a TuneContext without its Python constructor.

    That one first imports every tensor intrinsic of every target, which takes 28 s, and does
    nothing else that is needed here.
    """
    context = TuneContext.__new__(TuneContext)
    threads = int(target.attrs.get("num-cores", 1))
    context.__init_handle_by_constructor__(
        _ffi_api.TuneContext, mod, target, None, strategy, name, threads, seed + 1, None
    )
    _ffi_api.TuneContextInitialize(context)
    return context
