"""RoiAlign: TVM's converter moves the regions by half a unit instead of half a pixel."""

from __future__ import annotations

from typing import Any

from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

__all__ = ["RoiAlign"]


class RoiAlign(onnx_frontend.RoiAlign):  # type: ignore[misc]
    """One ``vision.roi_align`` whose ``aligned`` means ONNX's ``half_pixel``.

    :class:`~tvmdet.passes.lower_roi_align.LowerRoiAlign` gives it that meaning.
    """

    @classmethod
    def _impl_v10(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        return _roi_align(bb, inputs, attr, b"output_half_pixel")

    @classmethod
    def _impl_v16(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        return _roi_align(bb, inputs, attr, b"half_pixel")


def _roi_align(bb: Any, inputs: Any, attr: Any, usual: bytes) -> Any:
    data, rois, images = inputs[0], inputs[1], inputs[2]
    images = bb.normalize(relax.op.astype(bb.normalize(relax.op.expand_dims(images, 1)), "float32"))
    return relax.op.vision.roi_align(
        data,
        bb.normalize(relax.op.concat([images, rois], axis=1)),
        pooled_size=(int(attr.get("output_height", 1)), int(attr.get("output_width", 1))),
        spatial_scale=float(attr.get("spatial_scale", 1.0)),
        sample_ratio=int(attr.get("sampling_ratio", 0)),
        aligned=attr.get("coordinate_transformation_mode", usual) == b"half_pixel",
        mode="avg",
    )
