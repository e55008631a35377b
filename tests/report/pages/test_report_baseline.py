"""Now against before: what is called slower, what is not, and what does not compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import made_results
import numpy as np
import pytest

from tvmdet.report.pages.baseline import changes, compare_apart
from tvmdet.report.pages.rows import runs_of
from tvmdet.report.pages.runs import Run, Source
from tvmdet.report.result_format import Result


def rows(result: Result, file: str = "a.json") -> list[Run]:
    return list(runs_of(Source(file=file, result=result)))


def ours(result: Result) -> Run:
    return next(run for run in rows(result) if run.is_ours and run.what == "network")


@pytest.mark.parametrize("count", [40, 41, 300])
def test_the_interval_is_about_that_of_a_drawn_bootstrap(count: int) -> None:
    rng = np.random.default_rng(count)
    now, before = rng.gamma(20.0, 1.0, count), rng.gamma(20.0, 1.1, count)
    found = compare_apart(now, before)
    drawn = [
        np.median(rng.choice(now, count)) / np.median(rng.choice(before, count))
        for _ in range(2000)
    ]
    low, high = np.log(np.quantile(drawn, (0.025, 0.975)))
    assert found.ratio == pytest.approx(np.median(now) / np.median(before), rel=0.01)
    width = np.diff(np.log(found.interval_95))[0]
    # Wider by Student's t, and by blocks where chance correlates neighbours.
    assert 0.8 < width / (high - low) < 2.0
    assert found.interval_95[0] < found.ratio < found.interval_95[1]


def test_equal_sides_are_undecided_and_a_tenth_is_called() -> None:
    wrong, called = 0, 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        first, second = (20.0 * (1 + 0.03 * rng.gamma(2.0, 1.0, 60)) for _ in range(2))
        wrong += compare_apart(first, second, floor=0.01).verdict != "undecided"
        called += compare_apart(first * 1.1, second, floor=0.01).verdict == "slower"
    assert wrong <= 2
    assert called >= 38


def test_a_difference_inside_the_noise_floor_is_not_called() -> None:
    rng = np.random.default_rng(5)
    before = rng.normal(20.0, 0.01, 400)
    assert compare_apart(before * 1.005, before).verdict == "undecided"
    assert compare_apart(before * 1.02, before).verdict == "slower"
    assert compare_apart(before * 1.02, before, floor=0.05).verdict == "undecided"
    assert compare_apart(before * 0.9, before, floor=0.05).verdict == "faster"


def test_too_few_calls_decide_nothing() -> None:
    few = np.array([1.0, 1.01, 1.02, 1.03, 1.04])
    assert compare_apart(few * 2.0, few).verdict == "undecided"
    assert compare_apart(np.array([2.0]), np.array([1.0])).verdict == "undecided"


def test_a_hundred_thousand_calls_compare_at_once() -> None:
    before = np.random.default_rng(6).normal(20.0, 1.0, 100_000)
    found = compare_apart(before * 1.02, before)
    assert found.verdict == "slower"
    assert found.ratio == pytest.approx(1.02)
    assert found.interval_95[1] - found.interval_95[0] < 0.004


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


def test_what_the_machine_itself_lost_is_no_regression() -> None:
    before = replace(ours(made_results.made_result()), yardstick_us=100.0)
    slow = ours(made_results.slowed(made_results.made_result(), 1.1))
    (change,) = changes([replace(slow, yardstick_us=100.2)], [before])
    assert (change.kind, change.is_regression) == ("slower", True)
    (change,) = changes([replace(slow, yardstick_us=112.0)], [before])
    assert (change.kind, change.is_regression) == ("undecided", False)
    assert "the machine's own speed differs by 12.0%" in change.note


def test_a_machine_that_is_busy_only_now_proves_nothing() -> None:
    before = ours(made_results.made_result())
    slow = ours(made_results.slowed(made_results.made_result(), 1.1))
    busy = replace(slow, findings=("busy: others used 0.8 CPUs",))
    (change,) = changes([busy], [before])
    assert (change.kind, change.is_regression) == ("undecided", False)
    assert change.note == "not called: busy: others used 0.8 CPUs"
    (change,) = changes([busy], [replace(before, findings=("busy: others used 0.7 CPUs",))])
    assert change.is_regression
