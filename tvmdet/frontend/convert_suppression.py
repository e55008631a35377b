"""The importer's converter of bounded suppressions."""

from __future__ import annotations

from typing import Any

from tvm.relax.frontend.onnx import onnx_frontend

from tvmdet.passes.lower_non_max_suppression import call_non_max_suppression

__all__ = ["BoundedNonMaxSuppression"]


class BoundedNonMaxSuppression(onnx_frontend.OnnxOpConverter):  # type: ignore[misc]
    """The model function of :mod:`tvmdet.frontend.bounded.suppression` as a call of our kernel.

    :class:`~tvmdet.passes.lower_non_max_suppression.LowerNonMaxSuppression` lowers it.
    """

    @classmethod
    def _impl_v1(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        return call_non_max_suppression(
            inputs[0],
            inputs[1],
            inputs[2],
            rows=int(attr["rows"]),
            per_class=int(attr["max_output_boxes_per_class"]),
            iou_threshold=float(attr["iou_threshold"]),
            score_threshold=float(attr["score_threshold"]),
            center_point_box=bool(attr["center_point_box"]),
        )
