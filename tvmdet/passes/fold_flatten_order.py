"""FoldFlattenOrder: a picture that is flattened for a linear layer keeps the order that it has.

An export flattens pictures ``[N, C, H, W]``, as the box heads of two-stage detectors do with each
region's. Here pictures lie in NHWC, so that all numbers would be moved into the other order first.
The weights of the linear layer, which are constant, are moved instead, once and at compile time.
"""

from __future__ import annotations

import math
from typing import Any

import tvm
from tvm import relax

from tvmdet.passes.relax_tools import (
    constant_array,
    is_call_to,
    is_constant,
    make_call,
    make_constant,
    rewrite_functions,
    static_shape,
)

__all__ = ["FoldFlattenOrder"]


@tvm.ir.transform.module_pass(opt_level=0, name="FoldFlattenOrder")
class FoldFlattenOrder:
    """Module pass, once linear layers are convolutions and pictures lie in NHWC."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        """Returns the module with the order of flattened pictures folded into the weights."""
        return rewrite_functions(mod, lambda func: _Folder().visit_expr(func))


@relax.expr_functor.mutator
class _Folder(relax.PyExprMutator):  # type: ignore[misc]
    def visit_call_(self, call: Any) -> Any:
        call = self.visit_expr_post_order(call)
        if not is_call_to(call, "relax.nn.conv2d") or not is_constant(call.args[1]):
            return call
        data, weight = call.args
        if call.attrs.data_layout != "NHWC" or int(call.attrs.groups) != 1:
            return call
        moved = self._moved(data)
        if moved is None:
            return call
        axes = [int(axis) for axis in moved.attrs.axes]
        filters, *taps, depth = static_shape(weight)
        items, *sides = static_shape(moved)
        # Each pixel of the convolution is one item, whole.
        if taps != [1, 1] or axes[0] != 0 or math.prod(sides) != depth:
            return call
        shape = static_shape(data)
        if math.prod(shape[:-1]) != items or shape[-1] != depth:
            return call
        back = [axes.index(axis) for axis in range(len(axes))]
        ordered = constant_array(weight).reshape(filters, *sides).transpose(back)
        picture = self.builder_.emit(relax.op.reshape(moved.args[0], shape))
        return make_call(call, [picture, make_constant(ordered.reshape(filters, 1, 1, depth))])

    def _moved(self, data: Any) -> Any:
        """Returns the transposition that reshapes have made ``data`` of, or None."""
        bound = self.lookup_binding(data) if isinstance(data, relax.Var) else None
        while bound is not None and is_call_to(bound, "relax.reshape"):
            source = bound.args[0]
            bound = self.lookup_binding(source) if isinstance(source, relax.Var) else None
        if bound is None or not is_call_to(bound, "relax.permute_dims"):
            return None
        return None if bound.attrs.axes is None else bound
