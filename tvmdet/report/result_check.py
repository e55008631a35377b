"""What a result must agree with itself in, which no schema can say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tvmdet.counted import counted
from tvmdet.report.result_format import Result
from tvmdet.report.result_quantities import LARGEST
from tvmdet.report.result_tables import Contestant, Ratio, ResultTable
from tvmdet.report.typed_json import Mismatch

__all__ = ["check_result"]

_ROUNDED = 1e-5  # as files hold ratios
_ROUNDED_US = 0.05  # as they hold calls
_OFF_SHARE = 1e-3


def check_result(result: Result) -> None:
    """Holds lists of timings against each other, and what was derived against the calls.

    Raises:
        Mismatch: A table or a contestant is there twice, counts differ, an interval is none, or
            a ratio is not that of the calls.
    """
    seen: set[tuple[str, int]] = set()
    for index, table in enumerate(result.tables):
        key = (table.what, table.batch_size)
        if key in seen:
            raise Mismatch(f"tables[{index}]", f"is a second one of {key[0]}, batch {key[1]}")
        seen.add(key)
        _check_table(table, f"tables[{index}]")


def _check_table(table: ResultTable, where: str) -> None:
    names: set[str] = set()
    for entry in table.entries:
        place = f"{where}, {entry.name}:"
        if entry.name in names:
            raise Mismatch(place, "is there twice")
        names.add(entry.name)
        if entry.tvmdet_over_this is not None:
            _check_interval(entry.tvmdet_over_this.interval_95, place)
            _check_ratio(table.entries[0], entry, entry.tvmdet_over_this, place)
        _check_counts(entry, place)
    if table.noise is not None:
        _check_interval(table.noise.interval_95, f"{where}, noise:")


def _check_interval(interval: tuple[float, float], where: str) -> None:
    low, high = interval
    if not 1 / LARGEST <= low <= high <= LARGEST:
        raise Mismatch(where, f"interval_95 is [{low}, {high}]; ratios are above 0")


def _check_counts(entry: Contestant, where: str) -> None:
    count = 0 if entry.latency is None else entry.latency.count
    if count != len(entry.rounds_us):
        raise Mismatch(
            where, f"latency.count is {count}, of {counted(len(entry.rounds_us), 'round')}"
        )
    for stage in entry.stages:
        if stage.rounds_us and len(stage.rounds_us) != count:
            raise Mismatch(where, f"stage {stage.name} has not the rounds of its calls")


def _check_ratio(ours: Contestant, theirs: Contestant, found: Ratio, where: str) -> None:
    """Holds a ratio against the calls that it was computed from, and a verdict against it."""
    if not ours.rounds_us or len(ours.rounds_us) != len(theirs.rounds_us):
        raise Mismatch(where, "tvmdet_over_this is of rounds that do not pair with tvmdet's")
    first, second = _at_least_rounded(ours.rounds_us), _at_least_rounded(theirs.rounds_us)
    right = float(np.exp(np.median(np.log(first) - np.log(second))))
    # What the first benchmarks wrote, those of schema 1 and the earliest of schema 2.
    of_medians = float(np.median(first) / np.median(second))
    lost = _ROUNDED_US / float(first.min()) + _ROUNDED_US / float(second.min())
    off = min(abs(found.ratio / one - 1) for one in (right, of_medians))
    if off > _OFF_SHARE + lost + _ROUNDED / min(right, of_medians):
        raise Mismatch(
            where, f"tvmdet_over_this.ratio is {found.ratio}, and that of its calls is {right:.5f}"
        )
    low, high = found.interval_95
    if not low - _ROUNDED <= found.ratio <= high + _ROUNDED:
        raise Mismatch(where, f"tvmdet_over_this.ratio is {found.ratio}, outside its interval")
    if (found.verdict == "faster" and high >= 1) or (found.verdict == "slower" and low <= 1):
        raise Mismatch(where, f"the verdict is {found.verdict}, and interval_95 [{low}, {high}]")


def _at_least_rounded(values_us: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.maximum(np.asarray(values_us, np.float64), _ROUNDED_US)
