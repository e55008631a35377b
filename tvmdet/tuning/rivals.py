"""What the candidates of each task are timed in turn with: one library, at a cost that stands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from tvmdet.tuning.measure import Built, Measurer, Rival
from tvmdet.tuning.planner import TaskState, related_layers

__all__ = ["Rivals"]

_CLEARLY: Final = 0.95
"""Of a rival's cost: what is not faster than that does not take its place. Each change carries an
error of measurement over to all later costs, and those that seem fastest have been lucky."""


class Rivals:
    """Holds the rival of each task.

    It is one of the task's own candidates, and the first is timed in turn with a rival of another
    task of the same group: the algorithms of a layer, and layers that may be one kernel. So the
    costs of a group are on one scale, although minutes lie between the measurements. The first of a
    group is timed alone: its latency is the scale.
    """

    def __init__(self, measurer: Measurer, states: Sequence[TaskState]) -> None:
        """Holds nothing yet.

        Args:
            measurer: Who makes the libraries.
            states: Every task of the run.
        """
        self._measurer = measurer
        self._groups = _groups(states)
        self._held: dict[TaskState, Rival] = {}
        self._sought: set[TaskState] = set()

    def wanted(self, states: Iterable[TaskState]) -> list[TaskState]:
        """Returns the tasks that an earlier run measured and whose fastest should be built first.

        They are those of ``states`` themselves, or for new ones the fastest of their groups. Each
        is named once: one that cannot be built any more is not asked for again.
        """
        found: dict[TaskState, None] = {}
        for state in states:
            if state in self._held:
                continue
            if state.best_s is not None:
                found[state] = None
            elif self.of(state) is None:
                able = [s for s in self._groups[state] if not s.failed]
                known = [(s.best_s, s) for s in able if s.best_s is not None]
                if known:
                    found[min(known, key=lambda entry: entry[0])[1]] = None
        new = [state for state in found if state not in self._sought and state not in self._held]
        self._sought.update(new)
        return new

    def of(self, state: TaskState) -> Rival | None:
        """Returns the rival of a task, else one of its layer, else one of its group, or None."""
        if state in self._held:
            return self._held[state]
        layers = related_layers(state.task)
        others = [
            (layers.isdisjoint(related_layers(other.task)), self._held[other].cost_s, other)
            for other in self._groups[state]
            if other in self._held
        ]
        if not others:
            return None
        return self._held[min(others, key=lambda entry: entry[:2])[2]]

    def offer(self, state: TaskState, built: Built, cost_s: float) -> bool:
        """Makes a candidate the rival of its task if there is none or it is clearly faster.

        Returns whether it did; the one before is deleted then.
        """
        before = self._held.get(state)
        if before is not None and cost_s >= _CLEARLY * before.cost_s:
            return False
        self._held[state] = Rival(built=built, cost_s=cost_s)
        if before is not None:
            self._measurer.discard(before.built)
        return True

    def drop(self, rival: Rival) -> None:
        """Forgets a rival that does not work any more; another may be built in its place."""
        lost = [state for state, held in self._held.items() if held is rival]
        for state in lost:
            del self._held[state]
        self._sought.difference_update(lost)
        self._measurer.discard(rival.built)


def _groups(states: Sequence[TaskState]) -> dict[TaskState, list[TaskState]]:
    """Returns the tasks of each one's group: those that layers connect."""
    group_of: dict[str, list[TaskState]] = {}
    for state in states:
        layers = related_layers(state.task)
        joined = {id(group_of[layer]): group_of[layer] for layer in layers if layer in group_of}
        merged = [*(one for group in joined.values() for one in group), state]
        for layer in {layer for one in merged for layer in related_layers(one.task)}:
            group_of[layer] = merged
    return {state: group_of[next(iter(related_layers(state.task)))] for state in states}
