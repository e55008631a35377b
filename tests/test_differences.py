"""What differences of outputs are shares of."""

from __future__ import annotations

import numpy as np
import pytest

from tvmdet.differences import scale_of


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], 1.0),
        ([0.0, 0.0], 1e-2),
        ([np.inf, np.nan], 1.0),
        ([-4.0, 2.0, np.inf], 4.0),
        ([0.0, 0.25], 0.25),
        ([0.0, 1e-6], 1e-2),
        ([-1e-6, 1e-6], 1e-6),
        ([0.0, 7.0], 7.0),
    ],
)
def test_the_size_of_an_output(values: list[float], expected: float) -> None:
    assert scale_of(np.asarray(values, np.float32)) == pytest.approx(expected)


def test_whole_numbers_are_no_scores() -> None:
    assert scale_of(np.array([0, 1])) == 1.0
    assert scale_of(np.array([-3, 2])) == 3.0
