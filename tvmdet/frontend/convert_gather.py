"""Gather: TVM's converter reads out of bounds for an index out of bounds, and warns of it."""

from __future__ import annotations

from typing import Any

from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

from tvmdet.passes.relax_tools import is_call_to

__all__ = ["Gather"]


class Gather(onnx_frontend.Gather):  # type: ignore[misc]
    """``take`` whose indices are bounded by the data; indices can come from a picture."""

    @classmethod
    def _impl_v13(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        result = super()._impl_v13(bb, inputs, attr, params)
        if not is_call_to(result, "relax.take"):
            return result
        return relax.op.take(*result.args, axis=int(attr.get("axis", 0)), mode="clip")
