"""Which rival counts, and how verdicts look."""

from __future__ import annotations

from collections.abc import Sequence

from tvmdet.report.pages.runs import Run

__all__ = ["VERDICT_KINDS", "fastest_rival"]

VERDICT_KINDS = {"faster": "good", "slower": "bad", "undecided": "unsure"}
"""Styles of verdicts."""


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
