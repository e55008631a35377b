"""A kernel of a batch is told from those that only look like it for one picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tvm import te, tirx

from tvmdet.passes.same_program import is_same_program

ROWS, COLUMNS = 6, 16
Make = Callable[[int], list[te.Tensor]]


def _func(make: Make, batch: int) -> tirx.PrimFunc:
    return te.create_prim_func(make(batch))


def _maps(batch: int, *more: int) -> te.Tensor:
    return te.placeholder((batch, ROWS, COLUMNS, *more), "float32", name="x")


def _bias(batch: int) -> list[te.Tensor]:
    x, bias = _maps(batch), te.placeholder((1, 1, COLUMNS), "float32", name="bias")
    # As TVM writes a broadcast: by the loop where both have one row, else by 0.
    first = (lambda n: n) if batch == 1 else (lambda _n: 0)
    return [x, bias, te.compute(x.shape, lambda n, h, c: x[n, h, c] + bias[first(n), 0, c])]


def _taps(step: int) -> Make:
    def make(batch: int) -> list[te.Tensor]:
        x, weight = _maps(batch), te.placeholder((2, COLUMNS), "float32", name="weight")
        k = te.reduce_axis((0, 2), name="k")
        shape = (batch, ROWS - step, COLUMNS)
        body = lambda n, h, c: te.sum(x[n, h + k * step, c] * weight[k, c], axis=k)  # noqa: E731
        return [x, weight, te.compute(shape, body)]

    return make


def _tiles(batch: int) -> list[te.Tensor]:
    x = _maps(batch)
    half = ROWS // 2
    tiles = te.compute(
        (2, batch * half, COLUMNS), lambda e, t, c: x[t // half, t % half * 2 + e, c], name="tiles"
    )
    body = lambda n, h, c: tiles[h % 2, n * half + h // 2, c] * 2.0  # noqa: E731
    return [x, te.compute(x.shape, body)]


@pytest.mark.parametrize("make", [_bias, _taps(1), _taps(2), _tiles])
@pytest.mark.parametrize("batch", [2, 8])
def test_the_same_for_more_pictures(make: Make, batch: int) -> None:
    assert is_same_program(_func(make, batch), _func(make, 1), batch)
    assert not is_same_program(_func(make, batch), _func(make, 1), batch + 1)
    assert not is_same_program(_func(make, 2 * batch), _func(make, 2), 2 * batch)


def _flipped(batch: int) -> list[te.Tensor]:
    x = _maps(batch)
    return [x, te.compute(x.shape, lambda n, h, c: x[batch - 1 - n, h, c])]


def _alternating(batch: int) -> list[te.Tensor]:
    x = _maps(batch)
    shape = (batch * ROWS, COLUMNS)
    return [x, te.compute(shape, lambda row, c: x[row % batch, row // batch, c])]


def _over_pictures(batch: int) -> list[te.Tensor]:
    x, n = _maps(batch), te.reduce_axis((0, batch), name="n")
    total = te.compute((ROWS, COLUMNS), lambda h, c: te.sum(x[n, h, c], axis=n), name="total")
    return [x, te.compute(x.shape, lambda n, h, c: x[n, h, c] / total[h, c])]


def _one_after_the_other(batch: int) -> list[te.Tensor]:
    def emit(given: Any, made: Any) -> Any:
        n = tirx.Var("n", "int32")
        before = tirx.BufferLoad(made[0], [tirx.max(n - 1, 0), 0, 0])
        store = tirx.BufferStore(made[0], before + given[0][n, 0, 0], [n, 0, 0])
        return tirx.For(n, tirx.IntImm("int32", 0), tirx.IntImm("int32", batch), 0, store)

    x = _maps(batch)
    return [x, te.extern([x.shape], [x], emit, dtype="float32")]


@pytest.mark.parametrize("make", [_flipped, _alternating, _over_pictures, _one_after_the_other])
@pytest.mark.parametrize("batch", [2, 3])
def test_pictures_that_mix_are_not(make: Make, batch: int) -> None:
    assert not is_same_program(_func(make, batch), _func(make, 1), batch)


def test_a_step_is_no_extent() -> None:
    """A kernel with steps of four is not that with steps of two for two pictures."""

    def strided(step: int) -> Make:
        def make(batch: int) -> list[te.Tensor]:
            x = _maps(batch)
            return [x, te.compute((batch, 2, COLUMNS), lambda n, h, c: x[n, h * step, c])]

        return make

    assert not is_same_program(_func(strided(4), 2), _func(strided(2), 1), 2)
    assert is_same_program(_func(strided(4), 2), _func(strided(4), 1), 2)
    assert not is_same_program(_func(_taps(2), 2), _func(_taps(1), 1), 2)


def test_another_operator_or_another_order_is_not() -> None:
    def make(body: Callable[[Any, Any], Any]) -> Make:
        def made(batch: int) -> list[te.Tensor]:
            x, y = _maps(batch), te.placeholder((batch, ROWS, COLUMNS), "float32", name="y")
            return [x, y, te.compute(x.shape, lambda n, h, c: body(x[n, h, c], y[n, h, c]))]

        return made

    minus = make(lambda x, y: x - y)
    for other in (lambda x, y: x + y, lambda x, y: y - x, lambda x, _y: x - x):
        assert not is_same_program(_func(minus, 4), _func(make(other), 1), 4)
    assert is_same_program(_func(minus, 4), _func(minus, 1), 4)
