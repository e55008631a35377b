"""Arguments that kernels are timed on."""

import numpy as np
import pytest

from tvmdet.tuning import worker


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        ("float32", 0.1, 1.0),
        ("float16", 0.0999, 1.0),
        ("float64", 0.1, 1.0),
        ("uint8", 0, 255),
        ("int8", -128, 127),
        ("int32", 0, 1),
        ("int64", 0, 1),
        ("bool", False, True),
    ],
)
def test_values_are_safe_for_any_kernel(dtype, low, high):
    array = worker.random_tensor(dtype, [3, 1000], 0).numpy()
    assert (array.dtype, array.shape) == (np.dtype(dtype), (3, 1000))
    assert low <= array.min() < array.max() <= high


def test_empty_and_large_arrays():
    assert worker.random_tensor("float32", [0, 4], 0).numpy().size == 0
    large = worker.random_tensor("float32", [70_000], 0).numpy()
    assert large.size == 70_000
    assert not np.array_equal(large[:10], large[10:20])


def test_an_error_is_one_line_of_bounded_length():
    text = worker._one_line(ValueError("the whole function\nError message: it\n  does not fit"))
    assert text == "ValueError: it does not fit"
    assert len(worker._one_line(ValueError("x" * 10_000))) < 700
