"""What the manifest says of kernels."""

from __future__ import annotations

import pytest
from tvm.script import tirx as T
from tvmdet.schedules.base import Decision
from tvmdet.targets import get_target

from tvmdet.compiler.kernel_facts import kernel_facts


@T.prim_func(s_tir=True)
def fixed(x: T.Buffer((4, 8), "float32"), y: T.Buffer((4, 8), "float32")):
    for i, j in T.grid(4, 8):
        with T.sblock("y"):
            row, column = T.axis.remap("SS", [i, j])
            y[row, column] = x[row, column] * T.float32(2) + T.float32(1)


@T.prim_func(s_tir=True)
def counted(n: T.Buffer((2,), "int32"), y: T.Buffer((2, 8), "float32")):
    for i in range(2):
        with T.sblock("y"):
            row = T.axis.spatial(2, i)
            T.reads(n[row])
            T.writes(y[row, 0:8])
            for column in range(n[row]):
                y[row, column] = T.Cast("float32", n[row]) + T.float32(2)


@pytest.mark.parametrize(("func", "flop"), [(fixed, 64), (counted, None)], ids=["fixed", "counted"])
def test_operations_are_counted_where_the_data_does_not_decide(func: object, flop: int) -> None:
    found = kernel_facts(func, get_target("x86-64-v3"), Decision.of("common.as_is"), "single")
    assert found["flop"] == flop
