"""How results relate to earlier ones: what became faster, slower, wrong, or cannot be told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from tvmdet.report.pages.runs import Floats, Place, Run
from tvmdet.report.resampling import Interval, median_interval
from tvmdet.report.result_tables import Ratio
from tvmdet.report.statistics import FEWEST_ROUNDS, LEAST_DIFFERENCE, Verdict

__all__ = ["Change", "changes", "compare_apart"]

_MOST_RESAMPLED = 4000
_MAX_DROP = 0.001
"""Of the average precision; as much as `tvmdet eval` lets two runtimes differ."""

_SILENT = ("new", "gone", "undecided", "elsewhere")

Kind = Literal["faster", "slower", "undecided", "broken", "mended", "new", "gone", "elsewhere"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One row of the matrix, now and before.

    Attributes:
        now: The row; None where it is gone.
        before: The row of the earlier results; None where there is none.
        kind: ``faster``, ``slower`` or ``undecided`` by the interval; ``broken`` when there was a
            right answer and there is none, ``mended`` the other way round; ``new`` and ``gone``;
            ``elsewhere`` when it was measured on other hardware, so that nothing is compared.
        ratio: Of the medians, now over before.
        note: What else is to be said.
    """

    now: Run | None
    before: Run | None
    kind: Kind
    ratio: Ratio | None = None
    note: str = ""

    @property
    def run(self) -> Run:
        """The row that names it."""
        found = self.now or self.before
        assert found is not None
        return found

    @property
    def is_silent(self) -> bool:
        """Whether nothing can be said but that there is nothing to compare with."""
        return not self.is_regression and self.ratio is None and self.kind in _SILENT

    @property
    def accuracy_change(self) -> float | None:
        """Average precision now less that of before."""
        if self.now is None or self.before is None:
            return None
        now, before = self.now.accuracy, self.before.accuracy
        return None if now is None or before is None else now - before

    @property
    def is_regression(self) -> bool:
        """Whether it is slower beyond doubt, wrong, or less accurate."""
        drop = -(self.accuracy_change or 0.0)
        return self.run.is_ours and (self.kind in ("slower", "broken") or drop > _MAX_DROP)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        now, before, ratio = self.now, self.before, self.ratio
        return {
            "now": None if now is None else now.to_dict(),
            "before": None if before is None else before.to_dict(),
            "kind": self.kind,
            "now_over_before": None if ratio is None else round(ratio.ratio, 5),
            "interval_95": None if ratio is None else [round(x, 5) for x in ratio.interval_95],
            "noise_floor": None if ratio is None else ratio.noise_floor,
            "accuracy_change": self.accuracy_change,
            "is_regression": self.is_regression,
            "note": self.note,
        }


def changes(now: Sequence[Run], before: Sequence[Run]) -> tuple[Change, ...]:
    """Pairs rows with earlier ones that measured the same thing.

    Args:
        now: Rows of one model.
        before: Earlier rows of it; of equal ones the last counts. None at all gives no changes.
    """
    if not before:
        return ()
    earlier = {run.key: run for run in before}
    elsewhere = {_but_machine(run): run for run in before}
    found = [_change(run, earlier.get(run.key), elsewhere.get(_but_machine(run))) for run in now]
    seen = {_but_machine(run) for run in now}
    found += [
        Change(now=None, before=run, kind="gone", note="not among the present results")
        for run in earlier.values()
        if _but_machine(run) not in seen
    ]
    return tuple(found)


def compare_apart(
    now: Floats,
    before: Floats,
    *,
    floor: float = LEAST_DIFFERENCE,
    moved: float = 0.0,
    seed: int = 0,
) -> Ratio:
    """Compares latencies of two runs that were not timed in turn.

    Each median has its interval by resampling blocks of calls, and the two are independent: their
    widths, in logarithms, add up as squares. What differed between the runs is in neither; the
    noise floor and the machine's own speed are the measures of it.

    Args:
        now: Of one side, at least one, in the order of the calls.
        before: Of the other.
        floor: Share of the time below which no difference is called.
        moved: How much the machine's own speed changed, as a logarithm: an error like the others.
        seed: Of the resampling.
    """
    first, second = _interval(now, seed), _interval(before, seed + 1)
    centre = first.centre - second.centre
    low = centre - math.hypot(first.centre - first.low, second.high - second.centre, moved)
    high = centre + math.hypot(first.high - first.centre, second.centre - second.low, moved)
    enough = min(now.size, before.size) >= FEWEST_ROUNDS
    verdict: Verdict = "undecided"
    if enough and high < -math.log1p(floor):
        verdict = "faster"
    elif enough and low > math.log1p(floor):
        verdict = "slower"
    return Ratio(
        ratio=math.exp(centre),
        interval_95=(math.exp(low), math.exp(high)),
        verdict=verdict,
        noise_floor=floor,
    )


def _interval(latencies: Floats, seed: int) -> Interval:
    """Returns the interval of the logarithm of the median."""
    logs = np.log(latencies)
    if logs.size <= _MOST_RESAMPLED:
        return median_interval(logs, seed=seed)
    # Of very many calls neighbours are put together: as long blocks of them are resampled anyway.
    groups = np.array_split(logs, _MOST_RESAMPLED)
    found = median_interval(np.array([np.median(group) for group in groups]), seed=seed)
    shift = float(np.median(logs)) - found.centre
    return replace(
        found, centre=found.centre + shift, low=found.low + shift, high=found.high + shift
    )


def _but_machine(run: Run) -> tuple[object, ...]:
    return (run.place.target, *run.key[1:])


def _change(now: Run, before: Run | None, elsewhere: Run | None) -> Change:
    if before is None and elsewhere is not None:
        note = f"measured on {_where(elsewhere.place)} before, on {_where(now.place)} now"
        return Change(now=now, before=elsewhere, kind="elsewhere", note=note)
    if before is None:
        return Change(now=now, before=None, kind="new", note="not among the earlier results")
    was_right = before.is_timed and before.is_right is not False
    is_right = now.is_timed and now.is_right is not False
    if was_right and not is_right:
        return Change(now=now, before=before, kind="broken", note=now.problem or now.parity)
    if is_right and not was_right:
        return Change(now=now, before=before, kind="mended", note=before.problem or before.parity)
    if not is_right:
        return Change(now=now, before=before, kind="undecided", note="timed in neither")
    floor = max(now.noise_floor or 0.0, before.noise_floor or 0.0, LEAST_DIFFERENCE)
    moved = _machine_moved(now, before)
    ratio = compare_apart(now.latencies_ms, before.latencies_ms, floor=floor, moved=moved)
    notes = []
    if now.version != before.version and not now.is_ours:
        notes.append(f"{before.version} before, {now.version} now")
    if now.noise_floor is None or before.noise_floor is None:
        notes.append("noise floor not known")
    if moved > math.log1p(LEAST_DIFFERENCE):
        notes.append(f"the machine's own speed differs by {math.expm1(moved):.1%}")
    if ratio.verdict == "slower" and now.findings and not before.findings:
        # A machine that was quiet before and is not now is reason enough.
        notes.append(f"not called: {now.findings[0]}")
        ratio = replace(ratio, verdict="undecided")
    return Change(now=now, before=before, kind=ratio.verdict, ratio=ratio, note="; ".join(notes))


def _machine_moved(now: Run, before: Run) -> float:
    if not now.yardstick_us or not before.yardstick_us:
        return 0.0
    return abs(math.log(now.yardstick_us / before.yardstick_us))


def _where(place: Place) -> str:
    return f"{place.machine}, {place.threads} threads"
