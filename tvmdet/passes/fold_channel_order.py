"""FoldChannelOrder: a convolution of reordered channels is one with reordered weights.

Images come in OpenCV's BGR order and most networks want RGB. Swapping the channels of a picture
would read and write all of it; swapping them in the weights of the first convolution costs
nothing at run time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvmdet.passes.relax_tools import (
    constant_array,
    is_call_to,
    is_constant,
    make_call,
    rewrite_functions,
    static_shape,
)

__all__ = ["FoldChannelOrder"]


@tvm.ir.transform.module_pass(opt_level=0, name="FoldChannelOrder")
class FoldChannelOrder:
    """Module pass on NCHW networks, before the layout is changed."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        """Returns the module with constant channel permutations folded into convolutions."""
        return rewrite_functions(mod, lambda func: _Folder().visit_expr(func))


@relax.expr_functor.mutator
class _Folder(relax.PyExprMutator):  # type: ignore[misc]
    def visit_call_(self, call: Any) -> Any:
        call = self.visit_expr_post_order(call)
        if not is_call_to(call, "relax.nn.conv2d") or not is_constant(call.args[1]):
            return call
        attrs = call.attrs
        if attrs.data_layout != "NCHW" or int(attrs.groups) != 1:
            return call
        taken = self.lookup_binding(call.args[0])
        if taken is None or not is_call_to(taken, "relax.take") or not is_constant(taken.args[1]):
            return call
        order = constant_array(taken.args[1])
        channels = static_shape(call.args[1])[1]
        if taken.attrs.axis != 1 or sorted(order.tolist()) != list(range(channels)):
            return call
        weight = constant_array(call.args[1])
        reordered = np.empty_like(weight)
        reordered[:, order] = weight
        return make_call(call, [taken.args[0], relax.const(reordered)])
