"""Activations in a form that vectorises: exponentials as a polynomial, not as a library call.

LLVM does not vectorise ``expf``; a sigmoid per output then costs as much as the convolution
before it. :func:`tvmdet.passes.exponential.exp` is plain vector arithmetic.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, te, tirx, topi

from tvmdet.passes.error_function import erf, gelu, gelu_tanh
from tvmdet.passes.exponential import exp
from tvmdet.passes.relax_tools import constant_array, is_constant, legalize_as_usual

__all__ = ["ACTIVATIONS"]


def _sigmoid(x: te.Tensor) -> te.Tensor:
    exponential = exp(topi.negative(x))
    return te.compute(x.shape, lambda *i: 1.0 / (1.0 + exponential(*i)), name="sigmoid")


def _silu(x: te.Tensor) -> te.Tensor:
    exponential = exp(topi.negative(x))
    return te.compute(x.shape, lambda *i: x(*i) / (1.0 + exponential(*i)), name="silu")


def _tanh(x: te.Tensor) -> te.Tensor:
    # tanh(x) = 2 sigmoid(2x) - 1
    exponential = exp(topi.multiply(x, tirx.const(-2.0, x.dtype)))
    return te.compute(x.shape, lambda *i: 2.0 / (1.0 + exponential(*i)) - 1.0, name="tanh")


def _unary(compute: Any) -> Any:
    def legalize(builder: relax.BlockBuilder, call: Any) -> Any:
        if str(call.ty.dtype) != "float32":
            return legalize_as_usual(builder, call)
        name = call.op.name.split(".")[-1]
        return builder.call_te(compute, call.args[0], primfunc_name_hint=name)

    return legalize


def _legalize_divide(builder: relax.BlockBuilder, call: Any) -> Any:
    """A division by a constant is a product: hard-swish divides every output by 6."""
    value, divisor = call.args
    if str(call.ty.dtype) == "float32" and is_constant(divisor):
        with np.errstate(divide="ignore", over="ignore"):
            factor = (1.0 / constant_array(divisor).astype("float64")).astype("float32")
        if np.isfinite(factor).all() and (factor != 0).all():
            product = builder.normalize(relax.op.multiply(value, relax.const(factor)))
            return legalize_as_usual(builder, product)
    return legalize_as_usual(builder, call)


ACTIVATIONS = {
    "relax.divide": _legalize_divide,
    "relax.erf": _unary(erf),
    "relax.exp": _unary(exp),
    "relax.sigmoid": _unary(_sigmoid),
    "relax.nn.gelu": _unary(gelu),
    "relax.nn.gelu_tanh": _unary(gelu_tanh),
    "relax.nn.silu": _unary(_silu),
    "relax.tanh": _unary(_tanh),
}
