"""What changed between a recorded benchmark and its repetition."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tvmdet.report.answers import changed_answers
from tvmdet.report.apart import against_rivals, entry_of, time_apart
from tvmdet.report.contest import OURS
from tvmdet.report.result_format import Result
from tvmdet.report.result_subject import Machine
from tvmdet.report.result_tables import Ratio, ResultTable
from tvmdet.report.statistics import Verdict

__all__ = ["Change", "changed_parity", "changed_times", "other_hardware"]

_SAME_MEMORY = 0.05
_SAME_CLOCK = 0.02


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
        could_see: Smallest change, as a share, that would have been called in four of five cases;
            None where none would, as rounds were too few.
        doubt: Why no verdict can be had from it; empty when one can.
        by: Of a time, the rival that shows it where the yardstick cannot tell; else empty.
    """

    what: str
    measure: str
    then_ms: float | None
    now_ms: float | None
    ratio: float
    low: float
    high: float
    verdict: Verdict
    could_see: float | None
    doubt: str = ""
    by: str = ""

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
            "could_see": None if self.could_see is None else round(self.could_see, 5),
            "doubt": self.doubt,
            "by": self.by,
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
    time = time_apart(then, now)
    if time is None:
        return
    found = _change(then, "time", time.ratio, then_ms=_median_ms(then), now_ms=_median_ms(now))
    yield replace(found, doubt=time.doubt, by=time.by)
    for rival, ratio in against_rivals(then, now):
        yield _change(then, f"against {rival}", ratio)


def _change(
    table: ResultTable,
    measure: str,
    ratio: Ratio,
    *,
    then_ms: float | None = None,
    now_ms: float | None = None,
) -> Change:
    return Change(
        what=_name(table),
        measure=measure,
        then_ms=then_ms,
        now_ms=now_ms,
        ratio=ratio.ratio,
        low=ratio.interval_95[0],
        high=ratio.interval_95[1],
        verdict=ratio.verdict,
        could_see=ratio.could_see,
    )


def _median_ms(table: ResultTable) -> float | None:
    ours = entry_of(table, OURS)
    return None if ours is None else float(np.median(ours.rounds_us)) / 1e3


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
        before, after = entry_of(table, OURS), entry_of(other, OURS)
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
        (
            "accelerator",
            _both_told(then.accelerator, now.accelerator),
            _both_told(now.accelerator, then.accelerator),
        ),
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


def _both_told(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> Any:
    """Returns of the first what the second says something of too: older results say less."""
    if one is None or other is None:
        return one
    return {key: value for key, value in one.items() if key in other}


def _name(table: ResultTable) -> str:
    return f"{table.what}, batch {table.batch_size}"
