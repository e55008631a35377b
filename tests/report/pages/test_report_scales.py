"""Axes: every value is inside, and labels are few and round."""

from __future__ import annotations

import numpy as np
import pytest

from tvmdet.report.pages.canvas import fitted, text_width
from tvmdet.report.pages.scales import linear, logarithmic, number

CASES = [
    ([], "nothing to show"),
    ([20.0], "one value"),
    ([20.0, 20.0], "equal values"),
    ([0.0, 0.0], "all zero"),
    ([20.0, 20.4], "close values"),
    ([0.004, 4000.0], "six decades"),
    ([999.0, 1001.0], "around a power of ten"),
]


@pytest.mark.parametrize(("values", "why"), CASES, ids=[why for _, why in CASES])
def test_axes_hold_their_values_and_have_a_few_ticks_inside(values: list[float], why: str) -> None:
    scales = [linear(values, 10.0, 110.0)]
    if all(value > 0 for value in values):
        scales.append(logarithmic(values, 110.0, 10.0))
    for scale in scales:
        places = [scale(value) for value in values]
        assert all(10.0 <= place <= 110.0 for place in places), why
        assert 1 <= len(scale.ticks) <= 7
        assert all(scale.low <= tick <= scale.high for tick in scale.ticks)
        assert len({number(tick) for tick in scale.ticks}) == len(scale.ticks)


def test_random_ranges_have_ticks() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        low = float(10 ** rng.uniform(-4, 4))
        ends = [low, low * float(1 + 10 ** rng.uniform(-4, 3))]
        for scale in (linear(ends, 0.0, 1.0), logarithmic(ends, 0.0, 1.0)):
            assert 2 <= len(scale.ticks) <= 7, (ends, scale)


def test_order_is_kept_and_zero_can_be_the_start() -> None:
    scale = logarithmic([1.0, 100.0], 0.0, 100.0)
    assert scale(1.0) < scale(10.0) < scale(100.0)
    assert scale(10.0) == pytest.approx(50.0)
    up = linear([3.0, 9.0], 100.0, 0.0, zero=True)
    assert (up.low, up(0.0)) == (0.0, 100.0)
    assert up(9.0) < up(3.0)


def test_texts_are_cut_to_fit() -> None:
    assert fitted("short", 12.0, 400.0) == "short"
    cut = fitted("x" * 90, 12.0, 100.0)
    assert cut.endswith("…")
    assert text_width(cut, 12.0) <= 100.0
