"""Matrix products of two activations, as attention has them, in the form that a template schedules.

The right factor is packed to ``[..., ceil(N/v), K, v]`` by the kernel itself, so that the innermost
loop reads one aligned vector of columns. Every register tile is full: beyond the last row of the
left factor it reads that row again. Only the stores are cut to size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tvm import relax, te, tirx

from tvmdet.passes.conv2d_expressions import WIDTH_SLACK
from tvmdet.passes.relax_tools import legalize_as_usual, static_shape
from tvmdet.targets import Target

__all__ = ["batch_matmul", "matmul_legalizer", "pack_columns", "packed_product"]

_OUT_ELEMENTWISE_FUSABLE = 4  # tvm::relax::OpPatternKind::kOutEWiseFusable


def matmul_legalizer(target: Target) -> Any:
    """Returns the legalisation of ``relax.matmul`` for the vectors of a target."""

    def legalize(builder: relax.BlockBuilder, call: Any) -> Any:
        left, right = (static_shape(arg) for arg in call.args)
        # A vector on either side has another shape of result.
        plain = min(len(left), len(right)) >= 2 and left[:-2] == right[:-2]
        if not plain or any(str(arg.ty.dtype) != "float32" for arg in call.args):
            return legalize_as_usual(builder, call)
        return builder.call_te(
            lambda a, b: batch_matmul(a, b, target.vector_lanes_f32),
            *call.args,
            primfunc_name_hint="batch_matmul",
            primfunc_attrs={"op_pattern": _OUT_ELEMENTWISE_FUSABLE},
        )

    return legalize


def batch_matmul(left: te.Tensor, right: te.Tensor, lanes: int) -> te.Tensor:
    """Returns the tensor expression of ``left @ right``.

    Args:
        left: ``[..., M, K]``, float32.
        right: ``[..., K, N]``, float32, with the same leading axes.
        lanes: Elements of a vector.
    """
    *lead, rows, depth = (int(d) for d in left.shape)
    columns = int(right.shape[-1])
    clamped = te.compute(
        (*lead, rows + WIDTH_SLACK, depth),
        lambda *i: left(*i[:-2], tirx.min(i[-2], rows - 1), i[-1]),
        name="clamped",
    )
    notes = {
        "tvmdet.batch_matmul": f"batch_matmul {math.prod(lead)}x{rows}x{depth}x{columns}",
        "tvmdet.flop": 2 * math.prod(lead) * rows * depth * columns,
        "tvmdet.lanes": lanes,
    }
    product = packed_product(clamped, pack_columns(right, lanes, "pack"), "product", notes)
    return te.compute((*lead, rows, columns), lambda *i: product(*i), name="cut")


def pack_columns(right: te.Tensor, lanes: int, name: str) -> te.Tensor:
    """Returns ``[..., blocks, K, lanes]`` of ``[..., K, N]``: one vector of columns after another.

    What lies beyond the last column is 0. There is a block more where no tile of two is whole.
    """
    *lead, depth, columns = (int(d) for d in right.shape)
    blocks = -(-columns // lanes)
    if blocks > 2 and all(blocks % n for n in (2, 3, 5)):
        blocks += 1
    zero = tirx.const(0.0, "float32")

    def pack(*i: Any) -> Any:
        column = i[-3] * lanes + i[-1]
        value = right(*i[:-3], i[-2], column)
        whole = blocks * lanes == columns
        return value if whole else tirx.if_then_else(column < columns, value, zero)

    return te.compute((*lead, blocks, depth, lanes), pack, name=name)


def packed_product(
    left: te.Tensor, packed: te.Tensor, name: str, notes: Mapping[str, Any]
) -> te.Tensor:
    """Returns ``[..., M, blocks * lanes]``, the product with packed columns.

    Args:
        left: ``[..., M, K]``.
        packed: From :func:`pack_columns`.
        name: Of the block.
        notes: Its annotations.
    """
    *lead, rows, depth = (int(d) for d in left.shape)
    blocks, lanes = int(packed.shape[-3]), int(packed.shape[-1])
    k = te.reduce_axis((0, depth), name="k")
    return te.compute(
        (*lead, rows, blocks * lanes),
        lambda *i: te.sum(
            left(*i[:-1], k) * packed(*i[:-2], i[-1] // lanes, k, i[-1] % lanes), axis=k
        ),
        name=name,
        attrs=dict(notes),
    )
