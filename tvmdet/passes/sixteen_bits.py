"""The two ways in which convolutions keep a number in 16 bits, bfloat16 and float16.

An expression that rounds what was widened is recognised, so that nothing is computed for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import tvm
import tvm_ffi
from tvm import tirx
from tvm.ir import Call, Op

from tvmdet.passes.bf16_conv2d import float_of_bits, round_to_bits

__all__ = ["BF16", "FP16", "SixteenBits"]


@dataclass(frozen=True, kw_only=True)
class SixteenBits:
    """One way to keep a number in 16 bits.

    Attributes:
        dtype: Of a picture that is written so.
        holds_float32: Whether every float32 has a neighbour in it: float16 ends at 65504.
        name: Part of the names of kernels that read or write such pictures.
        marks: Of convolutions with products of 16 bits.
        narrow: Makes the expression of 16 bits of a float32 one.
        narrowed: Where in it the float32 one is.
        widen: Makes the float32 expression of one of 16 bits.
        widened: Where in it that one is.
    """

    dtype: str
    holds_float32: bool
    name: str
    marks: frozenset[str]
    narrow: Callable[[Any], Any]
    narrowed: Callable[[Any], Any]
    widen: Callable[[Any], Any]
    widened: Callable[[Any], Any]

    def value_of(self, expr: Any) -> Any | None:
        """Returns the float32 expression that one rounds, None if it does something else."""
        return _argument(expr, self.narrowed, self.narrow, "float32")

    def bits_of(self, value: Any) -> Any:
        """Returns a float32 expression in 16 bits, rounded where it does not come from them."""
        bits = _argument(value, self.widened, self.widen, self.dtype)
        if bits is not None:
            return bits
        if isinstance(value, Call) and value.op == Op.get("prim.if_then_else"):
            condition, one, other = value.args
            return tirx.if_then_else(condition, self.bits_of(one), self.bits_of(other))
        return self.narrow(value)


BF16: Final = SixteenBits(
    dtype="uint16",
    holds_float32=True,
    name="bf16",
    marks=frozenset({"tvmdet.bf16_conv2d", "tvmdet.bf16_winograd_conv2d", "tvmdet.amx_conv2d"}),
    narrow=round_to_bits,
    narrowed=lambda expr: expr.value.a.a.args[0],
    widen=float_of_bits,
    widened=lambda expr: expr.args[0].a.value,
)
FP16: Final = SixteenBits(
    dtype="float16",
    holds_float32=False,
    name="fp16",
    marks=frozenset({"tvmdet.fp16_conv2d", "tvmdet.fp16_depthwise_conv2d"}),
    narrow=lambda value: value.astype("float16"),
    narrowed=lambda expr: expr.value,
    widen=lambda value: value.astype("float32"),
    widened=lambda expr: expr.value,
)


def _argument(
    expr: Any, take: Callable[[Any], Any], make: Callable[[Any], Any], dtype: str
) -> Any | None:
    """Returns what ``make`` made an expression of, None if it did not; ``take`` knows where."""
    try:
        part = take(expr)
    except (AttributeError, IndexError):
        return None
    # Both would raise for another type, which TVM does not survive here.
    if not isinstance(part, tvm.ir.Expr) or str(part.ty) != dtype:
        return None
    return part if tvm_ffi.structural_equal(expr, make(part)) else None
