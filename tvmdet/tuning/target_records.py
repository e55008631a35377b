"""The records that speak for a target: its own, then those that it was told to inherit.

What was measured wins over what was predicted, whoever's it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from tvmdet.schedules.base import Decision
from tvmdet.targets import Target
from tvmdet.tuning.record import TuningRecord
from tvmdet.tuning.store import TuningStore, most_telling

__all__ = ["TargetRecords"]


class TargetRecords:
    """Asks a store about one target.

    A named core is compiled for otherwise than the general target whose records it inherits: what
    was measured with the other's code is the better guess where there is no record of its own, and
    no more. What was measured is therefore a question about its own records alone.
    """

    def __init__(self, store: TuningStore, target: Target) -> None:
        """Reads nothing yet.

        Args:
            store: Where records lie.
            target: Whose are wanted.
        """
        self._store = store
        self._name = target.name
        self._names = tuple(dict.fromkeys((target.name, target.records)))

    @property
    def cpu(self) -> str:
        """Model of the processor whose records win over those of others."""
        return self._store.cpu

    def best(
        self,
        fingerprint: str,
        threads: int | None = None,
        among: Collection[Decision] | None = None,
    ) -> TuningRecord | None:
        """Returns the fastest record of a function; see :meth:`TuningStore.best`."""
        return self._first(lambda name: self._store.best(name, fingerprint, threads, among))

    def borrow(
        self,
        anchor: str,
        template: str,
        threads: int | None = None,
        among: Collection[Decision] | None = None,
    ) -> TuningRecord | None:
        """Returns the fastest of an anchor and template; see :meth:`TuningStore.borrow`."""
        return self._first(lambda name: self._store.borrow(name, anchor, template, threads, among))

    def comparable(
        self, anchors: Sequence[str], threads: int | None = None
    ) -> dict[str, TuningRecord]:
        """Returns the fastest of each anchor; see :meth:`TuningStore.comparable`."""
        every = [self._store.comparable(name, anchors, threads) for name in self._names]
        answers = [found for found in every if found]
        measured = [found for found in answers if not found[anchors[0]].predicted]
        return most_telling(measured or answers)

    def near(
        self, anchor: str, template: str, threads: int | None = None, *, same_layer: bool = False
    ) -> TuningRecord | None:
        """Returns that of the most similar workload; see :meth:`TuningStore.near`."""
        return self._first(
            lambda name: self._store.near(name, anchor, template, threads, same_layer=same_layer)
        )

    def near_anchors(self, anchor: str) -> list[str]:
        """Returns similar workloads; see :meth:`TuningStore.near_anchors`."""
        for name in self._names:
            if found := self._store.near_anchors(name, anchor):
                return found
        return []

    def measured(
        self, fingerprint: str, threads: int | None = None
    ) -> dict[Decision, TuningRecord]:
        """Returns what needs no measuring again; see :meth:`TuningStore.measured`."""
        return self._store.measured(self._name, fingerprint, threads)

    def _first(self, ask: Callable[[str], TuningRecord | None]) -> TuningRecord | None:
        """Returns the first answer that was measured, else the first that there is."""
        answers = [record for name in self._names if (record := ask(name)) is not None]
        measured = [record for record in answers if not record.predicted]
        return next(iter(measured or answers), None)
