"""Now against before: what is called slower, what is not, and what does not compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import made_results
import numpy as np
import pytest

from tvmdet.report.changes import changed_times
from tvmdet.report.pages.baseline import changes
from tvmdet.report.pages.rows import runs_of
from tvmdet.report.pages.runs import Run, Source
from tvmdet.report.result_format import Result
from tvmdet.report.result_subject import Setup


def rows(result: Result, file: str = "a.json") -> list[Run]:
    return list(runs_of(Source(file=file, result=result)))


def ours(result: Result) -> Run:
    return next(run for run in rows(result) if run.is_ours and run.what == "network")


def kinds(now: Sequence[Run], before: Sequence[Run]) -> dict[str, int]:
    found: dict[str, int] = {}
    for change in changes(now, before):
        found[change.kind] = found.get(change.kind, 0) + 1
    return found


def test_without_earlier_results_there_are_no_changes() -> None:
    assert changes(rows(made_results.made_result()), []) == ()


def test_a_slowed_file_is_a_regression_and_rivals_are_none() -> None:
    before = made_results.made_result(batches=(1, 4))
    now = made_results.slowed(before, 1.1)
    found = [change for change in changes(rows(now), rows(before)) if change.is_regression]
    assert len(found) == 3
    assert all(change.run.is_ours and change.kind == "slower" for change in found)
    quicker = changes(rows(before), rows(now))
    assert not any(change.is_regression for change in quicker)
    assert sum(change.kind == "faster" for change in quicker) == 3


def test_rows_come_and_go() -> None:
    small = made_results.made_result(batches=(1,), rivals=())
    large = made_results.made_result(batches=(1, 4), rivals=())
    assert kinds(rows(large), rows(small))["new"] == 2
    assert kinds(rows(small), rows(large))["gone"] == 2


def test_calls_of_another_picture_are_not_compared() -> None:
    result = made_results.made_result(batches=(1,), rivals=())

    def of(picture: str | None) -> list[Run]:
        setup = Setup(picture=picture, picture_sha256=picture)
        return [run for run in rows(replace(result, setup=setup)) if run.is_timed]

    assert {run.what: run.picture for run in of("ab")} == {"network": "", "end to end": "ab"}
    for before in ("ab", None):
        assert kinds(of(before), of(before)) == {"undecided": 2}
        assert kinds(of("cd"), of(before)) == {"undecided": 1, "new": 1, "gone": 1}


def test_other_hardware_is_said_and_not_compared() -> None:
    before = made_results.made_result(cpu="Another CPU", rivals=())
    found = changes(rows(made_results.made_result(rivals=())), rows(before))
    assert {change.kind for change in found} == {"elsewhere"}
    assert all(change.ratio is None and not change.is_regression for change in found)
    assert "Another CPU (virtual), 2 threads before, on Synthetic CPU 9000" in found[0].note


def test_answers_that_are_no_longer_right_are_a_regression() -> None:
    before = ours(made_results.made_result())
    now = replace(before, is_right=False, parity="max error 3.0")
    (change,) = changes([now], [before])
    assert (change.kind, change.is_regression) == ("broken", True)
    (change,) = changes([before], [now])
    assert (change.kind, change.is_regression) == ("mended", False)
    failed = replace(before, latencies_ms=np.zeros(0), problem="failed: out of memory")
    (change,) = changes([failed], [before])
    assert (change.kind, change.note) == ("broken", "failed: out of memory")


def test_a_lower_average_precision_is_a_regression_of_its_own() -> None:
    before = ours(made_results.made_result(accuracy=0.41))
    (change,) = changes([replace(before, accuracy=0.405)], [before])
    assert (change.kind, change.is_regression) == ("undecided", True)
    assert change.accuracy_change == pytest.approx(-0.005)
    (change,) = changes([replace(before, accuracy=0.4095)], [before])
    assert not change.is_regression


def loaded(run: Run, **load: Any) -> Run:
    """Returns a row of a table that was measured while the machine did something else."""
    assert run.table is not None
    disturbance = replace(run.table.disturbance, **load)
    return replace(run, table=replace(run.table, disturbance=disturbance))


def yards(run: Run, us: float) -> Run:
    return loaded(run, yardstick_us=(us,) * run.latencies_ms.size)


def test_what_the_machine_itself_lost_is_no_regression() -> None:
    before = yards(ours(made_results.made_result(rivals=())), 100.0)
    slow = ours(made_results.slowed(made_results.made_result(rivals=()), 1.1))
    (change,) = changes([yards(slow, 100.2)], [before])
    assert (change.kind, change.is_regression) == ("slower", True)
    (change,) = changes([yards(slow, 112.0)], [before])
    assert (change.kind, change.is_regression) == ("undecided", False)
    assert "the machine itself is 12.0% slower" in change.note


def test_a_machine_that_is_busy_only_now_proves_nothing() -> None:
    before = ours(made_results.made_result())
    slow = ours(made_results.slowed(made_results.made_result(), 1.1))
    busy = loaded(slow, others_cpus=0.8, findings=("busy: others used 0.8 CPUs",))
    (change,) = changes([busy], [before])
    assert (change.kind, change.is_regression) == ("undecided", False)
    assert change.note.startswith("not called: busy: others used 0.8 CPUs")
    as_busy = loaded(before, others_cpus=0.78, findings=("busy: others used 0.78 CPUs",))
    (change,) = changes([busy], [as_busy])
    assert change.is_regression


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.03, 1.1])
@pytest.mark.parametrize("rivals", [(), made_results.RIVALS])
def test_verify_and_a_report_say_the_same_of_the_same_results(
    factor: float, rivals: Sequence[str]
) -> None:
    then = made_results.made_result(batches=(1, 4), rivals=rivals)
    now = made_results.slowed(then, factor)
    said = {
        f"{change.run.what}, batch {change.run.batch_size}": (
            change.kind,
            change.ratio and (change.ratio.ratio, *change.ratio.interval_95),
        )
        for change in changes(rows(now), rows(then))
        if change.run.is_ours
    }
    verified = {
        change.what: (change.verdict, (change.ratio, change.low, change.high))
        for change in changed_times(then, now)
        if change.measure == "time"
    }
    assert len(said) == 3
    assert said == verified
