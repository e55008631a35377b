"""LowerCumsum: running sums as compiled kernels; TVM has none for a CPU but in a library."""

from __future__ import annotations

import math
from typing import Any

import tvm
from tvm import relax

from tvmdet.passes.cumsum_kernel import cumsum_func
from tvmdet.passes.relax_tools import is_call_to, static_shape
from tvmdet.passes.rewrite_calls import rewrite_calls

__all__ = ["LowerCumsum"]


@tvm.ir.transform.module_pass(opt_level=0, name="LowerCumsum")
class LowerCumsum:
    """Module pass, before operators are legalised."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        """Returns the module with running sums replaced by calls of kernels."""
        return rewrite_calls(mod, _lower)


def _lower(builder: relax.BlockBuilder, call: Any) -> Any:
    if not is_call_to(call, "relax.cumsum"):
        return call
    data = call.args[0]
    shape, attrs = static_shape(data), call.attrs
    flat = attrs.axis is None
    order = list(range(len(shape)))
    if not flat:
        order.append(order.pop(int(attrs.axis) % len(shape)))
    length = math.prod(shape) if flat else shape[order[-1]]
    rows = math.prod(shape) // length if length else 0
    if not rows:
        return call
    moved = order != sorted(order)
    if moved:
        data = builder.emit(relax.op.permute_dims(data, order))
    data = builder.emit(relax.op.reshape(data, (rows, length)))
    dtype, sum_dtype = str(data.ty.dtype), str(call.ty.dtype)
    func = cumsum_func(rows, length, dtype, sum_dtype, exclusive=bool(attrs.exclusive))
    out = relax.TensorType((rows, length), sum_dtype)
    sums = builder.emit(relax.call_tir(builder.add_func(func, "cumsum"), [data], out))
    if flat:
        return builder.emit(relax.op.reshape(sums, (length,)))
    result = builder.emit(relax.op.reshape(sums, [shape[axis] for axis in order]))
    if moved:
        result = builder.emit(
            relax.op.permute_dims(result, [order.index(a) for a in sorted(order)])
        )
    return result
