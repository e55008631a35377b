"""The kernel of a running sum, in TVMScript: rows in parallel, each added up in order."""

# TVMScript is not Python to a type checker.
# mypy: ignore-errors

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from tvmdet.passes.kernel_marks import mark_kernel

__all__ = ["cumsum_func"]

_OPAQUE = 8  # tvm::relax::OpPatternKind::kOpaque: never fused with a neighbour


def cumsum_func(
    rows: int, length: int, dtype: str, sum_dtype: str, *, exclusive: bool
) -> tirx.PrimFunc:
    """Returns the kernel: data ``[rows, length]`` in, sums of the same shape out.

    Args:
        rows: Rows, added up apart.
        length: Entries of a row.
        dtype: Of the data.
        sum_dtype: Of the sums.
        exclusive: Whether a sum leaves its own entry out.
    """
    own_first = int(not exclusive)

    @T.prim_func(s_tir=True)
    def cumsum(
        data: T.Buffer((rows, length), dtype),
        sums: T.Buffer((rows, length), sum_dtype),
    ):
        T.func_attr({"op_pattern": _OPAQUE, "tirx.noalias": True})
        # A root block, because TVM asks every function that it may take for a reshape for one.
        with T.sblock("root"):
            for n in T.parallel(rows):
                total = T.alloc_buffer((1,), sum_dtype, scope="local")
                total[0] = T.cast(0, sum_dtype)
                for i in T.serial(length):
                    if own_first == 1:
                        total[0] = total[0] + T.cast(data[n, i], sum_dtype)
                        sums[n, i] = total[0]
                    else:
                        sums[n, i] = total[0]
                        total[0] = total[0] + T.cast(data[n, i], sum_dtype)

    return mark_kernel(
        cumsum,
        "cumsum",
        rows=rows,
        length=length,
        dtype=dtype,
        sum_dtype=sum_dtype,
        exclusive=exclusive,
    )
