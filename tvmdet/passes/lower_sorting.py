"""LowerSorting: top-k, sort and argsort as compiled kernels.

TVM lowers them to calls of ``tvm.contrib.sort``, which lives in a library that a detector's
runtime does not load, and which sorts whole rows even where a few entries are wanted.
"""

from __future__ import annotations

import math
from typing import Any

import tvm
from tvm import relax

from tvmdet.passes.relax_tools import static_shape
from tvmdet.passes.rewrite_calls import rewrite_calls
from tvmdet.passes.top_k_kernel import top_k_func

__all__ = ["LowerSorting"]


def _emit_top_k(
    builder: relax.BlockBuilder, data: Any, axis: int, k: int, index_dtype: str, *, largest: bool
) -> tuple[Any, Any]:
    """Emits values and positions along an axis."""
    shape = static_shape(data)
    rank = len(shape)
    axis %= rank
    order = [a for a in range(rank) if a != axis] + [axis]
    moved = order != list(range(rank))
    if moved:
        data = builder.emit(relax.op.permute_dims(data, order))
    lead = [shape[a] for a in order[:-1]]
    rows, length = math.prod(lead), shape[axis]
    k = length if k < 0 else min(k, length)
    dtype = str(data.ty.dtype)
    flat = builder.emit(relax.op.reshape(data, (rows, length)))
    func = top_k_func(rows, length, k, dtype, index_dtype, largest=largest)
    outputs = [relax.TensorType((rows, k), dtype), relax.TensorType((rows, k), index_dtype)]
    pair = builder.emit(relax.call_tir(builder.add_func(func, "top_k"), [flat], outputs))
    results = []
    for index in range(2):
        part = builder.emit(relax.op.reshape(builder.emit(pair[index]), (*lead, k)))
        if moved:
            back = [order.index(a) for a in range(rank)]
            part = builder.emit(relax.op.permute_dims(part, back))
        results.append(part)
    return results[0], results[1]


def _top_k(builder: relax.BlockBuilder, call: Any) -> Any:
    attrs = call.attrs
    values, positions = _emit_top_k(
        builder,
        call.args[0],
        int(attrs.axis),
        int(attrs.k),
        str(attrs.dtype),
        largest=bool(attrs.largest),
    )
    if attrs.ret_type == "both":
        return relax.Tuple([values, positions])
    return values if attrs.ret_type == "values" else positions


def _sort(builder: relax.BlockBuilder, call: Any) -> Any:
    largest = bool(call.attrs.descending)
    axis = int(call.attrs.axis)
    return _emit_top_k(builder, call.args[0], axis, -1, "int32", largest=largest)[0]


def _argsort(builder: relax.BlockBuilder, call: Any) -> Any:
    attrs = call.attrs
    dtype = str(attrs.dtype) or "int32"
    largest = bool(attrs.descending)
    return _emit_top_k(builder, call.args[0], int(attrs.axis), -1, dtype, largest=largest)[1]


_RULES = {"relax.topk": _top_k, "relax.sort": _sort, "relax.argsort": _argsort}


@tvm.ir.transform.module_pass(opt_level=0, name="LowerSorting")
class LowerSorting:
    """Module pass, before operators are legalised."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        """Returns the module with sorting operators replaced by calls of kernels."""
        return rewrite_calls(mod, _lower)


def _lower(builder: relax.BlockBuilder, call: Any) -> Any:
    rule = _RULES.get(call.op.name) if isinstance(call.op, tvm.ir.Op) else None
    return call if rule is None else rule(builder, call)
