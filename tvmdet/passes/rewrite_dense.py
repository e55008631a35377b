"""RewriteDense: a matrix product with constant weights is a pointwise convolution.

``x [..., K] @ W [K, N]`` is a 1x1 convolution of a picture with as many pixels as ``x`` has rows, K
channels and N filters: the convolution templates, their packed weights and their
tuning records then serve linear layers too. A bias that follows is added before the result gets
its shape back, so that it fuses.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tvm
from tvm import relax

from tvmdet.passes.relax_tools import (
    constant_array,
    is_call_to,
    is_constant,
    rewrite_functions,
    static_shape,
)

__all__ = ["RewriteDense"]

_NARROWEST, _WIDEST = 4, 32


@tvm.ir.transform.module_pass(opt_level=0, name="RewriteDense")
class RewriteDense:
    """Module pass, before the layout is changed."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        """Returns the module with float32 products with constants as convolutions."""
        return rewrite_functions(mod, lambda func: _Rewriter().visit_expr(func))


@relax.expr_functor.mutator
class _Rewriter(relax.PyExprMutator):  # type: ignore[misc]
    def visit_call_(self, call: Any) -> Any:
        call = self.visit_expr_post_order(call)
        if is_call_to(call, "relax.matmul"):
            return self._product(call)
        if is_call_to(call, "relax.add"):
            for product, bias in (call.args, reversed(call.args)):
                bound = self.lookup_binding(product) if isinstance(product, relax.Var) else None
                if bound is not None and is_call_to(bound, "relax.reshape"):
                    rewritten = self._with_bias(bound, bias)
                    if rewritten is not None:
                        return rewritten
        return call

    def _product(self, call: Any) -> Any:
        data, weight = call.args
        if not is_constant(weight) or len(static_shape(weight)) != 2:
            return call
        if str(data.ty.dtype) != "float32" or len(static_shape(data)) < 2:
            return call
        lead, depth = static_shape(data)[:-1], static_shape(data)[-1]
        filters = static_shape(weight)[1]
        packed = np.ascontiguousarray(constant_array(weight).T).reshape(filters, 1, 1, depth)
        emit = self.builder_.emit
        picture = emit(relax.op.reshape(data, (1, *_rows_and_columns(math.prod(lead)), depth)))
        result = emit(
            relax.op.nn.conv2d(
                picture, relax.const(packed), data_layout="NHWC", kernel_layout="OHWI"
            )
        )
        return relax.op.reshape(result, (*lead, filters))

    def _with_bias(self, reshape: Any, bias: Any) -> Any:
        """Moves the bias of a rewritten product before its reshape; None if it is none."""
        picture = reshape.args[0]
        bound = self.lookup_binding(picture) if isinstance(picture, relax.Var) else None
        if bound is None or not is_call_to(bound, "relax.nn.conv2d"):
            return None
        filters = static_shape(picture)[3]
        if bound.attrs.data_layout != "NHWC" or not is_constant(bias):
            return None
        if math.prod(static_shape(bias)) != filters or static_shape(bias)[-1:] != (filters,):
            return None
        row = relax.const(constant_array(bias).reshape(1, 1, 1, filters))
        summed = self.builder_.emit(relax.op.add(picture, row))
        return relax.op.reshape(summed, static_shape(reshape))


def _rows_and_columns(pixels: int) -> tuple[int, int]:
    """Returns the sides of a picture: rows enough for every core, as wide as a few tiles."""
    width = max(w for w in range(1, _WIDEST + 1) if pixels % w == 0)
    return (pixels // width, width) if width >= _NARROWEST else (1, pixels)
