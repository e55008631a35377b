"""The fastest decision known of each task, as a library to time others in turn with."""

from __future__ import annotations

from collections.abc import Iterable

from tvmdet.tuning.measure import Built, Measurer, Rival
from tvmdet.tuning.planner import TaskState, related_layers

__all__ = ["Leaders"]


class Leaders:
    """Holds one library a task; those of a layer share one scale of costs.

    The first candidate of a task is timed in turn with the leader of another algorithm of its
    layer, and later ones with its own, so that the algorithms compare although minutes lie between
    them. The first of a layer is timed alone: its latency is the scale.
    """

    def __init__(self, measurer: Measurer) -> None:
        """Holds nothing yet.

        Args:
            measurer: Who made the libraries.
        """
        self._measurer = measurer
        self._held: dict[TaskState, Rival] = {}
        self._sought: set[TaskState] = set()

    def wanted(self, states: Iterable[TaskState]) -> list[TaskState]:
        """Returns the tasks that an earlier run measured and whose library is not here.

        Each is named once: a leader that cannot be built any more is not asked for again.
        """
        new = [s for s in states if s.best_s is not None and s not in self._held]
        new = [state for state in new if state not in self._sought]
        self._sought.update(new)
        return new

    def hold(self, state: TaskState, built: Built, cost_s: float) -> None:
        """Takes a task's new leader; the one before is deleted."""
        before = self._held.get(state)
        self._held[state] = Rival(built=built, cost_s=cost_s)
        if before is not None:
            self._measurer.discard(before.built)

    def rival(self, state: TaskState) -> Rival | None:
        """Returns the leader of a task, else the fastest of its layer, else None."""
        if state in self._held:
            return self._held[state]
        layers = related_layers(state.task)
        related = [
            rival
            for other, rival in self._held.items()
            if not layers.isdisjoint(related_layers(other.task))
        ]
        return min(related, key=lambda rival: rival.cost_s, default=None)
