"""How results relate to earlier ones: what became faster, slower, wrong, or cannot be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tvmdet.report.pages.runs import Floats, Place, Run
from tvmdet.report.result_format import Ratio
from tvmdet.report.statistics import FEWEST_ROUNDS, Verdict

__all__ = ["Change", "changes", "compare_apart"]

_RESAMPLES = 4000
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


def compare_apart(now: Floats, before: Floats, *, floor: float = 0.0, seed: int = 0) -> Ratio:
    """Compares latencies of two runs that were not timed in turn.

    The interval is a percentile bootstrap of the ratio of medians, the sides drawn apart (Efron
    and Tibshirani, An Introduction to the Bootstrap, ch. 8). It knows nothing of what differed
    between the runs, such as a busy machine, of which the noise floor is the only measure.

    Args:
        now: Of one side, at least one.
        before: Of the other.
        floor: Share of the time below which no difference is called.
        seed: Of the resampling.
    """
    rng = np.random.default_rng(seed)
    ratios = _drawn_medians(now, rng) / _drawn_medians(before, rng)
    low, high = (float(value) for value in np.quantile(ratios, (0.025, 0.975)))
    enough = min(now.size, before.size) >= FEWEST_ROUNDS
    verdict: Verdict = "undecided"
    if enough and high < 1 - floor:
        verdict = "faster"
    elif enough and low > 1 + floor:
        verdict = "slower"
    return Ratio(
        ratio=float(np.median(now) / np.median(before)),
        interval_95=(low, high),
        verdict=verdict,
        noise_floor=floor,
    )


def _drawn_medians(values: Floats, rng: np.random.Generator) -> Floats:
    """Returns medians of samples drawn with replacement, without drawing them.

    A sample of n values is n uniform places in the sorted values, and the m-th smallest of n
    uniform numbers has a Beta(m, n - m + 1) distribution (David and Nagaraja, Order Statistics,
    ch. 2). So the time does not grow with n.
    """
    ordered, n = np.sort(values), values.size
    m = (n + 1) // 2
    lower = rng.beta(m, n - m + 1, _RESAMPLES)
    if n % 2:
        return _at(ordered, lower)
    # Given the m-th, the next is the least of the n - m above it.
    upper = lower + (1.0 - lower) * rng.beta(1, n - m, _RESAMPLES)
    return (_at(ordered, lower) + _at(ordered, upper)) / 2.0


def _at(ordered: Floats, shares: Floats) -> Floats:
    return ordered[np.minimum((shares * ordered.size).astype(np.int64), ordered.size - 1)]


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
    floor = max(now.noise_floor or 0.0, before.noise_floor or 0.0)
    ratio = compare_apart(now.latencies_ms, before.latencies_ms, floor=floor)
    same = now.version == before.version or now.is_ours
    note = "" if same else f"{now.runtime} {before.version} before, {now.version} now"
    if now.noise_floor is None or before.noise_floor is None:
        note = "; ".join(part for part in (note, "noise floor not known") if part)
    return Change(now=now, before=before, kind=ratio.verdict, ratio=ratio, note=note)


def _where(place: Place) -> str:
    return f"{place.machine}, {place.threads} threads"
