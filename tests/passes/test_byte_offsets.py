"""Kernels take tensors that begin at a byte offset, and refuse those that vectors cannot read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from scheduled_kernels import build
from tvm import te
from tvmdet.targets import get_target

V3 = get_target("x86-64-v3")
ROWS, COLUMNS = 4, 16


@pytest.fixture(scope="module")
def double() -> Any:
    x = te.placeholder((1, COLUMNS), "float32")
    y = te.compute((1, COLUMNS), lambda i, j: x[i, j] * 2.0)
    return build([te.create_prim_func([x, y])], V3)["k0"]


def _view(tensor: Any, offset: int) -> Any:
    make = tvm.get_global_func("runtime.TVMTensorCreateView")
    return make(tensor, tvm.runtime.ShapeTuple([1, COLUMNS]), "float32", offset)


@pytest.mark.parametrize(("read", "written"), [(0, 3), (2, 0), (3, 1)])
def test_an_offset_is_added(double: Any, read: int, written: int) -> None:
    x = np.arange(ROWS * COLUMNS, dtype="float32").reshape(ROWS, COLUMNS)
    source, result = tvm.runtime.tensor(x), tvm.runtime.tensor(np.full_like(x, -1))
    double(_view(source, read * 4 * COLUMNS), _view(result, written * 4 * COLUMNS))
    wanted = np.full_like(x, -1)
    wanted[written] = 2 * x[read]
    np.testing.assert_array_equal(result.numpy(), wanted)
    np.testing.assert_array_equal(source.numpy(), x)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("offset", [4, 32, 68])
def test_an_offset_between_vectors_is_refused(double: Any, which: int, offset: int) -> None:
    tensors = [tvm.runtime.tensor(np.zeros((ROWS, COLUMNS), "float32")) for _ in range(2)]
    views = [_view(t, offset if i == which else 0) for i, t in enumerate(tensors)]
    with pytest.raises(ValueError, match=r"Invalid \w+\.byte_offset on argument #" + str(which)):
        double(*views)
