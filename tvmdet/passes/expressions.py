"""Questions to expressions and statements of loops, asked by the passes over a CPU's loops.

This file is also run where the package around it is not loaded (:mod:`.cpu_pipeline`): it may
import nothing of it.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir.prim import And

__all__ = ["any_of", "at_value", "factors", "reads"]


def factors(condition: Any) -> list[Any]:
    """Returns the conditions that must all hold."""
    if isinstance(condition, And):
        return [*factors(condition.a), *factors(condition.b)]
    return [condition]


def reads(expression: Any, variable: Any) -> bool:
    """Returns whether a variable is in an expression."""
    return any_of(expression, tirx.Var, lambda one: one.same_as(variable))


def any_of(node: Any, kind: Any, wanted: Any) -> bool:
    """Returns whether a part of a kind is wanted; ``wanted`` must not raise."""
    found = []

    def look(one: Any) -> None:
        if wanted(one):
            found.append(one)

    tvm_ffi.structural_walk(node, (kind, look))
    return bool(found)


def at_value(node: Any, variable: Any, value: Any) -> Any:
    """Returns an expression or a statement in which a variable has a value."""
    given = tirx.IntImm(str(variable.ty), value) if isinstance(value, int) else value
    return tvm_ffi.structural_map(
        node, (tirx.Var, lambda one: given if one.same_as(variable) else one)
    )
