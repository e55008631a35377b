"""Contestants timed in turn, one call at a time, while the others sleep."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tvmdet.report.statistics import FEWEST_ROUNDS
from tvmdet.report.worker import WorkerError

__all__ = ["Contestant", "Plan", "Timings", "time_in_turn"]

_SPIN_DOWN_S = 0.02
_LONGEST_SPIN_S = 1.0


class Contestant(Protocol):
    """What can be timed in turn; a :class:`tvmdet.report.worker.Worker` is one."""

    def time(self, *, untimed: int = 1) -> float:
        """Returns the seconds of one call after some that are not timed."""

    def wait_until_asleep(self, *, at_least_s: float, at_most_s: float) -> bool:
        """Waits until its threads have stopped spinning; returns whether they have."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long to measure.

    Attributes:
        rounds: Timed rounds; None to go by the clock.
        duration_s: Seconds to measure, when ``rounds`` is None.
        warm_up: Rounds that are dropped.
    """

    rounds: int | None = None
    duration_s: float = 20.0
    warm_up: int = 3

    def is_done(self, rounds: int, elapsed_s: float) -> bool:
        """Returns whether so many timed rounds in so much time are enough."""
        if self.rounds is not None:
            return rounds >= self.rounds
        return rounds >= FEWEST_ROUNDS and elapsed_s >= self.duration_s


@dataclass(kw_only=True)
class Timings:
    """What was measured.

    Attributes:
        seconds: Of each contestant, one a round; the n-th of all are of the same round.
        failed: Contestants that failed on the way, with the reason; they have no timings.
        warm_up: Of each contestant, the calls of the rounds that were dropped.
        restless: Contestants whose threads were still spinning when the next one's turn came.
    """

    seconds: dict[str, list[float]]
    failed: dict[str, str] = field(default_factory=dict)
    warm_up: dict[str, list[float]] = field(default_factory=dict)
    restless: set[str] = field(default_factory=set)


def time_in_turn(
    contestants: Mapping[str, Contestant],
    plan: Plan,
    progress: Callable[[int, float], None] = lambda _rounds, _elapsed_s: None,
    between: Callable[[], None] = lambda: None,
) -> Timings:
    """Times contestants in rounds.

    In a round each contestant makes one call that is not timed and one that is. Before its turn
    it waits until the one before it sleeps. Every other round runs backwards, and every second one
    another contestant begins, so that each is as often first, and as often after two others.

    Args:
        contestants: By name.
        plan: How long.
        progress: Called after each timed round with their number and the seconds gone.
        between: Called before each timed round, while all sleep.
    """
    found = Timings(seconds={name: [] for name in contestants})
    found.warm_up = {name: [] for name in contestants}
    alive = dict(contestants)
    done, warm, started = 0, 0, time.monotonic()
    last: str | None = None
    while alive and not plan.is_done(done, time.monotonic() - started):
        timed: dict[str, float] = {}
        names = list(alive)
        start = (done + warm) // 2 % len(names)
        if warm >= plan.warm_up:
            _rest(alive, last, found.restless)
            last = None
            between()
        order = names[start:] + names[:start]
        if (done + warm) % 2:
            order.reverse()
        for name in order:
            _rest(alive, last, found.restless)
            last = name
            try:
                timed[name] = alive[name].time()
            except WorkerError as error:
                found.failed[name] = str(error)
                del alive[name], found.seconds[name], found.warm_up[name]
        is_warm = warm >= plan.warm_up
        for name in alive:
            (found.seconds if is_warm else found.warm_up)[name].append(timed[name])
        if not is_warm:
            warm += 1
            started = time.monotonic()
            continue
        done += 1
        progress(done, time.monotonic() - started)
    return found


def _rest(alive: Mapping[str, Contestant], last: str | None, restless: set[str]) -> None:
    """Waits until the one whose turn it was sleeps, and notes it where it does not."""
    if (
        last is not None
        and last in alive
        and not alive[last].wait_until_asleep(at_least_s=_SPIN_DOWN_S, at_most_s=_LONGEST_SPIN_S)
    ):
        restless.add(last)
