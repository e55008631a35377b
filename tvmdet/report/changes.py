"""What changed between a recorded benchmark and its repetition.

Times of two sessions are never of the same rounds, so that nothing cancels by itself. But each
round also timed the yardstick, a piece of work that never changes: what is compared is tvmdet's
time over that, round by round, which is its time at equal speed of the machine. Whether a network
slows down as the yardstick does shows in the spread of that ratio, as far as the yardstick moved
within the sessions; by what it moved between them beyond that is noise, as is what two copies of
tvmdet differed by in each, and where there is such, the clock must say the same. A rival that was
timed both times is a second witness: nothing is slower that is not slower against it too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from tvmdet.report.answers import changed_answers
from tvmdet.report.contest import OURS
from tvmdet.report.resampling import Interval, median_interval
from tvmdet.report.result_format import Result
from tvmdet.report.result_subject import Machine
from tvmdet.report.result_tables import Contestant, Load, ResultTable
from tvmdet.report.statistics import FEWEST_ROUNDS, LEAST_DIFFERENCE

__all__ = ["Change", "changed_parity", "changed_times", "other_hardware"]

Verdict = Literal["faster", "slower", "undecided"]

_SAME_MEMORY = 0.05
_SAME_CLOCK = 0.02
_BUSY = "busy"
_LEAST = math.log1p(LEAST_DIFFERENCE)
_SHORTEST_US = 1e-3


@dataclass(frozen=True, kw_only=True)
class Change:
    """How one figure of a repetition relates to the recorded one.

    Attributes:
        what: The table: ``network, batch 1``.
        measure: ``time``, or ``against NAME``: the time over that rival's.
        then_ms: Recorded median by the clock; None for a ratio.
        now_ms: Median of the repetition by the clock; None for a ratio.
        ratio: Now over then, at equal speed of the machine where that was measured; over 1 it is
            slower now.
        low: Lower end of its 95 % interval, all known noise in it.
        high: Upper end.
        verdict: ``slower`` or ``faster`` when the whole interval is off 1 by more than 1 %.
        could_see: Smallest change, as a share, that would have been called.
        doubt: Why no verdict can be had from it; empty when one can.
    """

    what: str
    measure: str
    then_ms: float | None
    now_ms: float | None
    ratio: float
    low: float
    high: float
    verdict: Verdict
    could_see: float
    doubt: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {
            "what": self.what,
            "measure": self.measure,
            "then_ms": None if self.then_ms is None else round(self.then_ms, 6),
            "now_ms": None if self.now_ms is None else round(self.now_ms, 6),
            "ratio": round(self.ratio, 5),
            "interval_95": [round(self.low, 5), round(self.high, 5)],
            "verdict": self.verdict,
            "could_see": round(self.could_see, 5),
            "doubt": self.doubt,
        }


def changed_times(then: Result, now: Result) -> list[Change]:
    """Returns how the times of every table relate that both results have.

    Args:
        then: The recorded result.
        now: Its repetition.
    """
    repeated = {_name(table): table for table in now.tables}
    found: list[Change] = []
    for table in then.tables:
        other = repeated.get(_name(table))
        if other is not None:
            found += _changes(table, other)
    return found


def _changes(then: ResultTable, now: ResultTable) -> Iterator[Change]:
    ours = _entry(then, OURS), _entry(now, OURS)
    if ours[0] is None or ours[1] is None:
        return
    # What was wrong or failed was not timed.
    if not (ours[0].rounds_us and ours[1].rounds_us):
        return
    against = list(_against_rivals(then, now, ours[0], ours[1]))
    moved = _log_median(ours[1]), _log_median(ours[0])
    time = _judged_at_equal_speed(then, now, ours[0], ours[1])
    doubt = ""
    if time.verdict == "slower":
        doubt = _doubt(then.disturbance, now.disturbance)
        # A rival that could not have seen so much says nothing.
        witnesses = [one for one in against if one.verdict == "slower" or one.high < time.low]
        if not doubt and witnesses and all(one.verdict != "slower" for one in witnesses):
            # The rivals' own times have moved too: it was the machine.
            doubt = "not slower against any rival that was timed beside it both times"
    yield Change(
        what=_name(then),
        measure="time",
        then_ms=math.exp(moved[1].centre) / 1e3,
        now_ms=math.exp(moved[0].centre) / 1e3,
        ratio=time.ratio,
        low=time.low,
        high=time.high,
        verdict="undecided" if doubt else time.verdict,
        could_see=time.could_see,
        doubt=doubt,
    )
    yield from against


def _judged_at_equal_speed(
    then: ResultTable, now: ResultTable, ours_then: Contestant, ours_now: Contestant
) -> _Judged:
    """Judges times over the yardstick's, or by the clock where that was not timed."""
    noise = math.hypot(_noise(then), _noise(now))
    moved = _log_median(ours_now), _log_median(ours_then)
    yards = then.disturbance.yardstick_us, now.disturbance.yardstick_us
    counts = len(ours_then.rounds_us), len(ours_now.rounds_us)
    if counts != (len(yards[0]), len(yards[1])):
        return _judged(*moved, noise)
    untried = _untried_speed(*yards)
    over_yards = _log_ratio(ours_now, yards[1]), _log_ratio(ours_then, yards[0])
    judged = _judged(*over_yards, math.hypot(noise, untried))
    by_clock = moved[0].centre - moved[1].centre
    agrees = abs(by_clock) > _LEAST and (by_clock > 0) == (judged.ratio > 1)
    return replace(judged, verdict="undecided") if untried and not agrees else judged


def _against_rivals(
    then: ResultTable, now: ResultTable, ours_then: Contestant, ours_now: Contestant
) -> Iterator[Change]:
    noise = math.hypot(_noise(then), _noise(now))
    for rival in then.entries:
        other = _entry(now, rival.name)
        # Another version of the rival would be another measure.
        if rival.name == OURS or other is None or other.version != rival.version:
            continue
        if not rival.rounds_us or len(rival.rounds_us) != len(ours_then.rounds_us):
            continue
        if len(other.rounds_us) != len(ours_now.rounds_us):
            continue
        judged = _judged(
            _log_ratio(ours_now, other.rounds_us), _log_ratio(ours_then, rival.rounds_us), noise
        )
        yield Change(
            what=_name(then),
            measure=f"against {rival.name}",
            then_ms=None,
            now_ms=None,
            ratio=judged.ratio,
            low=judged.low,
            high=judged.high,
            verdict=judged.verdict,
            could_see=judged.could_see,
        )


@dataclass(frozen=True, kw_only=True)
class _Judged:
    ratio: float
    low: float
    high: float
    verdict: Verdict
    could_see: float


def _judged(now: Interval, then: Interval, noise: float) -> _Judged:
    centre = now.centre - then.centre
    low = centre - math.hypot(now.centre - now.low, then.high - then.centre, noise)
    high = centre + math.hypot(now.high - now.centre, then.centre - then.low, noise)
    verdict: Verdict = "undecided"
    if min(now.rounds, then.rounds) >= FEWEST_ROUNDS:
        verdict = "slower" if low > _LEAST else "faster" if high < -_LEAST else "undecided"
    return _Judged(
        ratio=math.exp(centre),
        low=math.exp(low),
        high=math.exp(high),
        verdict=verdict,
        could_see=math.expm1((high - low) / 2) + LEAST_DIFFERENCE,
    )


def _log_median(entry: Contestant) -> Interval:
    return median_interval(_log(entry.rounds_us))


def _log_ratio(ours: Contestant, other_us: Sequence[float]) -> Interval:
    return median_interval(_log(ours.rounds_us) - _log(other_us))


def _log(values_us: Any) -> Any:
    return np.log(np.maximum(values_us, _SHORTEST_US))


def _noise(table: ResultTable) -> float:
    """Returns what two copies of tvmdet differed by, as a logarithm."""
    return 0.0 if table.noise is None else abs(math.log(max(table.noise.ratio, 1e-9)))


def _untried_speed(then_us: Sequence[float], now_us: Sequence[float]) -> float:
    """Returns by how much the yardstick moved beyond what it did within the sessions, as a log."""
    logs = _log(then_us), _log(now_us)
    moved = abs(float(np.median(logs[1]) - np.median(logs[0])))
    within = max(float(np.ptp(np.percentile(one, (10, 90)))) for one in logs)
    return max(moved - within, 0.0)


def _doubt(then: Load, now: Load) -> str:
    """Says why a slower time proves nothing; a machine that was as busy before is no reason."""
    excess = (now.others_cpus + now.stolen_cpus) - (then.others_cpus + then.stolen_cpus)
    busy = [line for line in now.findings if line.startswith(_BUSY)]
    if busy and excess > 0.05:
        return f"{busy[0]}, {excess:.2f} CPUs more than when it was recorded"
    throttled = [line for line in now.findings if not line.startswith(_BUSY)]
    return throttled[0] if throttled and not then.findings else ""


def changed_parity(then: Result, now: Result) -> list[str]:
    """Returns what of the answers is not as it was recorded, in words; nothing when all is."""
    said = []
    if then.parity is not None and now.parity is None:
        said.append("the file has no parity certificate any more; it had one")
    elif then.parity is not None and now.parity is not None:
        said += list(_loosened(then.parity, now.parity))
    repeated = {_name(table): table for table in now.tables}
    for table in then.tables:
        other = repeated.get(_name(table))
        if other is None:
            said.append(f"{_name(table)}: is not measured any more")
            continue
        before, after = _entry(table, OURS), _entry(other, OURS)
        if before is None or before.problem:
            continue
        if after is None or after.problem:
            why = "it was not timed" if after is None else after.problem
            said.append(f"{_name(table)}: the answers were right, now: {why}")
        elif problem := changed_answers(table.answers, other.answers, then.target.precision):
            said.append(f"{_name(table)}: {problem}")
    return said


def _loosened(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yields what a certificate allows otherwise, or covers less than, an older one."""
    if then.get("tolerance") != now.get("tolerance"):
        yield (
            f"the certificate's tolerance was {then.get('tolerance')}, it is {now.get('tolerance')}"
        )
    for key in ("images", "batch_sizes"):
        before, after = then.get(key), now.get(key)
        if isinstance(before, list) and len(after or ()) < len(before):
            yield f"the certificate covered {len(before)} {key}, it covers {len(after or ())}"


def other_hardware(then: Machine, now: Machine) -> list[str]:
    """Returns in what two machines differ that times depend on, in words."""
    pairs: Iterable[tuple[str, Any, Any]] = (
        ("CPU", then.cpu, now.cpu),
        ("architecture", then.arch, now.arch),
        ("usable CPUs", then.cpus_usable, now.cpus_usable),
        ("virtual", then.virtual, now.virtual),
        ("accelerator", then.accelerator, now.accelerator),
        ("clock governor", then.clock.get("governor"), now.clock.get("governor")),
        ("boost", then.clock.get("boost"), now.clock.get("boost")),
    )
    said = [
        f"{what} {before!r}, here {after!r}" for what, before, after in pairs if before != after
    ]
    lost = sorted(set(then.features).symmetric_difference(now.features))
    if lost:
        said.append(f"CPU features of one of the two only: {', '.join(lost)}")
    for what, limit, before, after in (
        ("memory", _SAME_MEMORY, then.memory_bytes, now.memory_bytes),
        ("greatest clock", _SAME_CLOCK, then.clock.get("max_mhz"), now.clock.get("max_mhz")),
    ):
        if before and after and abs(after / before - 1) > limit:
            said.append(f"{what} {before}, here {after}")
    return said


def _name(table: ResultTable) -> str:
    return f"{table.what}, batch {table.batch_size}"


def _entry(table: ResultTable, name: str) -> Contestant | None:
    """Returns a contestant that was timed or tried; None where there was none of that name."""
    return next((entry for entry in table.entries if entry.name == name), None)
