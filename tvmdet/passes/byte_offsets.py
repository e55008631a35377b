"""Kernels that begin anywhere in memory: TVM's own take only tensors at the start of theirs.

A tensor that is one picture of a batch is told by where the batch lies and by a byte offset. TVM's
kernels refuse every offset but 0, and read from the start of the batch.

This file is also run where the package around it is not loaded (:mod:`.cpu_pipeline`): it may
import nothing of it.
"""

from __future__ import annotations

from typing import Any, Final

import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Op
from tvm.ir.prim import EQ

__all__ = ["ALIGNED_BYTES", "accept_byte_offsets"]

ALIGNED_BYTES: Final = 64
"""Vectors are read and written as if tensors began at a multiple, as TVM allocates them."""

# Of a DLTensor, as ``tvm_struct_get`` numbers its fields.
_DATA: Final = 1
_BYTE_OFFSET: Final = 8

_GET_FIELD: Final = Op.get("tirx.tvm_struct_get")
_REINTERPRET: Final = Op.get("tirx.reinterpret")


def accept_byte_offsets(func: tirx.PrimFunc) -> tirx.PrimFunc:
    """Returns a function with a packed interface that adds its tensors' byte offsets.

    An offset that is no multiple of 64 is still refused.
    """

    def check_alignment(test: Any) -> Any:
        condition = test.condition
        if not isinstance(condition, EQ):
            return test
        for zero, offset in ((condition.a, condition.b), (condition.b, condition.a)):
            if isinstance(zero, tirx.IntImm) and int(zero) == 0 and _is_field(offset, _BYTE_OFFSET):
                rest = tirx.floormod(offset, tirx.IntImm("uint64", ALIGNED_BYTES))
                aligned = EQ(rest, tirx.IntImm("uint64", 0))
                # TVM 0.27 names the first two arguments the other way around.
                return tirx.AssertStmt(aligned, test.error_kind, list(test.message_parts))
        return test

    def add_offset(call: Any) -> Any:
        if not call.op.same_as(_REINTERPRET) or not _is_field(call.args[0], _DATA):
            return call
        (data,) = call.args
        offset = tirx.tvm_struct_get(data.args[0], 0, _BYTE_OFFSET, "uint64")
        there = tirx.handle_add_byte_offset(data, offset)
        return Call(call.op, [there], call.attrs, call.ty_args, call.span, call.ty)

    changes = [(tirx.AssertStmt, check_alignment), (Call, add_offset)]
    return func.with_body(tvm_ffi.structural_map(func.body, changes))


def _is_field(expr: Any, field: int) -> bool:
    return isinstance(expr, Call) and expr.op.same_as(_GET_FIELD) and int(expr.args[2]) == field
