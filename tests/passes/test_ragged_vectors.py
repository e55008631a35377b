"""Rows that end inside a vector: the same results, nothing beyond them, and vectors in the code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tvm
from scheduled_kernels import call_guarded
from tvm import te, tirx
from tvm.s_tir import Schedule
from tvm.script import tirx as T
from tvmdet.targets import Target, get_target

from tvmdet.passes.cpu_pipeline import PIPELINE
from tvmdet.passes.lower import tvm_target

ROWS = 3
LENGTHS = [1, 5, 15, 16, 17, 31, 48, 1125]


def _built(
    tensors: list[Any], lanes: int, target: Target, before: tuple[str, ...] = (), scope: str = ""
) -> Any:
    """Compiles expressions whose last loops are made of vectors: ``out`` and those ``before``."""
    schedule = Schedule(te.create_prim_func(tensors))
    for name in (*before, "out"):
        block = schedule.get_sblock(name)
        if name in before and scope:
            schedule.set_scope(block, 0, scope)
        *_, column = schedule.get_loops(block)
        _, lane = schedule.split(column, [None, lanes])
        schedule.vectorize(lane)
    return tvm.tirx.build(schedule.mod, tvm_target(target), PIPELINE)


def _call(built: Any, inputs: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    (result,) = call_guarded(built["main"], inputs, [(shape, str(inputs[0].dtype))])
    return result


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8", "uint16"])
def test_rows_of_any_length(dtype: str, length: int, target: Target) -> None:
    x = te.placeholder((ROWS, length), dtype, name="x")
    out = te.compute(x.shape, lambda *i: x(*i) * x(*i) + x(i[0], 0), name="out")
    data = np.random.default_rng(0).integers(0, 7, (ROWS, length)).astype(dtype)
    got = _call(_built([x, out], target.vector_lanes_f32, target), [data], data.shape)
    np.testing.assert_array_equal(got, data * data + data[:, :1])


@pytest.mark.parametrize("length", LENGTHS)
def test_a_border(length: int, target: Target) -> None:
    x = te.placeholder((ROWS, length), name="x")
    shape = (ROWS + 1, length + 20)

    def bordered(i: Any, j: Any) -> Any:
        inside = tirx.all(i < ROWS, j < length)
        return tirx.if_then_else(inside, x(i, j) * 2.0, tirx.const(7.0, "float32"))

    out = te.compute(shape, bordered, name="out")
    data = np.random.default_rng(0).standard_normal((ROWS, length)).astype("float32")
    got = _call(_built([x, out], target.vector_lanes_f32, target), [data], shape)
    expected = np.full(shape, 7.0, np.float32)
    expected[:ROWS, :length] = 2 * data
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(lambda x, i, j: x(i, 16 - j), id="backwards"),
        pytest.param(lambda x, i, j: x(i, tirx.floordiv(j, 2)), id="every one twice"),
        pytest.param(lambda x, i, j: tirx.floordiv(x(0, 3), x(i, j)), id="division"),
        pytest.param(
            lambda x, i, j: tirx.if_then_else(tirx.floormod(j, 3) == 0, x(i, j), x(i, 0)),
            id="another test of lanes",
        ),
    ],
)
def test_what_no_mask_serves(value: Callable[..., Any], target: Target) -> None:
    """Lanes that do not exist must not be read, and nothing may be divided by them."""
    x = te.placeholder((ROWS, 17), "int32", name="x")
    out = te.compute(x.shape, lambda i, j: value(x, i, j), name="out")
    data = np.random.default_rng(0).integers(1, 90, (ROWS, 17)).astype("int32")
    got = _call(_built([x, out], target.vector_lanes_f32, target), [data], data.shape)
    plain = tvm.tirx.build(te.create_prim_func([x, out]), tvm_target(target), "s_tir")
    np.testing.assert_array_equal(got, _call(plain, [data], data.shape))


def test_beyond_the_border_another_tensor_begins(target: Target) -> None:
    """Of which nothing may be read in the lanes before it."""
    x, y = (te.placeholder((ROWS, n), name=name) for n, name in ((17, "x"), (20, "y")))

    def joined(i: Any, j: Any) -> Any:
        return tirx.if_then_else(j < 17, x(i, j), y(i, j - 17))

    out = te.compute((ROWS, 37), joined, name="out")
    data = [np.random.default_rng(0).random((ROWS, n)).astype("float32") for n in (17, 20)]
    got = _call(_built([x, y, out], target.vector_lanes_f32, target), data, (ROWS, 37))
    np.testing.assert_array_equal(got, np.concatenate(data, axis=1))


def test_registers_beyond_the_last_lane_keep_their_values(target: Target) -> None:
    @T.prim_func(s_tir=True)
    def main(x: T.Buffer((32,), "float32"), y: T.Buffer((32,), "float32")) -> None:
        T.func_attr({"global_symbol": "main", "tirx.noalias": True})
        with T.sblock("all"):
            kept = T.sblock_alloc_buffer((32,), scope="local")
            for i in T.vectorized(32):
                kept[i] = x[i]
            for i in T.vectorized(32):
                if i < 20:
                    kept[i] = x[i] + T.float32(1)
            for i in T.vectorized(32):
                y[i] = kept[i]

    built = tvm.tirx.build(main, tvm_target(target), PIPELINE)
    data = np.arange(32, dtype=np.float32)
    got = _call(built, [data], (32,))
    np.testing.assert_array_equal(got, data + (np.arange(32) < 20))


@pytest.mark.parametrize("scope", ["global", "local"])
@pytest.mark.parametrize("width", [37, 48])
def test_what_lies_between_is_where_it_was_written(width: int, scope: str, target: Target) -> None:
    """Temporary tensors, shared or retyped by TVM, are read and written with a mask, or without."""
    x = te.placeholder((ROWS, 48), name="x")
    one = te.compute((ROWS, width), lambda *i: x(*i) + 1.0, name="one")
    two = te.compute((ROWS, width), lambda *i: one(*i) * 4.0, name="two")
    three = te.compute((ROWS, width), lambda *i: two(*i) - x(*i), name="three")
    out = te.compute((ROWS, 37), lambda *i: three(*i) * 2.0, name="out")
    data = np.random.default_rng(0).integers(0, 9, (ROWS, 48)).astype("float32")
    built = _built([x, out], target.vector_lanes_f32, target, ("one", "two", "three"), scope)
    got = _call(built, [data], (ROWS, 37))
    np.testing.assert_array_equal(got, 2 * ((data + 1) * 4 - data)[:, :37])


def test_whole_vectors_are_vectors_and_the_rest_is_masked(target: Target) -> None:
    x = te.placeholder((ROWS, 1125), name="x")
    out = te.compute(x.shape, lambda *i: x(*i) * x(*i), name="out")
    code = _built([x, out], target.vector_lanes_f32, target).inspect_source("asm")
    assert "vmulss" not in code
    masked = "{%k" if target.vector_lanes_f32 == 16 else "vmaskmovps"
    assert masked in code


def test_where_no_mask_exists_the_rest_is_scalar() -> None:
    x = te.placeholder((ROWS, 1125), name="x")
    out = te.compute(x.shape, lambda *i: x(*i) * x(*i), name="out")
    code = _built([x, out], 4, get_target("cortex-a76")).inspect_source("asm")
    assert "fmul\tv" in code
    assert "fmul\ts" in code
