"""Percentiles, ratios and verdicts with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from tvmdet.report.statistics import FEWEST_ROUNDS, compare, summarise


def test_summary_of_one_timing() -> None:
    found = summarise([0.25])
    values = (found.median_s, found.p90_s, found.p99_s, found.min_s, found.mean_s)
    assert (found.count, values) == (1, (0.25,) * 5)


def test_summary_of_known_timings() -> None:
    found = summarise([value / 1000 for value in range(101)])  # 0 to 100 ms
    assert found.median_s == pytest.approx(0.050)
    assert found.p90_s == pytest.approx(0.090)
    assert found.p99_s == pytest.approx(0.099)
    assert found.min_s == 0
    assert found.to_dict()["median_ms"] == pytest.approx(50)


def test_median_is_not_moved_by_outliers() -> None:
    assert summarise([1.0, 1.0, 1.0, 1.0, 500.0]).median_s == 1.0


@pytest.mark.parametrize(
    ("ours", "theirs", "ratio", "verdict", "why"),
    [
        ([1.0] * 10, [1.0] * 10, 1.0, "undecided", "equal: the interval touches 1"),
        ([1.0] * 10, [2.0] * 10, 0.5, "faster", "half the time in every round"),
        ([3.0] * 10, [2.0] * 10, 1.5, "slower", "half as long again in every round"),
        ([1.0] * 5, [2.0] * 5, 0.5, "undecided", "too few rounds to tell"),
        ([1.0] * FEWEST_ROUNDS, [2.0] * FEWEST_ROUNDS, 0.5, "faster", "just enough rounds"),
        ([1.0, 4.0] * 10, [2.0] * 20, 1.0, "undecided", "now faster, now slower"),
    ],
)
def test_verdicts(
    ours: list[float], theirs: list[float], ratio: float, verdict: str, why: str
) -> None:
    found = compare(ours, theirs)
    assert found.ratio == pytest.approx(ratio), why
    assert found.verdict == verdict, why
    assert found.low <= found.ratio <= found.high


def test_interval_of_constant_rounds_is_a_point() -> None:
    found = compare([1.0] * 10, [2.0] * 10)
    assert (found.low, found.high) == (0.5, 0.5)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits, trials = 0, 120
    for trial in range(trials):
        ours = rng.lognormal(0.0, 0.2, 40)
        theirs = rng.lognormal(np.log(1.1), 0.2, 40)
        found = compare(ours, theirs, seed=trial)
        hits += found.low <= 1 / 1.1 <= found.high
    assert hits / trials > 0.88


def test_what_disturbs_both_sides_of_a_round_cancels() -> None:
    rng = np.random.default_rng(1)
    disturbance = rng.choice([1.0, 5.0], 60, p=[0.8, 0.2])
    found = compare(0.9 * disturbance, disturbance)
    assert found.verdict == "faster"
    assert (found.low, found.high) == pytest.approx((0.9, 0.9))


def test_equal_seeds_give_equal_intervals() -> None:
    rng = np.random.default_rng(2)
    ours, theirs = rng.random(30), rng.random(30)
    assert compare(ours, theirs) == compare(ours, theirs)


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0])])
def test_rounds_that_do_not_pair_are_refused(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match="rounds of one side"):
        compare(ours, theirs)
