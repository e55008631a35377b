"""The walk that passes share which replace some calls of operators by something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax

__all__ = ["rewrite_calls"]

Rewrite = Callable[[relax.BlockBuilder, Any], Any]


def rewrite_calls(mod: tvm.IRModule, rewrite: Rewrite) -> tvm.IRModule:
    """Returns a module in which every call of its Relax functions has been rewritten.

    Args:
        mod: The module.
        rewrite: Takes the builder and a call whose arguments are rewritten already, and returns
            what takes its place, or the call itself. It may emit bindings and add functions.
    """
    mutator = _Rewriter(mod, rewrite)
    for var, func in mod.functions_items():
        if isinstance(func, relax.Function):
            mutator.builder_.update_func(var, mutator.visit_expr(func))
    return mutator.builder_.get()


@relax.expr_functor.mutator
class _Rewriter(relax.PyExprMutator):  # type: ignore[misc]
    def __init__(self, mod: tvm.IRModule, rewrite: Rewrite) -> None:
        super().__init__(mod)
        self._rewrite = rewrite

    def visit_call_(self, call: Any) -> Any:
        return self._rewrite(self.builder_, self.visit_expr_post_order(call))
