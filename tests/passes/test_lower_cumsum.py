"""Running sums against numpy, along every axis."""

from __future__ import annotations

import numpy as np
import onnx_models
import pytest
from relax_nets import one_function, operators
from tvm import relax

from tvmdet.passes.lower_cumsum import LowerCumsum


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize(
    ("shape", "axis", "dtype"),
    [
        ((1,), 0, "float32"),  # one entry
        ((80,), 0, "int64"),  # ranks of a selection
        ((3, 17), 1, "int64"),
        ((3, 17), -1, "float32"),  # a negative axis
        ((4, 5, 6), 1, "int64"),  # an axis in the middle
        ((4, 5, 6), 0, "int32"),  # the first axis
        ((2, 3), None, "int64"),  # all of it
    ],
)
def test_cumsum(shape: tuple[int, ...], axis: int | None, dtype: str, exclusive: bool) -> None:
    data = np.random.default_rng(0).integers(-5, 9, shape).astype(dtype)
    module = one_function(
        [(shape, dtype)], lambda _, x: relax.op.cumsum(x, axis, exclusive=exclusive)
    )
    lowered = LowerCumsum()(module)
    assert operators(lowered)["cumsum"] == 0
    (got,) = onnx_models.run_relax(lowered, data)
    expected = np.cumsum(data, axis, dtype=dtype)
    expected -= (data.reshape(-1) if axis is None else data) if exclusive else 0
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)
