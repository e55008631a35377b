"""Scattered writes against numpy, along every axis, with places that come twice."""

from __future__ import annotations

import numpy as np
import onnx_models
import pytest
from relax_nets import one_function, operators
from tvm import relax

from tvmdet.passes.lower_scatter import LowerScatter


@pytest.mark.parametrize(
    ("shape", "axis", "updates", "dtype"),
    [
        ((1,), 0, 1, "float32"),  # one entry
        ((81,), 0, 80, "int64"),  # positions of a selection
        ((3, 17), 1, 5, "float32"),
        ((3, 17), -1, 30, "float32"),  # more updates than places
        ((4, 5, 6), 1, 3, "float32"),  # an axis in the middle
        ((4, 5, 6), 0, 2, "int32"),  # the first axis
    ],
)
def test_scatter(shape: tuple[int, ...], axis: int, updates: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    taken = [updates if at == axis % len(shape) else size for at, size in enumerate(shape)]
    size = shape[axis]
    data = rng.integers(0, 99, shape).astype(dtype)
    places = rng.integers(-size, size, taken)
    values = rng.integers(100, 199, taken).astype(dtype)
    module = one_function(
        [(shape, dtype), (tuple(taken), "int64"), (tuple(taken), dtype)],
        lambda _, *tensors: relax.op.scatter_elements(*tensors, axis=axis),
    )
    lowered = LowerScatter()(module)
    assert operators(lowered)["scatter_elements"] == 0
    (got,) = onnx_models.run_relax(lowered, data, places, values)
    expected = data.copy()
    for index in np.ndindex(*taken):
        target = list(index)
        target[axis] = places[index]
        expected[tuple(target)] = values[index]
    np.testing.assert_array_equal(got, expected)


def test_sums_and_parts_are_left_alone() -> None:
    shapes = [((4, 5), "float32"), ((2, 5), "int64"), ((2, 5), "float32")]
    added = one_function(
        shapes, lambda _, *tensors: relax.op.scatter_elements(*tensors, axis=0, reduction="add")
    )
    part = one_function(shapes, lambda _, *tensors: relax.op.scatter_elements(*tensors, axis=1))
    for module in (added, part):
        assert operators(LowerScatter()(module))["scatter_elements"] == 1
