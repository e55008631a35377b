"""Which kernels only select: every element that they write is one that they read, or a constant.

A maximum of a window, the nearest pixel, a slice, a transpose and a concatenation do; rounding
before them gives the same as rounding after them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import tirx
from tvm.ir import Call, Op, TensorLoad

from tvmdet.passes.bf16_conv2d import round_to_bf16
from tvmdet.passes.join_calls import blocks_of

__all__ = ["selects"]

_LEAST = float(np.finfo(np.float32).min)


def selects(func: tirx.PrimFunc) -> bool:
    """Returns whether a kernel selects from float32 pictures, and writes one result.

    Args:
        func: A fused kernel, not scheduled.
    """
    blocks = blocks_of(func)
    dtypes = {str(param.dtype) for param in func.params if hasattr(param, "dtype")}
    return bool(blocks) and dtypes == {"float32"} and all(_selects(block.body) for block in blocks)


def _selects(body: Any) -> bool:
    return isinstance(body, tirx.BufferStore) and _is_selected(body.value)


def _is_selected(value: Any) -> bool:
    if isinstance(value, TensorLoad):
        return str(value.source.dtype) == "float32"
    if isinstance(value, tirx.Max | tirx.Min):
        return _is_selected(value.a) and _is_selected(value.b)
    if isinstance(value, tirx.FloatImm):
        return _stays(float(value.value))
    if isinstance(value, tirx.Select):
        return _is_selected(value.true_value) and _is_selected(value.false_value)
    if isinstance(value, Call) and value.op == Op.get("prim.if_then_else"):
        return all(_is_selected(branch) for branch in value.args[1:])
    return False


def _stays(constant: float) -> bool:
    """Returns whether a constant is its own nearest one in 16 bits, or less than all that is."""
    if constant <= _LEAST:
        return True
    bits = round_to_bf16(np.array([constant], np.float32)).astype(np.uint32) << np.uint32(16)
    return bool(bits.view(np.float32)[0] == np.float32(constant) and abs(constant) <= 1)
