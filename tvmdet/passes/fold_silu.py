"""FoldSilu: a value times its own sigmoid is one operator, SiLU.

ONNX has no SiLU before opset 24, so that exporters write two nodes. As one it is
``x / (1 + e^-x)``, a product less for each result.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from tvmdet.passes.relax_tools import is_call_to
from tvmdet.passes.rewrite_calls import rewrite_calls

__all__ = ["FoldSilu"]


@tvm.ir.transform.module_pass(opt_level=0, name="FoldSilu")
class FoldSilu:
    """Module pass, before operators are legalised."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        """Returns the module; a sigmoid that nothing else reads is gone."""
        folded = rewrite_calls(mod, _folded)
        # What is left of it would be a second reader, with which nothing fuses.
        return relax.transform.DeadCodeElimination()(folded)


def _folded(builder: relax.BlockBuilder, call: Any) -> Any:
    if not is_call_to(call, "relax.multiply"):
        return call
    for value, gate in (call.args, reversed(call.args)):
        bound = builder.lookup_binding(gate) if isinstance(gate, relax.Var) else None
        if (
            bound is not None
            and is_call_to(bound, "relax.sigmoid")
            and bound.args[0].same_as(value)
        ):
            return relax.op.nn.silu(value)
    return call
