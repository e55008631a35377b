"""Times of two sessions: which was faster, at equal speed of the machine.

Times of two sessions are never of the same rounds, so that nothing cancels by itself. But each
round also timed the yardstick, a piece of work that never changes: what is compared is a time over
that, round by round, which is the time at equal speed of the machine. Whether a network slows down
as the yardstick does shows in the spread of that ratio, as far as the yardstick moved within the
sessions; by what it moved between them beyond that is noise, as is what two copies of tvmdet
differed by in each, and where there is such, the clock must say the same. A rival that was timed
both times is a second witness: nothing is slower that is not slower against it too, and where the
yardstick cannot tell, tvmdet is slower when it is so against every rival, by what the one says that
saw the least.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmdet.report.contest import OURS
from tvmdet.report.resampling import Interval, median_interval
from tvmdet.report.result_tables import Contestant, Load, Ratio, ResultTable
from tvmdet.report.statistics import FEWEST_ROUNDS, LEAST_DIFFERENCE, Verdict, could_see

__all__ = ["Apart", "against_rivals", "clock_interval", "entry_of", "time_apart"]

_BUSY = "busy"
_LEAST = math.log1p(LEAST_DIFFERENCE)
_SHORTEST_US = 1e-3
_MOST_RESAMPLED = 4000


@dataclass(frozen=True, kw_only=True)
class Apart:
    """How a contestant's time relates to that of an earlier session.

    Attributes:
        ratio: Now over then, at equal speed of the machine where that was measured; its verdict is
            ``undecided`` where there is a doubt.
        by: The rival whose time shows the machine's speed in ``ratio``; empty where the yardstick
            does, or the clock alone.
        doubt: Why a slower time proves nothing; empty when it proves something.
        machine_moved: How much slower the machine itself is now, as the yardstick shows; None where
            that was not timed.
    """

    ratio: Ratio
    doubt: str = ""
    machine_moved: float | None = None
    by: str = ""


def time_apart(then: ResultTable, now: ResultTable, name: str = OURS) -> Apart | None:
    """Compares a contestant's time in two tables of the same thing.

    Args:
        then: Of the earlier session.
        now: Of the later one.
        name: Of the contestant.

    Returns:
        None where it was not timed in both: what is wrong or failed is not.
    """
    sides = entry_of(then, name), entry_of(now, name)
    if sides[0] is None or sides[1] is None:
        return None
    if not (sides[0].rounds_us and sides[1].rounds_us):
        return None
    ratio = _at_equal_speed(then, now, sides[0], sides[1])
    doubt, by = "", ""
    rivals = dict(against_rivals(then, now)) if name == OURS else {}
    if ratio.verdict == "undecided":
        by = _least_that_shows_it(rivals, ratio)
        ratio = rivals.get(by, ratio)
    if ratio.verdict == "slower":
        doubt = _doubt(then.disturbance, now.disturbance)
        if not doubt:
            # A rival that could not have seen so much says nothing.
            low = ratio.interval_95[0]
            seen = rivals.values()
            able = [one for one in seen if one.verdict == "slower" or one.interval_95[1] < low]
            if able and all(one.verdict != "slower" for one in able):
                # The rivals' own times have moved too: it was the machine.
                doubt = "not slower against any rival that was timed beside it both times"
    return Apart(
        ratio=replace(ratio, verdict="undecided") if doubt else ratio,
        doubt=doubt,
        machine_moved=_machine_moved(then, now),
        by=by,
    )


def _least_that_shows_it(rivals: Mapping[str, Ratio], own: Ratio) -> str:
    """Returns the rival that saw the smallest slow-down, where every one of them saw some.

    Empty where one did not, or where the undecided time itself rules out what that one saw.
    """
    if not rivals or any(one.verdict != "slower" for one in rivals.values()):
        return ""
    least = min(rivals, key=lambda name: rivals[name].interval_95[0])
    return least if rivals[least].interval_95[0] <= own.interval_95[1] else ""


def against_rivals(then: ResultTable, now: ResultTable) -> Iterator[tuple[str, Ratio]]:
    """Yields how tvmdet's time over each rival's relates to what it was, with the rival's name.

    Only of rivals that were timed in the same rounds both times, and in the same version.
    """
    ours = entry_of(then, OURS), entry_of(now, OURS)
    if ours[0] is None or ours[1] is None:
        return
    noise = math.hypot(_noise(then), _noise(now))
    for rival in then.entries:
        other = entry_of(now, rival.name)
        # Another version of the rival would be another measure.
        if rival.name == OURS or other is None or other.version != rival.version:
            continue
        if not rival.rounds_us or len(rival.rounds_us) != len(ours[0].rounds_us):
            continue
        if len(other.rounds_us) != len(ours[1].rounds_us):
            continue
        over_now = _log_ratio(ours[1], other.rounds_us)
        over_then = _log_ratio(ours[0], rival.rounds_us)
        yield rival.name, _judged(over_now, over_then, noise)


def clock_interval(table: ResultTable, name: str) -> Interval | None:
    """Returns the logarithm of a contestant's time by the clock, in microseconds.

    What two copies of tvmdet differed by in the table is in the interval. None where the contestant
    was not timed.
    """
    entry = entry_of(table, name)
    if entry is None or not entry.rounds_us:
        return None
    return _log_median(entry).widened(at_least=0.0, by=_noise(table))


def entry_of(table: ResultTable, name: str) -> Contestant | None:
    """Returns a contestant that was timed or tried; None where there was none of that name."""
    return next((entry for entry in table.entries if entry.name == name), None)


def _at_equal_speed(
    then: ResultTable, now: ResultTable, side_then: Contestant, side_now: Contestant
) -> Ratio:
    """Judges times over the yardstick's, or by the clock where that was not timed."""
    noise = math.hypot(_noise(then), _noise(now))
    moved = _log_median(side_now), _log_median(side_then)
    yards = then.disturbance.yardstick_us, now.disturbance.yardstick_us
    counts = len(side_then.rounds_us), len(side_now.rounds_us)
    if counts != (len(yards[0]), len(yards[1])):
        return _judged(*moved, noise)
    untried = _untried_speed(*yards)
    over_yards = _log_ratio(side_now, yards[1]), _log_ratio(side_then, yards[0])
    judged = _judged(*over_yards, math.hypot(noise, untried))
    by_clock = moved[0].centre - moved[1].centre
    agrees = abs(by_clock) > _LEAST and (by_clock > 0) == (judged.ratio > 1)
    return replace(judged, verdict="undecided") if untried and not agrees else judged


def _judged(now: Interval, then: Interval, noise: float) -> Ratio:
    centre = now.centre - then.centre
    low = centre - math.hypot(now.centre - now.low, then.high - then.centre, noise)
    high = centre + math.hypot(now.high - now.centre, then.centre - then.low, noise)
    verdict: Verdict = "undecided"
    enough = min(now.rounds, then.rounds) >= FEWEST_ROUNDS
    if enough:
        verdict = "slower" if low > _LEAST else "faster" if high < -_LEAST else "undecided"
    return Ratio(
        ratio=math.exp(centre),
        interval_95=(math.exp(low), math.exp(high)),
        verdict=verdict,
        noise_floor=LEAST_DIFFERENCE,
        could_see=could_see((high - low) / 2) if enough else None,
    )


def _log_median(entry: Contestant) -> Interval:
    return _interval(_log(entry.rounds_us))


def _log_ratio(ours: Contestant, other_us: Sequence[float]) -> Interval:
    return _interval(_log(ours.rounds_us) - _log(other_us))


def _interval(logs: npt.NDArray[np.float64]) -> Interval:
    if logs.size <= _MOST_RESAMPLED:
        return median_interval(logs)
    # Of very many calls neighbours are put together: as long blocks of them are resampled anyway.
    groups = np.array_split(logs, _MOST_RESAMPLED)
    found = median_interval(np.array([np.median(group) for group in groups]))
    shift = float(np.median(logs)) - found.centre
    return replace(
        found, centre=found.centre + shift, low=found.low + shift, high=found.high + shift
    )


def _log(values_us: Any) -> npt.NDArray[np.float64]:
    return np.asarray(np.log(np.maximum(values_us, _SHORTEST_US)), np.float64)


def _noise(table: ResultTable) -> float:
    """Returns what two copies of tvmdet differed by, as a logarithm."""
    return 0.0 if table.noise is None else abs(math.log(max(table.noise.ratio, 1e-9)))


def _untried_speed(then_us: Sequence[float], now_us: Sequence[float]) -> float:
    """Returns by how much the yardstick moved beyond what it did within the sessions, as a log."""
    logs = _log(then_us), _log(now_us)
    moved = abs(float(np.median(logs[1]) - np.median(logs[0])))
    within = max(float(np.ptp(np.percentile(one, (10, 90)))) for one in logs)
    return max(moved - within, 0.0)


def _machine_moved(then: ResultTable, now: ResultTable) -> float | None:
    yards = then.disturbance.yardstick_us, now.disturbance.yardstick_us
    if not (yards[0] and yards[1]):
        return None
    return float(np.median(yards[1]) / np.median(yards[0])) - 1.0


def _doubt(then: Load, now: Load) -> str:
    """Says why a slower time proves nothing; a machine that was as busy before is no reason."""
    excess = (now.others_cpus + now.stolen_cpus) - (then.others_cpus + then.stolen_cpus)
    busy = [line for line in now.findings if line.startswith(_BUSY)]
    if busy and excess > 0.05:
        return f"{busy[0]}, {excess:.2f} CPUs more than when it was recorded"
    throttled = [line for line in now.findings if not line.startswith(_BUSY)]
    return throttled[0] if throttled and not then.findings else ""
