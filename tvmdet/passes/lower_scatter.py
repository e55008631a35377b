"""LowerScatter: ScatterElements as a compiled kernel.

TVM's own kernel has no root block, which its scheduling asks for.
"""

from __future__ import annotations

import math
from typing import Any

import tvm
from tvm import relax

from tvmdet.passes.relax_tools import is_call_to, static_shape
from tvmdet.passes.rewrite_calls import rewrite_calls
from tvmdet.passes.scatter_kernel import scatter_func

__all__ = ["LowerScatter"]


@tvm.ir.transform.module_pass(opt_level=0, name="LowerScatter")
class LowerScatter:
    """Module pass, before operators are legalised."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        """Returns the module with scattered writes replaced by calls of a kernel.

        Those that add up or compare, and those whose updates cover a part of the other axes, are
        left to TVM.
        """
        return rewrite_calls(mod, _lower)


def _lower(builder: relax.BlockBuilder, call: Any) -> Any:
    if not is_call_to(call, "relax.scatter_elements") or call.attrs.reduction != "update":
        return call
    data = call.args[0]
    shape, updates = static_shape(data), static_shape(call.args[1])
    axis = int(call.attrs.axis) % len(shape)
    others = [at for at in range(len(shape)) if at != axis]
    rows = math.prod(shape[at] for at in others)
    if not rows or any(shape[at] != updates[at] for at in others):
        return call
    order = [*others, axis]
    flat = []
    for tensor, length in zip(call.args, (shape[axis], updates[axis], updates[axis]), strict=True):
        if order != sorted(order):
            tensor = builder.emit(relax.op.permute_dims(tensor, order))
        flat.append(builder.emit(relax.op.reshape(tensor, (rows, length))))
    dtype, index_dtype = str(data.ty.dtype), str(call.args[1].ty.dtype)
    func = scatter_func(rows, shape[axis], updates[axis], dtype, index_dtype)
    out = relax.TensorType((rows, shape[axis]), dtype)
    written = builder.emit(relax.call_tir(builder.add_func(func, "scatter"), flat, out))
    result = builder.emit(relax.op.reshape(written, [shape[at] for at in order]))
    if order != sorted(order):
        back = [order.index(at) for at in range(len(shape))]
        result = builder.emit(relax.op.permute_dims(result, back))
    return result
