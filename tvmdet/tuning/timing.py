"""How candidates are timed: in turn with a rival; what seems fastest, a second time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from tvmdet.tuning.measure import Built, Failure, Measured, Measurer, Rival
from tvmdet.tuning.planner import TaskState
from tvmdet.tuning.rivals import Rivals

__all__ = ["OF_THE_RUN", "Timing"]

OF_THE_RUN: Final = frozenset({"stopped", "board", "start", "setup"})
"""Failures that say nothing of a candidate, and so nothing of its rival either."""

_LONGER: Final = 4.0  # times the usual number of calls of those that seem to be the fastest


class Timing:
    """Times built candidates and deletes them, but for the rivals of later ones.

    Attributes:
        rivals: What candidates are timed in turn with; none where results repeat.
    """

    def __init__(
        self, measurer: Measurer, states: Sequence[TaskState], stop: Callable[[], object]
    ) -> None:
        """Times nothing yet.

        Args:
            measurer: Who runs them.
            states: Every task of the run.
            stop: Asked before each; once it says something, nothing is timed any more.
        """
        self.rivals = Rivals(measurer, states)
        self._measurer = measurer
        self._stop = stop

    def time(self, state: TaskState, built: Built | Failure) -> Measured | Failure:
        """Times a candidate of a task; what could not be built is passed on."""
        if isinstance(built, Failure):
            return built
        if self._stop():
            self._measurer.discard(built)
            return Failure(kind="stopped", message="the run has ended")
        result = self._in_turn(state, built)
        if self._measurer.repeats or isinstance(result, Failure):
            self._measurer.discard(built)
            return result
        if state.best_s is not None and result.cost_s < state.best_s:
            # Of many, the one that seems fastest has been lucky: the second time counts.
            result = self._measurer.run(built, rival=self.rivals.of(state), longer=_LONGER)
        if isinstance(result, Failure) or not self.rivals.offer(state, built, result.cost_s):
            self._measurer.discard(built)
        return result

    def _in_turn(self, state: TaskState, built: Built) -> Measured | Failure:
        """Times a candidate in turn with its rival, or with another where that one fails."""
        rival = None if self._measurer.repeats else self.rivals.of(state)
        result = self._measurer.run(built, best_s=state.best_s, rival=rival)
        if rival is None or isinstance(result, Measured) or result.kind in OF_THE_RUN:
            return result
        check = self._measurer.run(rival.built)
        if isinstance(check, Measured):
            return result
        if check.kind in OF_THE_RUN:
            return check
        self.rivals.drop(rival)
        return self._measurer.run(built, best_s=state.best_s, rival=self.rivals.of(state))

    def race(
        self, runners: Sequence[tuple[TaskState, Built]], leads_with_s: float
    ) -> Iterator[tuple[int, Measured]]:
        """Times the leaders of a layer for longer, in turn with one rival.

        Args:
            runners: The first leads: all are held against its rival, or else against itself.
            leads_with_s: What the first is recorded to cost.

        Yields:
            The place of a runner and what it took. One that fails ran before, and what is known of
            it stands.
        """
        state, leader = runners[0]
        rival = self.rivals.of(state) or Rival(built=leader, cost_s=leads_with_s)
        for place, (_, built) in enumerate(runners):
            if self._stop():
                break
            if built is rival.built:
                continue
            result = self._measurer.run(built, rival=rival, longer=_LONGER)
            if isinstance(result, Measured):
                yield place, result
        for _, built in runners:
            self._measurer.discard(built)
