"""TurnProducts: the smaller factor of a product is transposed, and not the larger one.

Channels first, attention is written as ``V @ transpose(P)``, with the weights P ``[..., T, T]`` of
T tokens and values V ``[..., D, T]``: YOLO11 and YOLO12 do so. That is
``transpose(P @ transpose(V))``, and instead of T x T numbers 2 x D x T change their places.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import tvm
from tvm import relax

from tvmdet.passes.relax_tools import count_readers, is_call_to, is_constant, static_shape
from tvmdet.passes.rewrite_calls import rewrite_calls

__all__ = ["TurnProducts"]


@tvm.ir.transform.module_pass(opt_level=0, name="TurnProducts")
class TurnProducts:
    """Module pass, before operators are legalised."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        """Returns the module; a transposition that nothing reads any more is gone."""
        readers = count_readers(mod)
        turned = rewrite_calls(mod, lambda builder, call: _turned(builder, call, readers))
        return relax.transform.DeadCodeElimination()(turned)


def _turned(builder: relax.BlockBuilder, call: Any, readers: Counter[Any]) -> Any:
    if not is_call_to(call, "relax.matmul"):
        return call
    left, right = call.args
    # Read by another as well, it would be transposed all the same.
    once = isinstance(right, relax.Var) and readers[right] == 1
    bound = builder.lookup_binding(right) if once else None
    if bound is None or not is_call_to(bound, "relax.permute_dims"):
        return call
    (source,) = bound.args
    shape = static_shape(source)
    if [int(axis) for axis in bound.attrs.axes or ()] != _last_two(len(shape)):
        return call
    if is_constant(source) or is_constant(left) or len(static_shape(left)) != len(shape):
        return call
    moved = math.prod(static_shape(left)) + math.prod(static_shape(call))
    if moved >= math.prod(shape):
        return call
    axes = _last_two(len(shape))
    columns = builder.emit(relax.op.permute_dims(left, axes))
    product = builder.emit(relax.op.matmul(source, columns, call.attrs.out_dtype))
    return relax.op.permute_dims(product, axes)


def _last_two(rank: int) -> list[int]:
    """Returns the axes of a transposition of matrices."""
    return [*range(rank - 2), rank - 1, rank - 2]
