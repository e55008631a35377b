"""Many latencies become a drawing of bounded size that still shows every odd one."""

from __future__ import annotations

import numpy as np
import pytest

from tvmdet.report.pages.thin import Floats, outline
from tvmdet.report.statistics import summarise


def placed(values: Floats) -> Floats:
    low, high = values.min(), values.max()
    return (values - low) / max(high - low, 1e-9) * 400.0


def test_few_values_are_all_strokes() -> None:
    values = np.linspace(10.0, 11.0, 40)
    shape = outline(values, placed(values), 0.0, 400.0)
    assert shape.strokes.size == 40
    assert shape.density.size == shape.outliers.size == 0


def test_one_value_and_equal_values_are_drawn() -> None:
    for values in (np.array([7.0]), np.full(1000, 7.0)):
        shape = outline(values, np.full(values.size, 20.0), 0.0, 400.0)
        assert shape.outliers.size == 0
        assert shape.strokes.size or shape.density.size


def test_a_single_spike_among_very_many_is_kept() -> None:
    values = np.random.default_rng(1).normal(20.0, 0.1, 100_000)
    values[[5, 77_777]] = (50.0, 90.0)
    places = placed(values)
    shape = outline(values, places, 0.0, 400.0)
    assert shape.outliers == pytest.approx([places[5], 400.0], abs=0.25)
    assert summarise(values).outliers == 2
    assert shape.outliers.size <= 801
    assert shape.density.size <= 400 / 3 + 1
    assert shape.density.max() == 1.0
    assert shape.edges.size == shape.density.size + 1


def test_values_beside_a_timer_step_are_outliers_and_not_lost() -> None:
    values = np.full(500, 4.0)
    values[10] = 9.0
    shape = outline(values, placed(values), 0.0, 400.0)
    assert shape.outliers.tolist() == [400.0]


def test_equal_latencies_give_equal_drawings() -> None:
    values = np.random.default_rng(2).gamma(3.0, 1.0, 5000)
    first, second = (outline(values, placed(values), 0.0, 400.0) for _ in range(2))
    assert np.array_equal(first.outliers, second.outliers)
    assert np.array_equal(first.density, second.density)
