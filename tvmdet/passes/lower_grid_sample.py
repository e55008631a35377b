"""LowerGridSample: sampling of channels-last data as a kernel, right after the layout is chosen.

TVM's own rule knows no such data, and constant folding tries the rule of every operator.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from tvmdet.passes.grid_sample import grid_sample
from tvmdet.passes.relax_tools import is_call_to
from tvmdet.passes.rewrite_calls import rewrite_calls

__all__ = ["LowerGridSample"]

_INJECTIVE = 2  # tvm::relax::OpPatternKind::kInjective: views before and after it are fused


@tvm.ir.transform.module_pass(opt_level=0, name="LowerGridSample")
class LowerGridSample:
    """Module pass, before constants are folded."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        """Returns the module with channels-last sampling replaced by calls of kernels."""
        return rewrite_calls(mod, _grid_sample)


def _grid_sample(builder: relax.BlockBuilder, call: Any) -> Any:
    if not is_call_to(call, "relax.image.grid_sample"):
        return call
    attrs = call.attrs
    if not str(attrs.layout).endswith("C"):
        return call
    return builder.call_te(
        grid_sample,
        *call.args,
        str(attrs.layout),
        border=attrs.padding_mode == "border",
        align_corners=bool(attrs.align_corners),
        primfunc_name_hint="grid_sample",
        primfunc_attrs={"op_pattern": _INJECTIVE},
    )
