"""Sorting kernels against numpy, with ties, along every axis."""

from __future__ import annotations

import numpy as np
import onnx_models
import pytest
from relax_nets import one_function, operators
from tvm import relax

from tvmdet.passes.lower_sorting import LowerSorting


def _ranked(data: np.ndarray, axis: int, *, largest: bool) -> np.ndarray:
    """Positions in order; of equal values the first comes first."""
    return np.argsort(-data if largest else data, axis=axis, kind="stable")


@pytest.mark.parametrize(
    ("shape", "axis", "k", "largest"),
    [
        ((1,), 0, 1, True),  # one entry
        ((7,), 0, 3, False),  # the smallest
        ((3, 17), 1, 17, True),  # all of them
        ((3, 17), -1, 5, True),  # a negative axis
        ((4, 5, 6), 1, 2, False),  # an axis in the middle
        ((4, 5, 6), 0, 4, True),  # the first axis
    ],
)
def test_top_k(shape: tuple[int, ...], axis: int, k: int, largest: bool) -> None:
    data = np.random.default_rng(0).integers(0, 6, shape).astype("float32")  # many ties
    module = one_function(
        [(shape, "float32")],
        lambda builder, x: relax.op.topk(x, k, axis=axis, largest=largest, dtype="int64"),
    )
    lowered = LowerSorting()(module)
    assert operators(lowered)["topk"] == 0
    values, positions = onnx_models.run_relax(lowered, data)
    expected = np.take(_ranked(data, axis, largest=largest), range(k), axis=axis)
    assert positions.dtype == np.int64
    np.testing.assert_array_equal(positions, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(data, expected, axis))


@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("order", ["random", "ascending", "descending", "equal"])
@pytest.mark.parametrize("k", [1, 2, 40])
def test_few_of_many(k: int, order: str, largest: bool) -> None:
    data = np.random.default_rng(2).integers(-99, 99, (2, 700)).astype("float32")
    if order == "equal":
        data[:] = -3
    elif order != "random":
        data = np.sort(data, axis=1)[:, :: 1 if order == "ascending" else -1]
    data = np.ascontiguousarray(data)
    module = one_function(
        [(data.shape, "float32")],
        lambda builder, x: relax.op.topk(x, k, axis=1, largest=largest, dtype="int32"),
    )
    values, positions = onnx_models.run_relax(LowerSorting()(module), data)
    expected = _ranked(data, 1, largest=largest)[:, :k]
    np.testing.assert_array_equal(positions, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(data, expected, 1))


@pytest.mark.parametrize("descending", [False, True])
def test_sort_and_argsort(descending: bool) -> None:
    data = np.random.default_rng(1).integers(0, 4, (5, 9)).astype("float32")
    for name, expected in (
        ("sort", np.take_along_axis(data, _ranked(data, 1, largest=descending), 1)),
        ("argsort", _ranked(data, 1, largest=descending)),
    ):
        op = getattr(relax.op, name)
        module = one_function(
            [((5, 9), "float32")], lambda _, x, op=op: op(x, axis=1, descending=descending)
        )
        (got,) = onnx_models.run_relax(LowerSorting()(module), data)
        np.testing.assert_array_equal(got, expected)
