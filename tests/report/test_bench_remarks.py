"""What stands below a table of timings, and what is warned of."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tvmdet.report.load import LoadFound
from tvmdet.report.render import grids
from tvmdet.report.results import BenchReport, Entry, Table
from tvmdet.report.statistics import summarise


def table(what: str, *entries: Entry) -> Table:
    load = LoadFound(others_cpus=0.0, stolen_cpus=0.0)
    return Table(what=what, batch_size=1, entries=entries, load=load, note="drawn.png: 1 box")


def entry(name: str, *seconds: float, **stages_s: list[float]) -> Entry:
    return Entry(name=name, seconds=seconds, summary=summarise(seconds), stages_s=stages_s)


def below(found: Table) -> tuple[str, ...]:
    subject = SimpleNamespace(members=())
    report = SimpleNamespace(tables=(found,), layers=(), subject=subject, peak=None)
    (grid,) = grids(report)  # type: ignore[arg-type]
    return grid.below


@pytest.mark.parametrize("what", ["network", "end to end"])
def test_outliers_are_shown(what: str) -> None:
    even = [0.010, 0.011, 0.0105] * 5
    found = table(what, entry("tvmdet", *even), entry("ncnn", *even, 0.030, 0.025))
    said = "outliers, which count in every figure: ncnn 2 (up to 30.00 ms)"
    assert [line for line in below(found) if line.startswith("outliers")] == [said]
    assert "outliers" not in "".join(below(table(what, entry("tvmdet", *even))))


@pytest.mark.parametrize(
    ("stages_s", "warned"),
    [
        ({}, ""),
        ({"decode": [0.004] * 3, "network": [0.006] * 3}, ""),
        ({"decode": [0.00401] * 3, "network": [0.0058] * 3}, ""),
        ({"decode": [0.004] * 3, "network": [0.0057] * 3}, "add up to 97.0% of its calls"),
        ({"decode": [0.004] * 3, "network": [0.0063] * 3}, "add up to 103.0% of its calls"),
        # One call that was interrupted between two readings of the clock is none of the others.
        ({"decode": [0.004] * 3, "network": [0.006, 0.006, 0.002]}, ""),
    ],
    ids=str,
)
def test_stages_must_add_up(stages_s: dict[str, list[float]], warned: str) -> None:
    found = table("end to end", entry("tvmdet", *[0.010] * 3, **stages_s))
    report = SimpleNamespace(remarks=(), peak=None, tables=(found,), layers=())
    said = BenchReport.warnings.fget(report)  # type: ignore[attr-defined]
    where = "end to end, batch 1: the stages of tvmdet "
    assert said == ([where + warned] if warned else [])
