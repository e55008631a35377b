"""Equality of truth values, which LLVM code generation takes for that of floats.

TVM 0.27 emits ``fcmp`` for two ``bool`` operands, and LLVM refuses the function. They are compared
as bytes. torch's dynamo exporter writes such comparisons for the remainder of a division.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import relax, topi

from tvmdet.passes.relax_tools import legalize_as_usual

__all__ = ["EQUALITIES"]


def _legalizer(name: str, compare: Callable[..., Any]) -> Callable[..., Any]:
    def legalize(builder: relax.BlockBuilder, call: Any) -> Any:
        if any(str(arg.ty.dtype) != "bool" for arg in call.args):
            return legalize_as_usual(builder, call)
        return builder.call_te(
            lambda left, right: compare(topi.cast(left, "uint8"), topi.cast(right, "uint8")),
            *call.args,
            primfunc_name_hint=name,
        )

    return legalize


EQUALITIES = {
    "relax.equal": _legalizer("equal", topi.equal),
    "relax.not_equal": _legalizer("not_equal", topi.not_equal),
}
