"""How results relate to earlier ones: what became faster, slower, wrong, or cannot be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tvmdet.counted import counted
from tvmdet.report.apart import time_apart
from tvmdet.report.pages.runs import Place, Run
from tvmdet.report.result_tables import Ratio
from tvmdet.report.statistics import LEAST_DIFFERENCE

__all__ = ["Change", "changes"]

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
        ratio: Of the medians, now over before, at equal speed of the machine as ``tvmdet verify``
            judges it, by the yardstick or by a rival.
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
            "could_see": None
            if ratio is None or ratio.could_see is None
            else round(ratio.could_see, 5),
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
    # What is timed has a table.
    assert now.table is not None
    assert before.table is not None
    found = time_apart(before.table, now.table, now.entry_name)
    assert found is not None
    notes = []
    if now.version != before.version and not now.is_ours:
        notes.append(f"{before.version} before, {now.version} now")
    if now.noise_floor is None or before.noise_floor is None:
        notes.append("noise floor not known")
    if found.machine_moved is not None and abs(found.machine_moved) > LEAST_DIFFERENCE:
        way = "slower" if found.machine_moved > 0 else "faster"
        notes.append(f"the machine itself is {abs(found.machine_moved):.1%} {way}")
    if found.by:
        notes.append(f"shown by {found.by}, timed beside it both times")
    if found.doubt:
        notes.append(f"not called: {found.doubt}")
    verdict = found.ratio.verdict
    return Change(now=now, before=before, kind=verdict, ratio=found.ratio, note="; ".join(notes))


def _where(place: Place) -> str:
    return f"{place.machine}, {counted(place.threads, 'thread')}"
