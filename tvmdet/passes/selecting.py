"""Which kernels only select: every element that they write is one that they read, or a constant.

A maximum of a window, the nearest pixel, a slice, a transpose and a concatenation do. Rounding is
monotone, and rounding again changes nothing: before such a kernel it gives the same as behind it.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Op, TensorLoad

from tvmdet.passes.join_calls import blocks_of

__all__ = ["selects"]


def selects(func: tirx.PrimFunc) -> bool:
    """Returns whether a kernel selects from float32 pictures, and writes one result.

    What is selected may depend on indices and on constants, never on a picture: an address that is
    computed of rounded numbers is another one.

    Args:
        func: A fused kernel, not scheduled.
    """
    blocks = blocks_of(func)
    params = list(func.params)
    if not blocks or any(str(param.dtype) != "float32" for param in params):
        return False
    written = {
        at
        for block in blocks
        for write in block.writes
        for at, param in enumerate(params)
        if write.source.same_as(param)
    }
    return written == {len(params) - 1} and all(_selects(block.body) for block in blocks)


def _selects(body: Any) -> bool:
    return (
        isinstance(body, tirx.BufferStore)
        and _is_selected(body.value)
        and not any(map(_loads, body.indices))
    )


def _is_selected(value: Any) -> bool:
    if isinstance(value, TensorLoad):
        return str(value.source.dtype) == "float32" and not any(map(_loads, value.indices))
    if isinstance(value, tirx.Max | tirx.Min):
        return _is_selected(value.a) and _is_selected(value.b)
    if isinstance(value, tirx.Select):
        condition, branches = value.condition, (value.true_value, value.false_value)
    elif isinstance(value, Call) and value.op == Op.get("prim.if_then_else"):
        condition, *branches = value.args
    else:
        return isinstance(value, tirx.FloatImm)
    return not _loads(condition) and all(map(_is_selected, branches))


def _loads(expr: Any) -> bool:
    """Returns whether something is read for an index or a condition."""
    found: list[Any] = []
    tvm_ffi.structural_walk(expr, (TensorLoad, found.append))
    return bool(found)
