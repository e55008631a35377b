"""LowerRoiAlign: region pooling of channels-last pictures as a kernel.

TVM's own expression works out every weight once per channel, and samples a region with another
offset than ONNX does.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from tvmdet.passes.relax_tools import is_call_to, static_shape
from tvmdet.passes.rewrite_calls import rewrite_calls
from tvmdet.passes.roi_align_kernel import roi_align_func

__all__ = ["LowerRoiAlign"]


@tvm.ir.transform.module_pass(opt_level=0, name="LowerRoiAlign")
class LowerRoiAlign:
    """Module pass, after the layout is chosen."""

    def transform_module(self, mod: tvm.IRModule, _ctx: Any) -> tvm.IRModule:
        """Returns the module with region pooling replaced by calls of kernels."""
        return rewrite_calls(mod, _roi_align)


def _roi_align(builder: relax.BlockBuilder, call: Any) -> Any:
    if not is_call_to(call, "relax.vision.roi_align"):
        return call
    attrs, (data, rois) = call.attrs, call.args
    nchw = str(attrs.layout) == "NCHW"
    if nchw:
        data = builder.emit(relax.op.permute_dims(data, [0, 2, 3, 1]))
    batch, height, width, channels = static_shape(data)
    regions = static_shape(rois)[0]
    pooled = (int(attrs.pooled_size[0]), int(attrs.pooled_size[1]))
    func = roi_align_func(
        (batch, height, width, channels),
        regions,
        pooled,
        spatial_scale=float(attrs.spatial_scale),
        sampling_ratio=max(int(attrs.sample_ratio), 0),
        aligned=bool(attrs.aligned),
    )
    made = relax.TensorType((regions, *pooled, channels), "float32")
    var = builder.add_func(func, "roi_align")
    result = builder.emit(relax.call_tir(var, [data, rois], made))
    return relax.op.permute_dims(result, [0, 3, 1, 2]) if nchw else result
