"""Which rival counts, and how verdicts look."""

from __future__ import annotations

from collections.abc import Sequence

from tvmdet.report.pages.runs import Run
from tvmdet.report.pages.sheets import Cell
from tvmdet.report.result_tables import Ratio

__all__ = ["VERDICT_KINDS", "fastest_rival", "verdict_cell"]

VERDICT_KINDS = {"faster": "good", "slower": "bad", "undecided": "unsure"}
"""Styles of verdicts."""


def verdict_cell(ratio: Ratio | None) -> Cell:
    """Returns a verdict; where there is none, with the difference that could have been seen."""
    if ratio is None:
        return Cell.of("")
    text = str(ratio.verdict)
    if ratio.verdict == "undecided" and ratio.could_see is not None:
        text += f", could see {ratio.could_see:.1%}"
    return Cell.of(text, kind=VERDICT_KINDS[ratio.verdict])


def fastest_rival(run: Run, runs: Sequence[Run]) -> Run | None:
    """Returns the fastest ranked rival of a row of tvmdet, timed beside it."""
    beside = [
        one
        for one in runs
        if one.over_rival is not None
        and (one.file, one.place, one.what, one.batch_size)
        == (run.file, run.place, run.what, run.batch_size)
    ]
    return min(beside, key=lambda one: one.median_ms or float("inf"), default=None)
