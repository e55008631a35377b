"""Gather and GatherElements: TVM's converters compute with sizes that are known.

They read out of bounds for an index out of bounds; Gather's warns of it. Of both TVM takes the
length of the axis from a chain of operators in the network, which folding then compiles, with what
turns indices from the end: nine tenths of the time that a network of thousands of them takes to
import.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax, tirx
from tvm.relax.frontend.onnx import onnx_frontend

from tvmdet.passes.relax_tools import constant_array, is_call_to, is_constant

__all__ = ["Gather", "GatherElements"]


class Gather(onnx_frontend.Gather):  # type: ignore[misc]
    """``take`` whose indices are bounded by the data; indices can come from a picture."""

    @classmethod
    def _impl_v13(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        data, indices = inputs[0], inputs[1]
        axis = int(attr.get("axis", 0))
        extent = _extent(data, axis)
        if extent is not None and not is_constant(data) and _has_type(indices):
            indices = _from_the_start(bb, indices, extent)
            return relax.op.take(data, indices, axis=axis, mode="clip")
        result = super()._impl_v13(bb, inputs, attr, params)
        if not is_call_to(result, "relax.take"):
            return result
        return relax.op.take(*result.args, axis=axis, mode="clip")


class GatherElements(onnx_frontend.GatherElements):  # type: ignore[misc]
    """``gather_elements`` of data whose sizes are known, and indices bounded by them."""

    @classmethod
    def _impl_v13(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        data, indices = inputs[0], inputs[1]
        axis = int(attr.get("axis", 0))
        extent = _extent(data, axis)
        if extent is None or not _has_type(indices):
            return super()._impl_v13(bb, inputs, attr, params)
        indices = _from_the_start(bb, indices, extent)
        if not is_constant(indices) and extent > 0:
            indices = bb.normalize(relax.op.clip(indices, 0, extent - 1))
        return relax.op.gather_elements(data, indices, axis)


def _has_type(value: Any) -> bool:
    return isinstance(getattr(value, "ty", None), relax.TensorType)


def _extent(data: Any, axis: int) -> int | None:
    """Returns the length of a tensor's axis, where it is known."""
    if not _has_type(data) or not isinstance(data.ty.shape, relax.ShapeExpr):
        return None
    size = data.ty.shape.values[axis]
    return int(size) if isinstance(size, tirx.IntImm) else None


def _from_the_start(bb: Any, indices: Any, extent: int) -> Any:
    """Returns indices without negative ones, which count from the end."""
    if is_constant(indices):
        values = constant_array(indices)
        return relax.const(np.where(values < 0, values + extent, values).astype(values.dtype))
    dtype = str(indices.ty.dtype)
    is_negative = bb.normalize(relax.op.less(indices, relax.const(0, dtype)))
    turned = bb.normalize(relax.op.add(indices, relax.const(extent, dtype)))
    return bb.normalize(relax.op.where(is_negative, turned, indices))
