"""The kernel of scattered writes, in TVMScript: a copy, then each update in order."""

# TVMScript is not Python to a type checker.
# mypy: ignore-errors

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from tvmdet.passes.kernel_marks import mark_kernel

__all__ = ["scatter_func"]

_OPAQUE = 8  # tvm::relax::OpPatternKind::kOpaque: never fused with a neighbour


def scatter_func(
    rows: int, length: int, updates: int, dtype: str, index_dtype: str
) -> tirx.PrimFunc:
    """Returns the kernel: ``[rows, length]`` in and out, ``updates`` places and values a row.

    A negative place counts from the end; one that is out of range is left out.
    """

    @T.prim_func(s_tir=True)
    def scatter(
        data: T.Buffer((rows, length), dtype),
        places: T.Buffer((rows, updates), index_dtype),
        values: T.Buffer((rows, updates), dtype),
        result: T.Buffer((rows, length), dtype),
    ):
        T.func_attr({"op_pattern": _OPAQUE, "tirx.noalias": True})
        # A root block, because TVM asks every function that it may take for a reshape for one.
        with T.sblock("root"):
            for n in T.parallel(rows):
                place = T.alloc_buffer((1,), "int64", scope="local")
                for i in T.serial(length):
                    result[n, i] = data[n, i]
                for i in T.serial(updates):
                    place[0] = T.cast(places[n, i], "int64")
                    if place[0] < 0:
                        place[0] = place[0] + length
                    # Two ifs: TIR evaluates both sides of an `and`.
                    if place[0] >= 0:  # noqa: SIM102
                        if place[0] < length:
                            result[n, place[0]] = values[n, i]

    return mark_kernel(
        scatter,
        "scatter",
        rows=rows,
        length=length,
        updates=updates,
        dtype=dtype,
        index_dtype=index_dtype,
    )
