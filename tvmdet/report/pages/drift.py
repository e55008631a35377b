"""Rivals as witnesses of the machine: the same program must take as long in every session.

What tvmdet is divided by was timed beside it and drifted with it; but milliseconds of several
sessions stand in one table, where a machine that has become slower looks like a slower target.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tvmdet.counted import counted
from tvmdet.report.apart import clock_interval, entry_of
from tvmdet.report.pages.names import milliseconds
from tvmdet.report.pages.runs import Run
from tvmdet.report.statistics import FEWEST_ROUNDS, LEAST_DIFFERENCE

__all__ = ["drifts"]


@dataclass(frozen=True, kw_only=True)
class _Drift:
    """The sessions in which a rival was fastest and slowest beyond noise."""

    fast: Run
    slow: Run

    @property
    def ratio(self) -> float:
        return (self.slow.median_ms or 0.0) / (self.fast.median_ms or math.inf)


def drifts(runs: Iterable[Run]) -> list[str]:
    """Says which rivals, unchanged, took longer in one session than in another, beyond noise.

    A rival is unchanged when machine, threads, kind of call, batch, picture, precision, version
    and settings are equal; whose code tvmdet ran beside it makes no difference to it.

    Args:
        runs: Of one model.

    Returns:
        One sentence a rival, about the row that differs most.
    """
    alike: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        if not run.is_ours and run.latencies_ms.size >= FEWEST_ROUNDS:
            alike.setdefault(_same(run), []).append(run)
    by_rival: dict[str, list[_Drift]] = {}
    for sessions in alike.values():
        for found in _drift(sessions):
            by_rival.setdefault(found.fast.side, []).append(found)
    return [_sentence(side, found) for side, found in by_rival.items()]


def _same(run: Run) -> tuple[object, ...]:
    entry = None if run.table is None else entry_of(run.table, run.entry_name)
    settings = "" if entry is None else entry.settings
    place = run.place
    where = (place.machine, place.threads, run.what, run.batch_size, run.picture)
    return (*where, run.runtime, run.precision, run.version, settings)


def _drift(sessions: Sequence[Run]) -> Iterator[_Drift]:
    medians = [run.median_ms or 0.0 for run in sessions]
    if max(medians) <= (1.0 + LEAST_DIFFERENCE) * min(medians):
        return  # spares the resampling
    intervals = [
        (clock_interval(run.table, run.entry_name), run)
        for run in sessions
        if run.table is not None
    ]
    known = [(interval, run) for interval, run in intervals if interval is not None]
    below, fast = min(known, key=lambda one: one[0].high)
    above, slow = max(known, key=lambda one: one[0].low)
    if above.low - below.high > math.log1p(LEAST_DIFFERENCE):
        yield _Drift(fast=fast, slow=slow)


def _sentence(side: str, found: Sequence[_Drift]) -> str:
    worst = max(found, key=lambda one: one.ratio)
    fast, slow = worst.fast, worst.slow
    more = f", and so in {counted(len(found) - 1, 'other row')}" if len(found) > 1 else ""
    return (
        f"sessions are not comparable: {side} took {milliseconds(slow.median_ms)} ms in "
        f"{slow.file} and {milliseconds(fast.median_ms)} ms in {fast.file} ({fast.what}, batch "
        f"{fast.batch_size}{more}); compare milliseconds of one session only, or measure again"
    )
