"""CheckLegalized: an operator that nothing lowers is named before TVM stumbles over it."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from tvmdet.errors import UnsupportedOperatorError

__all__ = ["CheckLegalized"]

# What the virtual machine runs itself, or later phases remove.
_KEPT = ("relax.call_tir", "relax.builtin.", "relax.memory.", "relax.vm.", "relax.reshape")


@tvm.ir.transform.module_pass(opt_level=0, name="CheckLegalized")
class CheckLegalized:
    """Module pass that changes nothing.

    Raises:
        UnsupportedOperatorError: An operator is left that has no kernel.
    """

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        """Returns the module as it is."""
        left: dict[str, str] = {}

        def visit(expr: Any) -> None:
            if isinstance(expr, relax.Call) and isinstance(expr.op, tvm.ir.Op):
                name = str(expr.op.name)
                if not name.startswith(_KEPT):
                    left.setdefault(name, str(expr.ty))

        for func in mod.functions.values():
            if isinstance(func, relax.Function):
                relax.analysis.post_order_visit(func, visit)
        if left:
            listed = "; ".join(f"{name} giving {ty}" for name, ty in sorted(left.items()))
            raise UnsupportedOperatorError(
                f"no kernel for these operators of TVM's graph: {listed}; replace them in the "
                "model, or cut the network before them and compile it with --raw"
            )
        return mod
